//! The datagrams that a syslog daemon receives: Python's frames.

use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use crate::support::log::{Log, handler, setup};
use runzeo::critical;
use runzeo::internal::logging::{self, Destination, SyslogAddress, SyslogSetup};

fn destination(address: SyslogAddress) -> Destination {
    Destination::Syslog(SyslogSetup { facility: "local3".to_string(), address })
}

#[test]
fn datagrams_to_a_port() {
    let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
    daemon.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let port = daemon.local_addr().unwrap().port();
    // The process's log, for the macros; no other test of this program may set it.
    let _handle = logging::setup(&setup(handler(destination(SyslogAddress::Udp {
        host: "127.0.0.1".to_string(),
        port,
    }))))
    .unwrap();
    let mut buffer = [0; 1000];
    let mut receive = || {
        let len = daemon.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    critical!(target: "a", "critical {}", 1);
    assert_eq!(receive(), "<154>critical 1\0");
    log::error!("error");
    assert_eq!(receive(), "<155>error\0");
    log::warn!("w\u{e4}rning");
    assert_eq!(receive(), "<156>w\u{e4}rning\0");
    log::info!("info");
    assert_eq!(receive(), "<158>info\0");
    log::debug!("debug");
    assert_eq!(receive(), "<159>debug\0");
}

#[test]
fn a_daemon_that_starts_late_and_starts_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = Log::open(destination(SyslogAddress::Unix(path.clone())));
    log.info("nobody hears it");
    assert_eq!(log.handle.lost(), 1);
    let mut buffer = [0; 1000];
    for round in 0..2 {
        let daemon = UnixDatagram::bind(&path).unwrap();
        daemon.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        log.info("heard");
        if round == 0 {
            let len = daemon.recv(&mut buffer).unwrap();
            assert!(buffer[..len].starts_with(b"<156>1 log lines were lost here: "));
        }
        let len = daemon.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"<158>heard\0");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_daemon_that_does_not_read_delays_the_server_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let _daemon = UnixDatagram::bind(&path).unwrap();
    let log = Log::open(destination(SyslogAddress::Unix(path.clone())));
    let begin = std::time::Instant::now();
    for _ in 0..5_000 {
        log.info(&"x".repeat(200));
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(log.handle.lost() > 1_000);
}

#[test]
fn a_daemon_with_a_stream() {
    use std::io::Read;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let daemon = UnixListener::bind(&path).unwrap();
    let log = Log::open(destination(SyslogAddress::Unix(path.clone())));
    log.info("one");
    log.info("two");
    drop(log);
    let mut text = String::new();
    daemon.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "<158>one\0<158>two\0");
}
