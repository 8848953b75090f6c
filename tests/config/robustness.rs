//! No bytes in a configuration file cause a panic or a hang.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use runzeo::internal::client::options::ClientOptions;
use runzeo::internal::config::from_command_line;

/// Reads a file of these bytes; the result does not matter.
fn read(bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.conf");
    fs::write(&path, bytes).unwrap();
    let _ = from_command_line("runzeo", &[OsString::from("-C"), path.into()], &|_| None);
    let _ = ClientOptions::from_zconfig(&String::from_utf8_lossy(bytes));
}

/// A configuration that uses most of the language.
fn sample() -> Vec<u8> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/config/cases");
    let mut sample = b"%define INSTANCE .\n".to_vec();
    for case in [
        "plone/container-image.conf",
        "clients/zeoclient-all-keys.conf",
        "eventlog/rotation-by-time.conf",
        "runner/own-logger.conf",
        "listen/all-keys.conf",
        "access/all-kinds.conf",
        "network/both-rates.conf",
    ] {
        sample.extend(fs::read(cases.join(case)).unwrap());
    }
    sample
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes);
    }

    #[test]
    fn any_lines(lines in proptest::collection::vec(
        "<zeo>|</zeo>|<filestorage>|</filestorage>|<zeoclient>|</zeoclient>|<ssl>|</ssl>|<listen a>|</listen>|<access>|</access>|<network a>|</network>|<eventlog>|</eventlog>|<logfile>|</logfile>|<journal>|</journal>|(address|path|format|level|quota|when|old-files|max-size|server|wait-timeout|blob-cache-size-check|certificate|allow|proxy-protocol|storages|socket-group|addresses|max-requests-per-second) .{0,12}|rule (read|none|all|read,undo) (user:|cert:|cert-sha256:|uid:|gid:|10\\.)?.{0,8}|%(define|include|import) .{0,8}",
        0..20,
    )) {
        read(lines.join("\n").as_bytes());
    }

    #[test]
    fn damaged_configurations(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample();
        for (place, byte) in edits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(end.index(bytes.len()));
        read(&bytes);
    }
}
