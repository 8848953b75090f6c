//! Own keys outside of the configuration file, in the whole program: the environment, and files of `zeo.conf.d`.
//!
//! What is read and refused is in the corpus (`compat-tests/config/cases/own`).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

const MINIMAL: &str = "<zeo>\naddress 8100\n</zeo>\n<filestorage main>\npath Data.fs\n</filestorage>\n";

fn check(directory: &Path, arguments: &[&str], environment: &[(&str, &OsStr)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runzeo"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"RUNZEO_")) {
        command.env_remove(name);
    }
    command.args(arguments).arg("--check").current_dir(directory);
    command.env_remove("INSTANCE_HOME").envs(environment.iter().copied()).output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn text(text: &str) -> &OsStr {
    OsStr::new(text)
}

#[test]
fn a_server_without_a_configuration_file_has_the_variables_too() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["-a", "8100", "-f", "Data.fs"];
    let set = [
        ("RUNZEO_MAX_CONNECTIONS", text("50")),
        ("RUNZEO_BACKUP_REPOSITORY", text("/backup")),
        ("RUNZEO_BACKUP_CONTINUOUS", text("5s")),
    ];
    let shown = stdout(&check(directory.path(), &arguments, &set));
    for line in [
        "limit:    max-connections 50\n",
        "backup:   to /backup, within 5s of each commit\n",
        "set:      max-connections of <zeo>: environment variable RUNZEO_MAX_CONNECTIONS\n",
        "set:      repository of <backup>: environment variable RUNZEO_BACKUP_REPOSITORY\n",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    for (name, value, expected) in [
        (
            "RUNZEO_MAX_CONNECTIONS",
            "many",
            "environment variable RUNZEO_MAX_CONNECTIONS: max-connections: 'many' ",
        ),
        (
            "RUNZEO_BACKUP_REPOSITORY",
            "/backup",
            "environment variable RUNZEO_BACKUP_REPOSITORY: neither a schedule",
        ),
    ] {
        let refused = check(directory.path(), &arguments, &[(name, text(value))]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(expected), "{refused:?}");
    }
}

#[test]
fn the_program_warns_of_misspelt_variables() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("zeo.conf"), MINIMAL).unwrap();
    let set = [
        ("RUNZEO_MAX_CONECTIONS", text("50")),
        ("RUNZEO_ADDRESS", text("9000")),
        ("RUNZEO_SERVICE_HOST", text("10.0.0.1")),
        ("RUNZEO_VENVS", text("/")),
    ];
    let shown = stdout(&check(directory.path(), &["-C", "zeo.conf"], &set));
    let warnings: Vec<&str> = shown.lines().filter(|line| line.starts_with("warning:")).collect();
    assert_eq!(
        warnings,
        [
            "warning:  environment variable 'RUNZEO_MAX_CONECTIONS' has no effect: there is no such setting, did you mean \
             'RUNZEO_MAX_CONNECTIONS'?",
            "warning:  environment variable RUNZEO_ADDRESS has no effect: address is a key of Python's servers, too, and belongs \
             in the configuration file or on the command line",
        ]
    );
    let refused =
        check(directory.path(), &["-C", "zeo.conf"], &[("RUNZEO_MAX_UNSENT", OsStr::from_bytes(b"\xff"))]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("RUNZEO_MAX_UNSENT: not UTF-8 text"),
        "{refused:?}"
    );
}

/// A directory that cannot be read is no empty one.
#[test]
fn what_is_no_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("zeo.conf"), MINIMAL).unwrap();
    fs::write(directory.path().join("zeo.conf.d"), "").unwrap();
    let refused = check(directory.path(), &["-C", "zeo.conf"], &[]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("the directory zeo.conf.d cannot be read: Not a directory"), "{message}");
}

/// A file whose name is no text, and a directory that is called like a file.
#[test]
fn names_of_files_need_not_be_text() {
    let directory = tempfile::tempdir().unwrap();
    let drop_ins = directory.path().join("zeo.conf.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(directory.path().join("zeo.conf"), MINIMAL).unwrap();
    let name = OsString::from(OsStr::from_bytes(b"\xff.conf"));
    fs::write(drop_ins.join(name), "<zeo>\nmax-connections 7\n</zeo>\n").unwrap();
    let shown = stdout(&check(directory.path(), &["-C", "zeo.conf"], &[]));
    assert!(shown.contains("limit:    max-connections 7\n"), "{shown}");
    fs::create_dir(drop_ins.join("z.conf")).unwrap();
    let refused = check(directory.path(), &["-C", "zeo.conf"], &[]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("cannot read zeo.conf.d/z.conf: "), "{message}");
}
