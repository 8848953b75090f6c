//! The log of the program whose standard error systemd's journal reads: a socket that `JOURNAL_STREAM` tells of.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// What the program writes to its standard error in a start and a stop. `journal_stream`: from device and inode.
fn stderr(eventlog: &str, journal_stream: impl Fn(u64, u64) -> String) -> String {
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "<zeo>\naddress {}\n</zeo>\n<mappingstorage 1>\n</mappingstorage>\n{eventlog}",
        directory.path().join("zeo.sock").display()
    );
    std::fs::write(directory.path().join("zeo.conf"), config).unwrap();
    let (mut journal, theirs) = UnixStream::pair().unwrap();
    let stat = rustix::fs::fstat(&theirs).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_runzeo"));
    command
        .args(["-C", "zeo.conf", "--test"])
        .current_dir(directory.path())
        .env_remove("INSTANCE_HOME")
        .env("JOURNAL_STREAM", journal_stream(stat.st_dev, stat.st_ino))
        .stdout(Stdio::null())
        .stderr(OwnedFd::from(theirs));
    let mut child = command.spawn().unwrap();
    // The test's copy of the program's end.
    drop(command);
    let mut text = String::new();
    journal.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

const OWN_FORMAT: &str =
    "<eventlog>\n<logfile>\npath STDERR\nformat %(levelname)s %(message)s\n</logfile>\n</eventlog>\n";

#[test]
fn each_line_for_the_journal_has_its_priority() {
    for eventlog in ["", OWN_FORMAT] {
        let text = stderr(eventlog, |device, inode| format!("{device}:{inode}"));
        assert!(text.contains("opening storage '1' using MappingStorage"), "{text}");
        assert!(text.lines().all(|line| line.starts_with("<6>") && !line.contains("------")), "{text}");
    }
}

/// The journal of another program, and a stream that was replaced.
#[test]
fn another_stream_is_written_as_it_is() {
    for other in [(0, 1), (1, 0)] {
        let text = stderr("", |device, inode| format!("{}:{}", device + other.0, inode + other.1));
        assert!(text.starts_with("------\n"), "{text}");
        assert!(!text.contains("<6>"), "{text}");
    }
    assert!(stderr("", |_, _| "nonsense".into()).starts_with("------\n"));
}

/// The journal takes the priority off; other readers have the object alone.
#[test]
fn entries_are_json_where_that_is_wanted() {
    let eventlog = "<eventlog>\n<logfile>\npath STDERR\nformat json\n</logfile>\n</eventlog>\n";
    for (prefix, other) in [("<6>", 0), ("", 1)] {
        let text = stderr(eventlog, |device, inode| format!("{}:{inode}", device + other));
        let entries: Vec<serde_json::Value> = text
            .lines()
            .map(|line| line.strip_prefix(prefix).unwrap_or_else(|| panic!("{line}")))
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        let opening = "opening storage '1' using MappingStorage";
        let is_opening = |entry: &&serde_json::Value| {
            entry["message"].as_str().is_some_and(|message| message.ends_with(opening))
        };
        let entry = entries.iter().find(is_opening).expect(opening);
        assert_eq!((&entry["level"], &entry["logger"]), (&"INFO".into(), &"ZEO.runzeo".into()), "{entry}");
        assert!(entry["process"].as_u64().is_some() && entry["time"].as_str().unwrap().ends_with('Z'));
    }
}
