//! Limits of requests: iterators, undo logs, and any number of long calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{MB, Stop, beside_an_honest_client, client, commit_something, wait_until};
use crate::support::client::{RawClient, record};
use crate::support::pickle::{Value, id, text};
use crate::support::process::Server;

#[test]
fn the_oldest_iterators_are_forgotten() {
    beside_an_honest_client("max-iterators 3", 64 * MB, |server| {
        let mut reader = client(server);
        let start = |reader: &mut RawClient| {
            let iterator = reader.call("iterator_start", vec![Value::None, Value::None]).expect("connected");
            iterator.expect("an iterator")
        };
        let iterators: Vec<_> = (0..4).map(|_| start(&mut reader)).collect();
        let next = |reader: &mut RawClient, n: usize| {
            reader.call("iterator_next", vec![iterators[n].clone()]).expect("connected")
        };
        assert!(next(&mut reader, 0).is_err());
        for n in 1..4 {
            next(&mut reader, n).expect("a transaction");
        }
    });
}

#[test]
fn an_undo_log_has_so_many_entries() {
    beside_an_honest_client("max-undo-log 5", 64 * MB, |server| {
        let mut reader = client(server);
        let oid = reader.new_oids(1).expect("oid")[0];
        let mut tid = 0;
        for _ in 0..12 {
            tid = reader.commit(&[(oid, tid, &record(b"1"))]).expect("connected").expect("commit");
        }
        let ask = |reader: &mut RawClient, method: &str, args: Vec<Value>| {
            reader.call(method, args).expect("connected").expect("a list").tuple().to_vec()
        };
        let everything = vec![Value::Int(0), Value::Int(-1_000_000)];
        let first = ask(&mut reader, "undoLog", everything.clone());
        assert_eq!(first.len(), 5);
        let of_nobody = [everything, vec![Value::Dict(Vec::new())]].concat();
        assert_eq!(ask(&mut reader, "undoInfo", of_nobody).len(), 5);
        let following = ask(&mut reader, "undoLog", vec![Value::Int(5), Value::Int(1_000_000)]);
        assert_eq!(following.len(), 5);
        assert!(!following.contains(&first[4]));
        assert_eq!(ask(&mut reader, "undoLog", vec![Value::Int(0), Value::Int(3)]).len(), 3);
        for (first, last) in [(3, 3), (4, 3), (40, 50)] {
            assert!(ask(&mut reader, "undoLog", vec![Value::Int(first), Value::Int(last)]).is_empty());
        }
        // Positions count the matching transactions.
        let of_all = Value::Dict(vec![(text("description"), text(""))]);
        let some = ask(&mut reader, "undoInfo", vec![Value::Int(2), Value::Int(4), of_all]);
        assert_eq!(some, first[2..4]);
        assert_eq!(ask(&mut reader, "history", vec![id(oid), Value::Int(1_000_000)]).len(), 5);
    });
}

/// An extension of 64 KB contained a list of as many values, which take megabytes in memory; ten thousand of them were
/// put into one answer to a call of 60 bytes.
#[test]
fn an_undo_log_of_long_extensions_has_few_entries() {
    beside_an_honest_client("", 64 * MB, |server| {
        let mut writer = client(server);
        let oid = writer.new_oids(1).expect("oid")[0];
        let nones = Value::Dict(vec![(text("a"), Value::Tuple(vec![Value::None; 64_000]))]);
        let mut tid = 0;
        for _ in 0..150 {
            let args = vec![Value::Int(7), text("user"), text(""), nones.clone(), Value::None, text(" ")];
            writer.queue_async("tpc_begin", args);
            writer.queue_store(oid, tid, &record(b"1"), 7);
            writer.call("vote", vec![Value::Int(7)]).expect("connected").expect("vote");
            tid = writer.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("finish").id();
        }
        let all = |spec: Option<Value>| {
            let args = vec![Value::Int(0), Value::Int(1000)];
            args.into_iter().chain(spec).collect::<Vec<_>>()
        };
        let never = Value::Dict(vec![(text("user_name"), text("nobody"))]);
        for (method, args, few) in [
            ("undoLog", all(None), true),
            ("undoInfo", all(Some(never)), false),
            ("history", vec![id(oid), Value::Int(1000)], true),
        ] {
            let answer = writer.call(method, args).expect("connected").expect("a list");
            let count = answer.tuple().len();
            assert!(if few { (20..100).contains(&count) } else { count == 0 }, "{method}: {count}");
        }
        // The next entries are available.
        let next = writer.call("undoLog", vec![Value::Int(150), Value::Int(1000)]).expect("connected");
        assert_eq!(next.expect("a list").tuple().len(), 1);
    });
}

/// A client that had forgotten its iterator kept the old file of each pack on the disk.
#[test]
fn the_log_says_that_iterators_are_ended() {
    let server = Server::start_storage("", "pack-gc false");
    let mut client = client(&server);
    let mut serial = 0;
    let mut change = |client: &mut RawClient| {
        let changed = client.commit(&[(1, serial, &record(b"1"))]);
        serial = changed.expect("connected").expect("commit");
    };
    change(&mut client);
    let started = client.call("iterator_start", vec![Value::None, Value::None]).expect("connected");
    started.expect("an iterator");
    for _ in 0..3 {
        change(&mut client);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs_f64();
        let packed = client.call("pack", vec![Value::Float(now + 1.0), Value::Bool(true)]);
        packed.expect("connected").expect("packed");
    }
    server.wait_for_log("before the last 3 packs are ended");
}

/// The threads for undo logs waited for clients to read them: eight clients that read nothing occupied all of them.
#[test]
fn who_does_not_read_its_undo_logs_keeps_no_thread() {
    beside_an_honest_client("", 512 * MB, |server| {
        let mut writer = client(server);
        let oid = writer.new_oids(1).expect("oid")[0];
        let long = text(&"x".repeat(60_000));
        let mut tid = 0;
        for _ in 0..70 {
            let args =
                vec![Value::Int(7), text(""), long.clone(), Value::Dict(vec![]), Value::None, text(" ")];
            writer.queue_async("tpc_begin", args);
            writer.queue_store(oid, tid, &record(b"1"), 7);
            writer.call("vote", vec![Value::Int(7)]).expect("connected").expect("vote");
            tid = writer.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("finish").id();
        }
        let deaf: Vec<RawClient> = (0..9)
            .map(|_| {
                let mut deaf = client(server);
                for _ in 0..8 {
                    deaf.queue_call("undoLog", vec![Value::Int(0), Value::Int(-70)]);
                }
                deaf.flush().expect("asked");
                deaf
            })
            .collect();
        // The first bytes of an answer have arrived.
        for deaf in &deaf {
            deaf.stream().peek(&mut [0]).expect("the beginning of an answer");
        }
        let answer = writer.call("undoLog", vec![Value::Int(0), Value::Int(-2)]).expect("connected");
        assert_eq!(answer.expect("a list").tuple().len(), 2);
    });
}

/// Requests undo logs until the server takes no more. The connection ends with the test.
fn hog(server: &Server, stop: &AtomicBool) -> RawClient {
    let mut hog = client(server);
    hog.stream().set_write_timeout(Some(Duration::from_millis(500))).expect("timeout");
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..1000 {
            let never = Value::Dict(vec![(text("user_name"), text("nobody"))]);
            hog.queue_call("undoInfo", vec![Value::Int(0), Value::Int(-20), never]);
        }
        if hog.flush().is_err() {
            break;
        }
    }
    hog
}

/// A hundred thousand undo logs that are requested at once wait in the client's socket, not in the server's memory, and
/// no vote waits for them.
#[test]
fn long_calls_without_end_hold_nobody_up() {
    beside_an_honest_client("", 128 * MB, |server| {
        let mut first = client(server);
        let oids = first.new_oids(2).expect("oids");
        for _ in 0..300 {
            commit_something(&mut first);
        }
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = Stop(&stop);
            let hogs: Vec<_> = (0..3).map(|_| scope.spawn(|| hog(server, &stop))).collect();
            thread::sleep(Duration::from_millis(300));
            // A vote that waits for another one is continued by the pool.
            let started = Instant::now();
            let mut second = client(server);
            for (n, client) in [&mut first, &mut second].into_iter().enumerate() {
                client.queue_begin(7);
                client.queue_store(oids[n], 0, &record(b"1"), 7);
                client.queue_store(oids[1 - n], 0, &record(b"1"), 7);
            }
            first.call("vote", vec![Value::Int(7)]).expect("connected").expect("vote");
            let waiting = second.queue_call("vote", vec![Value::Int(7)]);
            second.flush().expect("send");
            thread::sleep(Duration::from_millis(50));
            first.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("abort");
            second.answer(waiting).expect("connected").expect("vote");
            let took = started.elapsed();
            second.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("abort");
            assert!(took < Duration::from_secs(60), "a vote took {took:?}");
            wait_until("the server reads no more of them", || hogs.iter().all(|hog| hog.is_finished()));
        });
        // The pool's threads end ten seconds after their last job.
    });
}
