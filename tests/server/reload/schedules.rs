//! Packs, checks of files and backups: their times come, change and go.

use std::fs;
use std::path::Path;

use super::Site;
use crate::backups::{wait_for, with_repository};
use crate::limits::{client, commit_something};

fn storage(keys: &str) -> String {
    format!("<filestorage 1>\npath Data.fs\n{keys}\n</filestorage>\n")
}

fn backup(keys: &str) -> String {
    format!("{}<backup>\nrepository repo\n{keys}\n</backup>\n", storage(""))
}

/// The points in time of a repository.
fn backups_in(directory: &Path) -> usize {
    let manifests = fs::read_dir(directory.join("repo/backups"));
    manifests.map_or(0, |files| files.filter_map(Result::ok).count())
}

fn next_of<'a>(status: &'a serde_json::Value, path: &[&str]) -> &'a serde_json::Value {
    path.iter().fold(&status["storages"][0], |value, key| &value[*key])
}

#[test]
fn packs_by_schedule() {
    let site = Site::start("", &storage(""));
    (0..3).for_each(|_| commit_something(&mut client(&site.server)));
    let next = || next_of(&site.status(), &["pack", "next"]).clone();
    assert!(next().is_null());
    let said = site.apply("", &storage("pack-schedule monthly 1 03:00"));
    assert_eq!(said, "applied:\n  <filestorage 1> pack-schedule: not set -> monthly 1 03:00\n");
    let monthly = next();
    assert!(monthly.as_f64().is_some(), "{monthly}");
    site.apply("max-undo-log 5", &storage("pack-schedule monthly 1 03:00"));
    assert_eq!(next(), monthly, "what stays keeps its time");
    site.apply("", &storage("pack-schedule every 1s\npack-days 0"));
    assert_ne!(next(), monthly);
    let last = || next_of(&site.status(), &["pack", "last"]).clone();
    wait_for(&site.server, "a pack", || last().is_object());
    site.apply("", &storage(""));
    assert!(next().is_null());
    assert!(
        String::from_utf8_lossy(&site.zeoadmin(&["check"]).stdout)
            .contains("is the one that the server runs with")
    );
}

#[test]
fn checks_by_schedule() {
    let site = Site::start("", &storage(""));
    commit_something(&mut client(&site.server));
    let next = || next_of(&site.status(), &["scrub", "next"]).clone();
    assert!(next().is_null());
    site.apply("", &storage("scrub-schedule monthly 1 03:00"));
    wait_for(&site.server, "a time", || next().is_number());
    let monthly = next();
    site.apply("", &storage("scrub-schedule every 1s\nscrub-max-rate 1MB"));
    wait_for(&site.server, "another time", || next().is_number() && next() != monthly);
    let last = || next_of(&site.status(), &["scrub", "last"]).clone();
    wait_for(&site.server, "a check", || last().is_object());
    // Sums are made as soon as there is a schedule.
    wait_for(&site.server, "sums", || site.server.directory().join("Data.fs.sums").exists());
    site.apply("", &storage(""));
    wait_for(&site.server, "no time", || next().is_null());
    site.apply("", &storage("scrub-schedule monthly 1 03:00"));
    wait_for(&site.server, "a time", || next().is_number());
}

#[test]
fn backups_come_change_and_go() {
    let mut site = Site::start_prepared("", &storage(""), with_repository);
    let directory = &site.server.directory().to_path_buf();
    let mut writer = client(&site.server);
    commit_something(&mut writer);
    let said = site.apply("", &backup("continuous 1s"));
    assert!(said.contains("  <backup> repo has come: repository repo; continuous 1s\n"), "{said}");
    commit_something(&mut writer);
    wait_for(&site.server, "a backup", || backups_in(directory) > 0);
    let backups = |site: &Site| site.status()["backups"].clone();
    assert_eq!(backups(&site).as_array().expect("a list").len(), 1);
    assert!(backups(&site)[0]["next"].is_null());
    // A schedule instead; it is not made up for what has passed.
    let said = site.apply("", &backup("schedule every 60m\nkeep-last 3"));
    assert!(said.contains("  <backup> repo schedule: not set -> every 60m\n"), "{said}");
    wait_for(&site.server, "a time", || backups(&site)[0]["next"].is_number());
    // A command needs a thread of its own.
    site.apply("", &backup("continuous 1s\ncommand cat > sent"));
    commit_something(&mut writer);
    wait_for(&site.server, "what was sent", || directory.join("sent").exists());
    let said = site.apply("", &backup("continuous 1s\ncommand cat > other"));
    assert!(said.contains("  <backup> repo command: cat > sent -> cat > other\n"), "{said}");
    commit_something(&mut writer);
    wait_for(&site.server, "what was sent", || directory.join("other").exists());
    site.apply("", &storage(""));
    assert_eq!(backups(&site).as_array().expect("a list").len(), 0);
    assert!(site.server.stop().success());
    assert_eq!(site.server.count_in_log("panicked"), 0);
}
