//! Peers that are slow, many, or do not speak HTTP: each gets a status or is closed, in time, and the clients of ZEO
//! notice nothing of it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{Answer, Served, answer, ask, connect};
use crate::support::client::{RawClient, Speaks, record};

/// Requests that the server answers at the same time.
const AT_ONCE: usize = 8;
/// Its time limit of a request, and the time until its answer is here on a busy machine.
const REQUEST_TIME: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(10);

/// Requests that are being answered.
fn handlers(served: &Served) -> usize {
    served.threads().get("zeo-http-reply").copied().unwrap_or(0)
}

/// A server that answers nothing at the moment: the last answer may have been read before its thread has ended.
fn idle() -> Served {
    let served = Served::start();
    wait_for_handlers(&served, 0);
    served
}

/// Waits until there are as many.
fn wait_for_handlers(served: &Served, count: usize) {
    let deadline = Instant::now() + 2 * LATE;
    while handlers(served) != count {
        assert!(Instant::now() < deadline, "{:?}", served.threads());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks again while the server answers as much as it does at once: requests of before may wait in the kernel's queue,
/// and threads end after their answers were read.
fn get_when_free(served: &Served, path: &str) -> Answer {
    let deadline = Instant::now() + 2 * LATE;
    loop {
        let answer = served.get(path);
        if answer.status != 503 {
            return answer;
        }
        assert!(Instant::now() < deadline, "{:?}", served.threads());
    }
}

fn assert_unhurt(served: &Served) {
    assert_eq!(get_when_free(served, "/live").status, 200);
    assert!(!served.server.log().contains("panic"), "{}", served.server.log());
    let metrics = get_when_free(served, "/metrics").body;
    assert!(metrics.contains("\nzeo_panics_total 0\n"), "{metrics}");
}

#[test]
fn slow_peers_are_ended_in_time_and_one_too_many_is_told() {
    let served = idle();
    let (mut client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..AT_ONCE).map(|_| connect(served.address)).collect();
    slow.iter_mut().for_each(|socket| socket.write_all(b"GET /li").expect("sent"));
    wait_for_handlers(&served, AT_ONCE);
    for _ in 0..20 {
        let refused = answer(&mut connect(served.address));
        assert_eq!((refused.status, refused.field("Retry-After")), (503, Some("1")));
    }
    assert_eq!(handlers(&served), AT_ONCE);
    let mut tid = 0;
    for _ in 0..20 {
        tid = client.commit(&[(0, tid, &record(b"a state"))]).expect("connected").expect("a commit");
    }
    assert!(begun.elapsed() < REQUEST_TIME, "the clients of ZEO were served at the same time");
    // A byte now and then does not help.
    let mut last = None;
    for socket in &mut slow {
        let _ = socket.write_all(b"v");
        last = Some(answer(socket));
    }
    let last = last.expect("an answer");
    assert_eq!(last.status, 408);
    assert!(
        begun.elapsed() >= REQUEST_TIME && begun.elapsed() < REQUEST_TIME + LATE,
        "{:?}",
        begun.elapsed()
    );
    drop(slow);
    wait_for_handlers(&served, 0);
    assert_unhurt(&served);
}

/// A peer that takes its answer byte by byte, or not at all, holds its thread for a limited time.
#[test]
fn peers_that_do_not_read_are_ended_in_time() {
    let served = idle();
    let sockets: Vec<TcpStream> = (0..AT_ONCE).map(|_| connect(served.address)).collect();
    for mut socket in &sockets {
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: zeo\r\n\r\n").expect("sent");
    }
    let begun = Instant::now();
    wait_for_handlers(&served, AT_ONCE);
    wait_for_handlers(&served, 0);
    assert!(begun.elapsed() < REQUEST_TIME + LATE, "{:?}", begun.elapsed());
    drop(sockets);
    assert_unhurt(&served);
}

#[test]
fn a_flood_leaves_nothing_behind() {
    let served = idle();
    let (mut client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    for round in 0..300 {
        let mut socket = connect(served.address);
        match round % 4 {
            0 => {}
            1 => drop(socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: zeo\r\n\r\n")),
            2 => drop(socket.shutdown(Shutdown::Write)),
            _ => drop(socket.write_all(b"\0\xff")),
        }
    }
    assert_eq!(client.call("ping", vec![]).expect("an answer").map(|_| ()), Ok(()));
    wait_for_handlers(&served, 0);
    assert_unhurt(&served);
}

#[test]
fn what_is_no_request_is_refused() {
    let served = idle();
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: zeo\r\n\r\n", "x".repeat(9000));
    let long_field = format!("GET / HTTP/1.1\r\nHost: zeo\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: zeo\r\n{}\r\n", "X: y\r\n".repeat(100));
    let body = format!("GET / HTTP/1.1\r\nHost: zeo\r\nContent-Length: 40000\r\n\r\n{}", "x".repeat(40_000));
    for (request, status) in [
        (&*long_path, 431),
        (&long_field, 431),
        (&many_fields, 431),
        (&body, 400),
        ("GET /live HTTP/1.1\r\n\r\n", 400),
        ("GET /live HTTP/3.0\r\nHost: zeo\r\n\r\n", 505),
        ("GET /live\0 HTTP/1.1\r\nHost: zeo\r\n\r\n", 400),
        ("GET /live HTTP/1.1\r\nHost: z\0eo\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{1}", 400),
        ("\0\0\0\x04ruok", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ] {
        let refused = ask(served.address, request);
        assert_eq!(refused.status, status, "{:?}", &request[..request.len().min(60)]);
    }
    // A body that comes slowly, after the answer: the connection is not reset under it.
    let mut slow = connect(served.address);
    slow.write_all(b"GET /live HTTP/1.1\r\nHost: zeo\r\nContent-Length: 40\r\n\r\n").expect("sent");
    slow.peek(&mut [0]).expect("an answer");
    for _ in 0..4 {
        slow.write_all(&[b'x'; 10]).expect("the connection is open");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(answer(&mut slow).status, 400);
    // Line feeds alone are lines, as the standard permits; a second request is not read.
    let two = "GET /live HTTP/1.1\nHost: zeo\n\nGET /metrics HTTP/1.1\nHost: zeo\n\n";
    assert_eq!(ask(served.address, two).body, "ok\n");
    // The end in the middle of a request.
    let mut cut = connect(served.address);
    cut.write_all(b"GET /live HTTP/1.1\r\nHo").expect("sent");
    cut.shutdown(Shutdown::Write).expect("closed");
    assert_eq!(answer(&mut cut).status, 400);
    let mut silent = connect(served.address);
    silent.shutdown(Shutdown::Write).expect("closed");
    assert_eq!(silent.read(&mut [0]).expect("the end"), 0);
    assert_unhurt(&served);
}
