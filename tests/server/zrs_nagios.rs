//! `zrs-nagios`: beside the program of zc.zrs, at the same servers.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::pack_cancel::{filled, text};
use crate::support::process::{Server, free_address};
use crate::support::pythons::python;

const PRIMARY: &str = "<filestorage 1>\npath Data.fs\n</filestorage>\n<mappingstorage same>\n</mappingstorage>\n\
                       <mappingstorage first>\n</mappingstorage>";
const SECONDARY: &str = "<filestorage 1>\npath Data.fs\n</filestorage>\n<mappingstorage same>\n</mappingstorage>\n\
                         <mappingstorage second>\n</mappingstorage>";

fn nagios(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zrs-nagios")).args(arguments).output().expect("it runs")
}

fn said(arguments: &[&str]) -> (Option<i32>, String) {
    let output = nagios(arguments);
    (output.status.code(), text(&output.stdout))
}

/// The same call of the program of zc.zrs. `None`: it is not installed.
fn pythons(arguments: &[&str]) -> Option<(Option<i32>, String)> {
    let script = "import sys, zc.zrs.nagios; sys.exit(zc.zrs.nagios.basic())";
    let Some(python) = python("zrs-py311") else {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: no Python with zc.zrs");
        return None;
    };
    let output = Command::new(python).args(["-c", script]).args(arguments).output().expect("it runs");
    Some((output.status.code(), text(&output.stdout)))
}

fn compare(arguments: &[&str]) {
    let Some((code, expected)) = pythons(arguments) else { return };
    // It prints the blanks that its usage ends with.
    let expected = expected.replace("\n    \n", "\n");
    assert_eq!(said(arguments), (code, expected), "{arguments:?}");
}

#[test]
fn the_output_is_that_of_zc_zrs() {
    let [primary, secondary] = [PRIMARY, SECONDARY].map(|storages| Server::start_any("", storages, |_| ()));
    let [one, other] = [&primary, &secondary].map(|server| server.address.to_string());
    let all: [&[&str]; 6] =
        [&["-m"], &["-w1"], &["-e", "1"], &["-w", "1", "-e99"], &["--warning=1", "-m"], &["-w0", "-e0"]];
    // Empty ones are the same.
    all.iter().for_each(|options| compare(&[options, &[&*one, &*other][..]].concat()));
    let _client = filled(&primary);
    for options in all {
        // The secondary lacks everything since 1900; and the other way round.
        compare(&[options, &[&*one, &*other][..]].concat());
        compare(&[options, &[&*other, &*one][..]].concat());
        compare(&[options, &[&*one, &*one][..]].concat());
    }
    let _other = filled(&secondary);
    compare(&["-m", "-w1000", &one, &other]);
    compare(&["-m", "-w1000", &other, &one]);
    compare(&["-m"]);
    compare(&[&one, &other]);
    compare(&["-m", &one]);
    let refused = free_address().to_string();
    compare(&["-m", &one, &refused]);
    compare(&["-m", &refused, &one]);
    compare(&["-m", "/nowhere/socket", &one]);
}

#[test]
fn lags_and_limits() {
    let storages = "<filestorage 1>\npath Data.fs\n</filestorage>";
    let [primary, secondary] = [(); 2].map(|()| Server::start_any("", storages, |_| ()));
    let [one, other] = [&primary, &secondary].map(|server| server.address.to_string());
    let same = (Some(0), "Secondary up to date.|'lag'=0.0000seconds\n".to_string());
    assert_eq!(said(&["-m", "-w1", "-e1", &one, &other]), same);
    let _client = filled(&primary);
    let (code, line) = said(&["-w1", "-e2", &one, &other]);
    assert!(line.starts_with("Secondary behind primary by ") && line.ends_with(" seconds > 2\n"), "{line}");
    assert_eq!(code, Some(2));
    let (code, line) = said(&["-w1", &one, &other]);
    assert_eq!((code, line.ends_with(" seconds > 1\n")), (Some(1), true), "{line}");
    let (code, line) = said(&["-w1", &other, &one]);
    assert_eq!((code, line.starts_with("Primary behind secondary by -")), (Some(2), true), "{line}");
}

#[test]
fn mistakes_and_servers_that_do_not_answer() {
    for mistake in [&["-w", "x", "a:1", "b:1"][..], &["-x"], &["-m", "--timeout", "0", "a:1", "b:1"], &["-m"]]
    {
        let (code, line) = said(mistake);
        assert_eq!((code, line.lines().count()), (Some(2), 1), "{mistake:?}: {line}");
    }
    let (code, help) = said(&["--help"]);
    assert_eq!((code, help.contains("-e, --error SECONDS")), (Some(0), true), "{help}");
    assert_eq!(said(&["--version"]), (Some(0), format!("zrs-nagios {}\n", env!("CARGO_PKG_VERSION"))));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, line) = said(&["-m", "--timeout", "0.3", &address, &address]);
    assert_eq!(code, Some(2));
    assert!(line.starts_with(&format!("Can't connect to secondary at '{address}': ")), "{line}");
}
