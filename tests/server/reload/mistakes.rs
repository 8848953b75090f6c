//! A configuration that cannot be used: all stays as it was, and the operator is told where the mistake is.

use std::fs;

use super::{STORAGE, Site};
use crate::limits::{client, commit_something, refusal, wait_until};
use crate::support::client::Speaks;

/// A mistake, and a part of the message.
fn mistakes() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        (
            "max-conections 9",
            STORAGE,
            "zeo.conf:4: unknown key 'max-conections' in <zeo>, did you mean 'max-connections'?",
        ),
        ("max-connections 0", STORAGE, "zeo.conf:4: max-connections: '0' is not between 1"),
        ("max-connections 9", "<filestorage 1>\npath Data.fs", "zeo.conf:"),
        ("max-connections 9", "", "there is no storage section"),
        ("max-connections 9", "%include missing.conf", "missing.conf"),
        ("max-connections $missing", STORAGE, "zeo.conf:4"),
        (
            "max-connections 9\n<ssl>\nauthenticate x\n</ssl>",
            STORAGE,
            "<ssl> lacks the required key 'certificate'",
        ),
        ("max-connections 9", "<filestorage 1>\npath missing/dir/Data.fs\n</filestorage>", "missing/dir"),
        ("max-connections 9\nauthentication-protocol digest", STORAGE, "needs an authentication-database"),
        (
            "max-connections 9\nauthentication-protocol other\nauthentication-database x",
            STORAGE,
            "zeo.conf:5: ",
        ),
        (
            "max-connections 9",
            "<mappingstorage 1>\n</mappingstorage>\n<access 2>\nrule all everyone\n</access>",
            "zeo.conf:8: ",
        ),
    ]
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let site = Site::start("max-connections 1", STORAGE);
    let mut only = client(&site.server);
    let mut count = 0;
    let still_as_before = |what: &str| {
        assert!(refusal(&site.server, Speaks::Z5).1.contains("max-connections (1)"), "{what}");
    };
    for (zeo, more, expected) in mistakes() {
        site.write(zeo, more);
        for arguments in [&["--dry-run"] as &[&str], &[]] {
            let (code, said) = site.reload(arguments);
            assert_eq!(code, 4, "{said}");
            assert!(
                said.starts_with("nothing is changed: ") && said.contains(expected),
                "{expected}: {said}"
            );
        }
        count += 1;
        let line = "the configuration cannot be used, and the one that was read before stays in use: ";
        site.server.wait_for_log_count(line, count);
        still_as_before(expected);
        commit_something(&mut only);
    }
    fs::remove_file(site.server.directory().join("zeo.conf")).expect("it is there");
    assert_eq!(site.reload(&[]).0, 4, "the file is gone");
    still_as_before("no file");
    let said = site.apply("max-connections 2", STORAGE);
    assert_eq!(said, "applied:\n  <zeo> max-connections: 1 -> 2\n");
    commit_something(&mut client(&site.server));
}

/// What the command line says holds, whatever the file says.
#[test]
fn the_command_line_wins() {
    use std::process::{Command, Stdio};
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let write = |timeout: u32| {
        let text = format!(
            "<zeo>\naddress 127.0.0.1:1\nadmin-socket admin\ntransaction-timeout {timeout}\n</zeo>\n<mappingstorage 1>\n</mappingstorage>\n"
        );
        fs::write(path("zeo.conf"), text).expect("written");
    };
    write(30);
    let mut runzeo = Command::new(env!("CARGO_BIN_EXE_runzeo"));
    runzeo.args(["-C", "zeo.conf", "-t", "5", "-a", "127.0.0.1:0"]).current_dir(directory.path());
    let mut child = runzeo.stderr(Stdio::null()).spawn().expect("it starts");
    let reload = || {
        let mut zeoadmin = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
        let output = zeoadmin.args(["reload", "-s"]).arg(path("admin")).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    wait_until("it serves", || reload().0 == Some(0));
    write(60);
    let reloaded = reload();
    let _ = child.kill().and_then(|()| child.wait());
    let expected = "has no effect:\n  <zeo> transaction-timeout: 30 -> 60 (-t of the command line wins)\n";
    assert_eq!(reloaded, (Some(0), expected.into()));
}

/// A reload that has failed is told apart from one that was done.
#[test]
fn the_audit_log_has_reloads() {
    let sections = format!("{STORAGE}\n<audit>\npath audit.log\n</audit>");
    let site = Site::start("", &sections);
    let lines = || -> Vec<serde_json::Value> {
        let text = fs::read_to_string(site.server.directory().join("audit.log")).expect("a file");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.filter(|line: &serde_json::Value| line["event"] == "admin").collect()
    };
    site.apply("max-undo-log 5", &sections);
    site.write("max-conections 9", &sections);
    assert_eq!(site.reload(&[]).0, 4);
    wait_until("two lines", || lines().len() >= 2);
    let lines = lines();
    let [done, failed] = &lines[lines.len() - 2..] else { panic!("{lines:?}") };
    assert!(done["request"].to_string().contains("reload") && done["error"].is_null(), "{done}");
    assert!(failed["error"].as_str().expect("a reason").contains("max-conections"), "{failed}");
}
