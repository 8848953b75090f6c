//! `monitor-address`: the text is one that tools for ZODB 3 read.

use std::io::Read;
use std::net::TcpStream;

use crate::pack_cancel::filled;
use crate::support::process::{Server, free_address};

/// As the Munin plugin of Products.ZNagios reads it.
#[test]
fn tools_of_python_read_the_text() {
    let address = free_address();
    let server = Server::start_with(&format!("monitor-address {address}"));
    let _client = filled(&server);
    let mut text = String::new();
    TcpStream::connect(address).and_then(|mut stream| stream.read_to_string(&mut text)).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("ZEO monitor server version 3."), "{text}");
    assert!(lines[0].ends_with(&format!(" (runzeo {})", env!("CARGO_PKG_VERSION"))), "{text}");
    assert_eq!((lines[2], lines[3]), ("", "Storage: 1"), "{text}");
    let counts = lines[4..].iter().filter(|line| !line.is_empty() && !line.starts_with("Server started"));
    let counts: Vec<(&str, f64)> = counts
        .map(|line| match line.split(':').collect::<Vec<_>>()[..] {
            [label, number] => (label, number.trim().parse().expect("a number")),
            _ => panic!("{line}"),
        })
        .collect();
    let of = |label: &str| counts.iter().find(|(known, _)| *known == label).map(|(_, number)| *number);
    assert_eq!((of("Clients"), of("Clients verifying"), of("Commits")), (Some(1.0), Some(0.0), Some(2.0)));
    assert!(of("Loads").is_some() && of("Stores").is_some(), "{text}");
}
