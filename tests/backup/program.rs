//! The program itself: by both of its names, with its exit codes, and beside a server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::process::Server;
use crate::support::storage::{commit, open};
use crate::world::database;
use runzeo::ids::Tid;
use runzeo::storage::prelude::*;

fn run(directory: &Path, program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).current_dir(directory).output().expect("start")
}

fn zeobackup() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_zeobackup"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_link_of_the_name_repozo_is_repozo() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, _) = database(3);
    fs::write(dir.path().join("Data.fs"), &bytes).unwrap();
    fs::create_dir(dir.path().join("repo")).unwrap();
    let link = dir.path().join("repozo");
    symlink(zeobackup(), &link).unwrap();
    let done = run(dir.path(), &link, &["-Bv", "-r", "repo", "-f", "Data.fs"]);
    assert!(done.status.success() && done.stdout.is_empty(), "{}", stderr(&done));
    assert!(stderr(&done).contains(&format!("writing full backup: {} bytes to repo/", bytes.len())));
    let restored = run(dir.path(), zeobackup(), &["repozo", "-R", "-r", "repo"]);
    assert!(restored.status.success() && restored.stderr.is_empty() && restored.stdout == bytes);
    let help = run(dir.path(), &link, &["-h"]);
    assert!(help.status.success() && help.stdout.starts_with(b"Back up"));
    let wrong = run(dir.path(), &link, &["-B"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(stderr(&wrong).lines().last(), Some("--repository is required"));
    let unknown = run(dir.path(), zeobackup(), &["resore"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).starts_with("Error: 'resore' is not a command"));

    let data = fs::read_dir(dir.path().join("repo")).unwrap().flatten();
    let full =
        data.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "fs")).unwrap();
    let verify = || run(dir.path(), &link, &["-V", "-r", "repo"]);
    assert!(verify().status.success() && verify().stderr.is_empty());
    let mut damaged = bytes;
    damaged[100] ^= 1;
    fs::write(full, damaged).unwrap();
    assert_eq!(verify().status.code(), Some(1));
    assert!(stderr(&verify()).contains("has checksum"));
}

/// Python's repozo restores over the file of a running server, which goes on with a file that has no name.
#[test]
fn a_backup_can_be_made_beside_a_server_and_restored_only_without() {
    let storage = "<filestorage 1>\npath Data.fs\n</filestorage>";
    let mut server = Server::start_any("", storage, |dir| {
        fs::create_dir(dir.join("repo")).unwrap();
        let storage = open(&dir.join("Data.fs"));
        commit(&storage, &[(0, Tid::ZERO, b"backed up")]).unwrap();
        storage.close().unwrap();
    });
    let dir = server.directory().to_owned();
    let done = run(&dir, zeobackup(), &["repozo", "-BF", "-r", "repo", "-f", "Data.fs"]);
    assert!(done.status.success(), "{}", stderr(&done));
    let served = fs::read(dir.join("Data.fs")).unwrap();
    let restore = || run(&dir, zeobackup(), &["repozo", "-R", "-r", "repo", "-o", "Data.fs"]);
    let refused = restore();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains(&format!("process {} has it", server.pid())), "{}", stderr(&refused));
    assert_eq!(fs::read(dir.join("Data.fs")).unwrap(), served);
    assert!(server.stop().success());
    let done = restore();
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(stderr(&done), "zeobackup repozo: the file that was there is now Data.fs.before-restore\n");
    server.start_again();
    server.wait_for_log("An empty transaction");
    assert!(server.stop().success());
}
