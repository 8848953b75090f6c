//! The connector: several addresses, servers that come and go, and the log.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use runzeo::internal::base::address::Address;
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::client::connector::{
    Connected, Connector, ConnectorOptions, NotConnected, Prepare, PrepareError, RetryLimits,
};
use runzeo::internal::client::link::Link;
use runzeo::internal::wire::calls::Call;

use crate::link::Watcher;
use crate::servers::tcp;
use crate::support::process::Server;

/// Registers, and notes what was installed.
#[derive(Default)]
struct Register {
    storage: Option<&'static str>,
    installed: Mutex<Vec<(u64, bool)>>,
}

impl Prepare for Register {
    type Receiver = Watcher;
    type Ready = ();

    fn receiver(&self, _address: &Address) -> Watcher {
        Watcher::default()
    }

    fn prepare(&self, link: &Link, _receiver: &Arc<Watcher>, read_only: bool) -> Result<(), PrepareError> {
        let storage = self.storage.unwrap_or("1");
        let limit = Some(Duration::from_secs(10));
        let answer = link
            .call(&Call::Register { storage, read_only }, limit, |answer| {
                answer.done().map_err(|error| error.to_string())
            })
            .map_err(|error| PrepareError::Retry { why: error.to_string(), after: None })?;
        answer.map_err(|error| match error {
            error if error.contains("ReadOnlyError") => PrepareError::ReadOnly,
            error => PrepareError::Refused(error),
        })
    }

    fn installed(&self, connected: &Arc<Connected<Register>>) {
        self.installed.lock().unwrap().push((connected.number, connected.read_only));
    }
}

fn options() -> ConnectorOptions {
    let seconds = Duration::from_secs;
    ConnectorOptions {
        name: "test".into(),
        retry: RetryLimits { min: seconds(1), max: seconds(2) },
        read_only_fallback: true,
        fallback_after: Duration::from_millis(400),
        ..ConnectorOptions::default()
    }
}

fn connect(addresses: &[Address], options: ConnectorOptions) -> (Connector<Register>, Arc<Register>) {
    let register = Arc::new(Register::default());
    let connector = Connector::start(addresses, Arc::clone(&register), options).expect("a thread");
    (connector, register)
}

/// An address that refuses connections.
fn dead() -> Address {
    tcp(TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address"))
}

/// A peer that accepts and sends `greeting`, then nothing. It counts its connections.
fn peer(greeting: &'static [u8], close: bool) -> (Address, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tcp(listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.expect("a client");
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream.write_all(greeting));
            if !close {
                open.push(stream);
            }
        }
    });
    (address, count)
}

fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.len() < 2 {
        return vec![items.to_vec()];
    }
    let mut all = Vec::new();
    for first in 0..items.len() {
        let mut rest = items.to_vec();
        let item = rest.remove(first);
        for mut order in orders(&rest) {
            order.insert(0, item.clone());
            all.push(order);
        }
    }
    all
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_writable_server_is_found_in_every_order() {
    let writable = Server::start();
    let reader = Server::start_with("read-only true");
    let (silent, _) = peer(b"", false);
    let addresses = [dead(), silent, tcp(reader.address), tcp(writable.address)];
    for order in orders(&addresses) {
        let (connector, register) = connect(&order, options());
        let found = connector.wait(Duration::from_secs(20)).expect("connected");
        assert!(!found.read_only, "{order:?}: {:?}", connector.addresses());
        assert_eq!(found.address, tcp(writable.address));
        assert_eq!(*register.installed.lock().unwrap(), [(1, false)], "no fallback in between");
    }
}

#[test]
fn a_fallback_is_left_for_a_writable_server() {
    let mut writable = Server::start();
    writable.kill();
    let reader = Server::start_with("read-only true");
    let (silent, _) = peer(b"", false);
    for order in orders(&[tcp(writable.address), silent, tcp(reader.address)]) {
        let (connector, register) = connect(&order, options());
        let fallback = connector.wait(Duration::from_secs(20)).expect("connected");
        assert!(fallback.read_only, "{order:?}");
        assert_eq!(fallback.address, tcp(reader.address));
        writable.start_again();
        wait_for("an upgrade", || {
            let current = connector.current().expect("there is a link at any time");
            !current.read_only
        });
        wait_for("the fallback is closed", || fallback.link.has_ended());
        assert_eq!(*register.installed.lock().unwrap(), [(1, true), (2, false)]);
        writable.kill();
    }
}

#[test]
fn a_server_that_only_reads_is_not_enough_without_fallback() {
    let reader = Server::start_with("read-only true");
    let options = ConnectorOptions { read_only_fallback: false, ..options() };
    let (connector, _) = connect(&[tcp(reader.address)], options.clone());
    let refused = connector.wait(Duration::from_millis(600)).err().expect("no connection");
    let NotConnected::TimedOut(Some(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.ends_with(": the server is read-only"), "{why}");
    let (connector, _) = connect(&[tcp(reader.address)], ConnectorOptions { read_only: true, ..options });
    assert!(connector.wait(Duration::from_secs(20)).expect("connected").read_only);
}

#[test]
fn a_lost_server_is_found_again() {
    let mut server = Server::start();
    let (connector, _) = connect(&[tcp(server.address)], options());
    for number in 1..4 {
        wait_for("a connection", || connector.current().is_some_and(|current| current.number == number));
        server.kill();
        wait_for("a loss", || connector.current().is_none());
        assert!(connector.wait(Duration::from_millis(50)).is_err());
        server.start_again();
    }
}

#[test]
fn what_is_refused_is_not_tried_again() {
    let server = Server::start();
    let register = Arc::new(Register { storage: Some("no such storage"), ..Register::default() });
    let connector = Connector::start(&[tcp(server.address)], register, options()).expect("a thread");
    let refused = connector.wait(Duration::from_secs(20)).err().expect("no connection");
    let NotConnected::Refused(why) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("unknown storage"), "{why}");
    // Until there are other addresses.
    connector.set_addresses(&[dead()]);
    let refused = connector.wait(Duration::from_millis(300)).err();
    assert!(matches!(refused, Some(NotConnected::TimedOut(_))), "{refused:?}");
}

#[test]
fn other_addresses_are_used_at_once_or_after_the_present_link() {
    let (mut first, second) = (Server::start(), Server::start());
    let (connector, _) = connect(&[dead()], options());
    connector.set_addresses(&[tcp(first.address)]);
    assert_eq!(connector.wait(Duration::from_secs(20)).expect("connected").address, tcp(first.address));
    connector.set_addresses(&[tcp(second.address)]);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(connector.current().expect("still connected").address, tcp(first.address));
    first.kill();
    wait_for("the second server", || {
        connector.current().is_some_and(|current| current.address == tcp(second.address))
    });
}

/// A close ends what waits, in each stage of a connection.
#[test]
fn a_close_takes_no_time() {
    let greets = b"\0\0\0\x02Z5";
    for address in
        [dead(), peer(b"", false).0, peer(greets, false).0, tcp("192.0.2.1:1".parse().expect("an address"))]
    {
        let (connector, _) = connect(std::slice::from_ref(&address), options());
        thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| connector.wait(Duration::from_secs(60)));
            thread::sleep(Duration::from_millis(50));
            connector.close();
            assert!(matches!(waiting.join().expect("no panic").err(), Some(NotConnected::Closed)));
        });
        assert!(begun.elapsed() < Duration::from_secs(5), "{address}: {:?}", begun.elapsed());
    }
}

/// In an hour without a server: fast at first, then every few minutes.
#[test]
fn attempts_become_rare() {
    let (address, count) = peer(b"", true);
    let time = TimeSource::manual();
    let options = ConnectorOptions { retry: RetryLimits::default(), time: time.clone(), ..options() };
    let (connector, _) = connect(&[address], options);
    let mut attempts = Vec::new();
    for second in 0..3600 {
        time.advance(Duration::from_secs(1));
        thread::sleep(Duration::from_millis(if second < 60 { 20 } else { 1 }));
        attempts.push(count.load(Ordering::SeqCst));
    }
    assert!((5..20).contains(&attempts[30]), "in half a minute: {}", attempts[30]);
    assert!((12..40).contains(&attempts[3599]), "in an hour: {}", attempts[3599]);
    drop(connector);
}

/// A proxy whose server vanishes without a packet.
#[test]
fn a_server_that_vanishes_is_noticed() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = tcp(listener.local_addr().expect("an address"));
    let forwards = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (target, is_on) = (server.address, Arc::clone(&forwards));
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            let upstream = TcpStream::connect(target).expect("the server");
            for (mut from, mut to) in [
                (client.try_clone().expect("clone"), upstream.try_clone().expect("clone")),
                (upstream, client),
            ] {
                let is_on = Arc::clone(&is_on);
                thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(count) = from.read(&mut bytes)
                        && count > 0
                    {
                        if is_on.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    let time = TimeSource::manual();
    let mut options = ConnectorOptions { time: time.clone(), ..options() };
    options.link.time = time.clone();
    let (connector, _) = connect(&[proxy], options);
    wait_for("a connection", || {
        time.advance(Duration::from_millis(100));
        connector.current().is_some()
    });
    let lost = connector.current().expect("a link");
    forwards.store(false, Ordering::SeqCst);
    wait_for("the end", || {
        time.advance(Duration::from_secs(2));
        thread::sleep(Duration::from_millis(10));
        lost.link.has_ended()
    });
    forwards.store(true, Ordering::SeqCst);
    wait_for("another connection", || {
        time.advance(Duration::from_millis(100));
        connector.current().is_some_and(|current| current.number == 2)
    });
}
