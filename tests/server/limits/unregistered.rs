//! `handshake-timeout` and `max-unregistered`: clients that do not register.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{
    MB, Stop, beside_an_honest_client, closed_after, commit_something, connect, greeted, is_closed,
    wait_until,
};
use crate::support::client::{RawClient, Speaks, connect_from};
use crate::support::pickle::{Dialect, Value, dumps, text};

#[test]
fn unregistered_connections_have_a_time_limit_in_every_state() {
    beside_an_honest_client("handshake-timeout 5", 64 * MB, |server| {
        let register = {
            let args = Value::Tuple(vec![text("1"), Value::Bool(false)]);
            let call = Value::Tuple(vec![Value::Int(1), Value::Bool(false), text("register"), args]);
            dumps(&call, Dialect::Python3)
        };
        let mut half_a_register = greeted(server);
        half_a_register.write_all(&(register.len() as u32).to_be_bytes()).expect("send");
        half_a_register.write_all(&register[..10]).expect("send");
        let mut half_a_handshake = connect(server);
        half_a_handshake.write_all(b"\0\0").expect("send");
        // It has named a storage that does not exist, and may try another one.
        let mut unlucky = RawClient::connect(server.address, Speaks::Z5).expect("greeted");
        let wrong = unlucky.call("register", vec![text("other"), Value::Bool(false)]).expect("an answer");
        assert!(wrong.is_err());
        let unlucky = unlucky.stream().try_clone().expect("clone");
        let states = [connect(server), half_a_handshake, greeted(server), half_a_register, unlucky];
        for mut stream in states {
            closed_after(&mut stream);
        }
        // Only the first line is logged; the others are counted.
        server.wait_for_log("it has not registered after 5 s (handshake-timeout); the connection is closed");
        assert_eq!(server.count_in_log("(handshake-timeout)"), 1);
    });
}

/// One byte per second resets a limit on single reads; the timeout is for the whole handshake.
#[test]
fn slow_bytes_do_not_buy_time() {
    beside_an_honest_client("handshake-timeout 2", 64 * MB, |server| {
        let started = Instant::now();
        let mut slow = greeted(server);
        slow.write_all(&[0, 0, 0, 100]).expect("send");
        while !is_closed(&slow) {
            assert!(started.elapsed() < Duration::from_secs(60), "it goes on for {:?}", started.elapsed());
            let _ = slow.write_all(b"x");
            thread::sleep(Duration::from_millis(100));
        }
        assert!(started.elapsed() > Duration::from_millis(1500), "closed after {:?}", started.elapsed());
    });
}

/// Thousands of connections that say nothing, without end. Honest clients still get in.
#[test]
fn a_flood_of_unregistered_connections_excludes_no_client() {
    beside_an_honest_client("max-unregistered 50", 64 * MB, |server| {
        let threads = server.thread_count();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = Stop(&stop);
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut open = std::collections::VecDeque::new();
                    while !stop.load(Ordering::Relaxed) {
                        // When the accept loop waits, the kernel's queue fills, and connecting waits.
                        if let Ok(stream) =
                            TcpStream::connect_timeout(&server.address, Duration::from_secs(1))
                        {
                            open.push_back(stream);
                        }
                        if open.len() > 200 {
                            open.pop_front();
                        }
                    }
                });
            }
            thread::sleep(Duration::from_secs(1));
            for _ in 0..3 {
                let started = Instant::now();
                // A client that waits for too long in the queue tries again, as real clients do.
                let mut newcomer = loop {
                    match RawClient::register(server.address, Speaks::Z5) {
                        Ok((client, _)) => break client,
                        Err(_) => assert!(started.elapsed() < Duration::from_secs(60), "shut out"),
                    }
                };
                commit_something(&mut newcomer);
                println!("in after {:?}", started.elapsed());
                let more = server.thread_count() - threads;
                // Some are about to end.
                assert!(more <= 100, "{more} threads more");
            }
        });
        assert!(server.count_in_log("max-unregistered (50)") <= 2, "{}", server.talk());
    });
}

/// Room is made at the address with the most connections: a client from another address stays.
#[test]
fn a_flood_is_at_the_cost_of_its_own_address() {
    beside_an_honest_client("max-unregistered 10", 64 * MB, |server| {
        let elsewhere = connect_from([127, 0, 0, 2].into(), server.address).expect("connect");
        (&mut &elsewhere).read_exact(&mut [0; 6]).expect("greeting");
        // The oldest connection, but not from the address with the most.
        let flood: Vec<_> = (0..30).map(|_| connect(server)).collect();
        wait_until("room was made", || flood.iter().filter(|stream| is_closed(stream)).count() >= 15);
        assert!(!is_closed(&elsewhere));
    });
}
