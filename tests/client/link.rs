//! Links to servers of all generations: calls, pushes, and how a link ends.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use runzeo::internal::base::address::Address;
use runzeo::internal::base::cancel::Cancel;
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::client::dial::{DialOptions, dial};
use runzeo::internal::client::link::{EndCause, Link, LinkError, LinkOptions, Receiver, Silence, start};
use runzeo::internal::wire::answers::ServerPush;
use runzeo::internal::wire::calls::Call;
use runzeo::internal::wire::value::Value;

use crate::servers::{tcp, with_each};
use crate::support::process::Server;

/// Notes the end.
#[derive(Default)]
pub struct Watcher {
    pub ended: Mutex<Vec<String>>,
}

impl Receiver for Watcher {
    fn push(&self, _link: &Link, _push: ServerPush<'_>) {}

    fn ended(&self, _link: &Link, cause: &EndCause) {
        self.ended.lock().unwrap().push(cause.to_string());
    }
}

pub fn link_to(address: &Address) -> (Link, Arc<Watcher>) {
    let dialled = dial(address, &DialOptions::default(), &Cancel::default()).expect("a connection");
    let watcher = Arc::new(Watcher::default());
    let link = start(dialled, Arc::clone(&watcher) as _, LinkOptions::default()).expect("threads");
    (link, watcher)
}

pub fn ask(link: &Link, name: &str, args: &[Value]) -> Result<Value, String> {
    let limit = Some(Duration::from_secs(30));
    link.call(&Call::Other { name, args }, limit, |answer| answer.value().map_err(|e| e.to_string()))
        .expect("an answer")
}

pub fn register(link: &Link) {
    ask(link, "register", &[Value::text("1"), Value::Bool(false)]).expect("registered");
}

#[test]
fn every_server_answers() {
    with_each(|name, mut server| {
        let (link, watcher) = link_to(&server.address());
        register(&link);
        // oid 0, a tid that Python 2's strings would spoil, and text beyond ASCII.
        let load = [Value::Bytes(vec![0; 8]), Value::Bytes(vec![0x7f, 255, 255, 255, 255, 255, 255, 255])];
        let answer = ask(&link, "loadBefore", &load);
        assert!(
            matches!(&answer, Ok(Value::None)) || answer.as_ref().is_err_and(|e| e.contains("KeyError")),
            "{name}: {answer:?}"
        );
        let wrong = ask(&link, "history", &[Value::Bytes(vec![1; 8])]).expect_err("no such object");
        assert!(wrong.contains("KeyError"), "{name}: {wrong}");

        // Answers in order, from several threads.
        let (done, wait) = mpsc::channel();
        for number in 0..100 {
            let done = done.clone();
            link.start(&Call::LastTransaction, move |_, answer| {
                assert!(answer.expect("an answer").done().is_ok());
                done.send(number).expect("the test waits");
            });
        }
        drop(done);
        assert_eq!(wait.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>(), "{name}");
        server.kill();
        let lost = link.call(&Call::LastTransaction, None, |_| ());
        assert!(matches!(lost, Err(LinkError::Ended(_))), "{name}: {lost:?}");
        while watcher.ended.lock().unwrap().is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(link.has_ended());
    });
}

#[test]
fn a_close_ends_every_call() {
    let server = Server::start();
    let (link, watcher) = link_to(&tcp(server.address));
    register(&link);
    let (done, wait) = mpsc::channel();
    for _ in 0..1000 {
        let done = done.clone();
        link.start(&Call::LastTransaction, move |link, answer| {
            link.close();
            done.send(answer.is_ok()).expect("the test waits");
        });
    }
    drop(done);
    let answered: Vec<bool> = wait.iter().collect();
    assert_eq!(answered.len(), 1000);
    assert!(answered.iter().filter(|ok| **ok).count() >= 1, "the first has an answer");
    let late = link.call(&Call::LastTransaction, None, |_| ());
    assert!(matches!(late, Err(LinkError::Ended(EndCause::Closed))), "{late:?}");
    while watcher.ended.lock().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(*watcher.ended.lock().unwrap(), ["the connection was closed"]);
}

/// A server that is stopped does not answer, though its machine does.
#[test]
fn a_silent_server_is_noticed() {
    let server = Server::start();
    let dialled = dial(&tcp(server.address), &DialOptions::default(), &Cancel::default()).expect("connected");
    let watcher = Arc::new(Watcher::default());
    let silence = Silence { ask_after: Duration::from_secs(10), answer_max: Duration::from_secs(200) };
    let time = TimeSource::manual();
    let options = LinkOptions { silence: Some(silence), time: time.clone(), ..LinkOptions::default() };
    let link = start(dialled, Arc::clone(&watcher) as _, options).expect("threads");
    register(&link);
    for _ in 0..200 {
        time.advance(Duration::from_secs(5));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!link.has_ended(), "a server that answers is alive: {:?}", watcher.ended);
    server.freeze();
    let (done, wait) = mpsc::channel();
    link.start(&Call::LastTransaction, move |_, answer| {
        done.send(answer.map(|_| ()).expect_err("no answer").to_string()).expect("the test waits");
    });
    let error = loop {
        time.advance(Duration::from_secs(5));
        match wait.recv_timeout(Duration::from_millis(20)) {
            Ok(error) => break error,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the call had an answer"),
        }
    };
    assert!(error.starts_with("the server did not answer for "), "{error}");
    server.signal("CONT");
}

/// Threads that wait and calls for which none does, when the server is killed: each ends, once.
#[test]
fn a_killed_server_ends_every_call() {
    let mut server = Server::start();
    let (link, _watcher) = link_to(&tcp(server.address));
    register(&link);
    let ended = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (link, ended) = (link.clone(), Arc::clone(&ended));
                scope.spawn(move || {
                    let mut started = 0;
                    while link.call(&Call::LastTransaction, None, |_| ()).is_ok() {
                        let ended = Arc::clone(&ended);
                        started += 1;
                        link.start(&Call::LastTransaction, move |_, _| {
                            ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        });
                    }
                    started
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        server.kill();
        let started: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        assert!(started > 100, "{started}");
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while ended.load(std::sync::atomic::Ordering::SeqCst) < started {
            assert!(std::time::Instant::now() < until, "{ended:?} of {started}");
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(50));
        assert_eq!(ended.load(std::sync::atomic::Ordering::SeqCst), started);
    });
}
