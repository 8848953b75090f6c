//! The program, on the real disk.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::storage::{commit, open};
use crate::world::database;
use runzeo::ids::Tid;
use runzeo::storage::prelude::*;

fn zeobackup(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output: Output =
        Command::new(env!("CARGO_BIN_EXE_zeobackup")).current_dir(dir).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn from_a_configuration_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("Data.fs"), database(4).0).unwrap();
    fs::create_dir(path("second")).unwrap();
    fs::write(path("second/Data.fs"), database(2).0).unwrap();
    fs::write(
        path("zeo.conf"),
        "<zeo>\n address 127.0.0.1:1\n</zeo>\n<filestorage 1>\n path Data.fs\n blob-dir blobs\n</filestorage>\n\
         <demostorage two>\n <filestorage>\n  path second/Data.fs\n </filestorage>\n</demostorage>\n\
         <mappingstorage memory>\n</mappingstorage>\n",
    )
    .unwrap();
    let (code, out, error) = zeobackup(dir.path(), &["create", "-r", "repo", "-C", "zeo.conf"]);
    assert_eq!((code, &*error), (0, "storage memory is left out: it is in memory\n"), "{out}");
    assert!(out.contains("\ndatabase 1: ") && out.contains("\ndatabase two/base: "), "{out}");
    let (code, out, _) = zeobackup(dir.path(), &["create", "-q", "-r", "repo", "-C", "zeo.conf"]);
    assert_eq!((code, &*out), (0, ""));
    let (code, out, _) = zeobackup(dir.path(), &["list", "-r", "repo"]);
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    let (code, out, _) = zeobackup(dir.path(), &["verify", "-r", "repo", "--newest"]);
    assert!(code == 0 && out.ends_with("nothing is damaged\n"), "{out}");
    for (arguments, lines, expected) in [
        (&["create", "--json", "-r", "repo", "-C", "zeo.conf"][..], 2, "\"new\":false"),
        (&["list", "--json", "-r", "repo"], 2, "\"until_next\":false"),
        (&["verify", "--json", "-r", "repo"], 1, "\"findings\":0"),
        (&["prune", "--json", "-n", "-r", "repo", "--keep-last", "1"], 1, "\"removed\":[]"),
        (&["restore", "--json", "-r", "repo", "-f", "Json.fs"], 1, "\"former\":null"),
    ] {
        let (code, out, error) = zeobackup(dir.path(), arguments);
        assert_eq!((code, out.lines().count()), (0, lines), "{out} {error}");
        for line in out.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
            assert!(line.contains(expected), "{line}");
        }
    }
    let files = ["Data.fs", "second/Data.fs"].map(|name| fs::read(path(name)).unwrap());
    fs::remove_file(path("Data.fs")).unwrap();
    let (code, out, error) = zeobackup(dir.path(), &["restore", "-r", "repo", "-C", "zeo.conf"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("Data.fs.before-restore"), "{out}");
    assert_eq!(["Data.fs", "second/Data.fs"].map(|name| fs::read(path(name)).unwrap()), files);
    // One of them, to another place.
    let (code, _, error) =
        zeobackup(dir.path(), &["restore", "-r", "repo", "-f", "Other.fs", "-S", "two/base"]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(fs::read(path("Other.fs")).unwrap(), files[1]);
}

#[test]
fn a_running_server_keeps_its_file_and_can_be_backed_up() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let mut serial = commit(&storage, &[(0, Tid::ZERO, b"first")]).unwrap();
    for n in 0..3 {
        let (code, out, error) = zeobackup(dir.path(), &["create", "-r", "repo", "-f", "Data.fs"]);
        assert_eq!((code, &*error), (0, ""), "{out}");
        serial = commit(&storage, &[(0, serial, &[n; 9])]).unwrap();
    }
    let (code, _, error) = zeobackup(dir.path(), &["restore", "-r", "repo", "-f", "Data.fs"]);
    assert!(code == 1 && error.contains("is another server running?"), "{error}");
    storage.close().unwrap();
    let (code, _, error) = zeobackup(dir.path(), &["restore", "-r", "repo", "-f", "Data.fs"]);
    assert_eq!(code, 0, "{error}");
}

#[test]
fn two_runs_at_a_time_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Data.fs"), database(2).0).unwrap();
    let create = ["create", "-r", "repo", "-f", "Data.fs"];
    assert_eq!(zeobackup(dir.path(), &create).0, 0);
    let lock = fs::File::open(dir.path().join("repo/zeobackup.lock")).unwrap();
    fs2::FileExt::lock_shared(&lock).unwrap();
    // A reader lets readers in, and no writer.
    assert_eq!(zeobackup(dir.path(), &["list", "-r", "repo"]).0, 0);
    let prune = ["prune", "-r", "repo", "--keep-last", "1"];
    for arguments in [&create[..], &prune] {
        let (code, _, error) = zeobackup(dir.path(), arguments);
        assert!(code == 1 && error.contains("repo is in use by another run of zeobackup"), "{error}");
    }
    fs2::FileExt::unlock(&lock).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    for arguments in
        [&["verify", "-r", "repo"][..], &["restore", "-r", "repo", "-f", "Other.fs"], &["list", "-r", "repo"]]
    {
        assert_eq!(zeobackup(dir.path(), arguments).0, 1);
    }
}

#[test]
fn wrong_command_lines_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, code, expected) in [
        (&["create", "-f", "Data.fs"][..], 2, "no repository is given; use -r"),
        (&["create", "-r", "repo"], 2, "no database is given; use -C or -f"),
        (&["create", "-r", "repo", "-f", "a", "-C", "b"], 2, "give either -C or -f"),
        (&["create", "-r", "repo", "-b", "blobs", "-C", "b"], 2, "-b belongs to -f"),
        (&["create", "-r", "repo", "-f", "a", "--max-rate", "fast"], 2, "'fast' is not a size such as 20MB"),
        (
            &["create", "-r", "repo", "-f", "a", "--max-rate", "1MB", "--gentle"],
            2,
            "--gentle and --max-rate: give one of them",
        ),
        (&["create", "-r", "repo", "-f", "a", "more"], 2, "'more' is not an option"),
        (&["create", "-r", "repo", "-f", "a"], 1, "a: No such file"),
        (&["create", "-r", "repo", "-C", "none.conf"], 1, "none.conf"),
        (&["list", "-r", "none"], 1, "none: it is no repository of zeobackup: 'zeobackup create' makes one"),
        (&["restore", "-r", "repo", "-f", "a", "yesterday"], 2, "'yesterday' is no backup"),
        (&["restore", "-r", "repo", "-f", "a", "--to-tid", "12"], 2, "'12' is not a transaction"),
        (&["restore", "-r", "repo", "-f", "a", "--to-time", "noon"], 2, "--to-time: 'noon' is not a time"),
        (
            &["restore", "-r", "repo", "-f", "a", "--to-tid", "0", "--to-time", "1d"],
            2,
            "give either --to-time or --to-tid",
        ),
        (&["prune", "-r", "repo"], 2, "say what to keep"),
        (&["prune", "-r", "repo", "--keep-daily", "x"], 2, "'x' is not a number"),
        (&["verify", "-r", "repo", "--newest", "2026-11-29T09-45-00.123Z"], 1, "there is no backup"),
    ] {
        let (found, _, error) = zeobackup(dir.path(), arguments);
        assert!(found == code && error.contains(expected), "{arguments:?}: {found} {error}");
    }
}
