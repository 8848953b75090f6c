//! `<journal>`: its values arrive, in the configuration file and in a file of `zeo.conf.d`.

use std::ffi::OsString;
use std::fs;

use runzeo::internal::config::{Invocation, from_command_line};
use runzeo::internal::logging::{Destination, HandlerSetup, JournalSetup};

/// The handlers of a configuration, with another one in `zeo.conf.d`.
fn handlers(eventlog: &str, drop_in: &str) -> Vec<HandlerSetup> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.conf");
    let file = format!("<zeo>\naddress 1\n</zeo>\n<mappingstorage>\n</mappingstorage>\n{eventlog}");
    fs::write(&path, file).unwrap();
    fs::create_dir(directory.path().join("zeo.conf.d")).unwrap();
    fs::write(directory.path().join("zeo.conf.d/a.conf"), drop_in).unwrap();
    match from_command_line("runzeo", &[OsString::from("-C"), path.into()], &|_| None) {
        Ok(Invocation::Serve(config)) => config.log.handlers,
        other => panic!("{other:?}"),
    }
}

fn journal(path: &str, identifier: &str) -> Destination {
    Destination::Journal(JournalSetup { path: path.into(), identifier: identifier.into() })
}

#[test]
fn the_values_of_a_journal_arrive() {
    let eventlog = "<eventlog>\n<journal>\n</journal>\n<journal>\nlevel warning\nidentifier zeo main\npath /tmp/socket\n\
                    </journal>\n<logfile>\npath STDERR\n</logfile>\n</eventlog>";
    let drop_in = "<eventlog>\n<journal>\nlevel error\n</journal>\n</eventlog>";
    let handlers = handlers(eventlog, drop_in);
    let found: Vec<_> = handlers.iter().map(|one| (one.level, one.destination.clone())).collect();
    let default = "/run/systemd/journal/socket";
    let expected = [
        (0, journal(default, "runzeo")),
        (30, journal("/tmp/socket", "zeo main")),
        (0, Destination::Stderr),
        (40, journal(default, "runzeo")),
    ];
    assert_eq!(found, expected);
}
