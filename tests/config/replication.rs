//! The values of `<replication>`, its defaults, and what a reload makes of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runzeo::internal::base::address::Address;
use runzeo::internal::net::tls::{Files, Password, Peers};
use runzeo::internal::replication::cluster::options::{ClusterOptions, Level, OnTimeout, Role};

use crate::values::read;

const SERVER: &str = "<zeo>\naddress 8100\n</zeo>\n<filestorage a>\npath A.fs\n</filestorage>\n\
                      <filestorage b>\npath B.fs\n</filestorage>\n";

fn tcp(host: Option<&str>, port: u16) -> Address {
    Address::Tcp { host: host.map(String::from), port: Some(port) }
}

fn options(section: &str) -> ClusterOptions {
    let text = format!("{SERVER}<replication>\n{section}\n</replication>\n");
    read(&text, &[], &[]).replication.expect("a section")
}

#[test]
fn every_key() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("password"), "").unwrap();
    let at = |name: &str| -> PathBuf { directory.path().join(name) };
    let shown = |name: &str| at(name).display().to_string();
    let section = format!(
        "name B-1.example\nlisten 10.0.0.2:8200\npeer 10.0.0.1:8200\npeer ./c.sock\nrole Replica\nstate-file {}\n\
         trigger-file {}\nsynchronous-replicas 2\nsynchronous-level RECEIVED\nsynchronous-timeout 1m\n\
         on-timeout Block\nmax-staleness 90\nlease 20\nmax-rate 3MB\ncompress on\nfollow-packs off\nfollow-replicas on\n<ssl>\ncertificate {}\n\
         key {}\npassword-file {}\nauthenticate {}\n</ssl>",
        shown("state"),
        shown("promote"),
        shown("cert"),
        shown("key"),
        shown("password"),
        shown("cluster"),
    );
    let expected = ClusterOptions {
        name: "B-1.example".into(),
        listen: Some(tcp(Some("10.0.0.2"), 8200)),
        peers: vec![tcp(Some("10.0.0.1"), 8200), Address::Unix("./c.sock".into())],
        first_role: Role::Replica,
        state: at("state"),
        trigger: Some(at("promote")),
        synchronous_replicas: 2,
        level: Level::Received,
        synchronous_timeout: Duration::from_secs(60),
        on_timeout: OnTimeout::Block,
        max_staleness: Some(Duration::from_secs(90)),
        lease: Some(Duration::from_secs(20)),
        max_rate: Some(3 << 20),
        compress: true,
        follows_packs: false,
        follows_replicas: true,
        tls: Some(Files {
            certificate: at("cert"),
            key: Some(at("key")),
            password: Some(Password::File(at("password"))),
            peers: Peers::Listed(at("cluster")),
        }),
    };
    assert_eq!(options(&section), expected);
}

#[test]
fn defaults() {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let expected = ClusterOptions {
        name: machine,
        listen: Some(tcp(None, 8200)),
        peers: Vec::new(),
        first_role: Role::Primary,
        state: "A.fs.replication".into(),
        trigger: None,
        synchronous_replicas: 0,
        level: Level::Synced,
        synchronous_timeout: Duration::from_secs(2),
        on_timeout: OnTimeout::Degrade,
        max_staleness: None,
        lease: None,
        max_rate: None,
        compress: false,
        follows_packs: true,
        follows_replicas: false,
        tls: None,
    };
    assert_eq!(options("listen 8200\nrole primary"), expected);
    // The texts of the tables.
    let said = "listen 8200\nrole primary\nsynchronous-replicas 0\nsynchronous-level synced\n\
                synchronous-timeout 2s\non-timeout degrade\ncompress false\nfollow-packs true\nfollow-replicas false";
    assert_eq!(options(said), expected);
    assert!(read(SERVER, &[], &[]).replication.is_none());
    let of_command_line = format!("{SERVER}<replication>\nlisten 8200\nrole primary\n</replication>\n");
    let options = read(&of_command_line, &["-f", "var/C.fs"], &[]).replication.expect("a section");
    assert_eq!(options.state, Path::new("var/C.fs.replication"));
}
