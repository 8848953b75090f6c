//! Connections whose messages are valid: they ask and do not read, do not write, come in large numbers, or leave.

use super::*;

/// The same as arguments of a method that keeps its arguments.
#[test]
fn exploding_arguments() {
    under_attack(192 * MB, |server| {
        let nested = |open: &[u8], close: &[u8], count: usize| {
            let mut pickle =
                b"\x80\x03(K\x01\x88X\x09\0\0\0tpc_begin(K\x05X\x01\0\0\0uX\x01\0\0\0d}X\x01\0\0\0k".to_vec();
            pickle.extend_from_slice(&open.repeat(count));
            pickle.push(b'N');
            pickle.extend_from_slice(&close.repeat(count));
            pickle.extend_from_slice(b"sNX\x01\0\0\0 tt.");
            pickle
        };
        let mut ping = b"\x80\x03(K\x01\x89X\x04\0\0\0ping".to_vec();
        ping.extend_from_slice(&b"(".repeat(300_000));
        ping.extend_from_slice(&b"t".repeat(300_001));
        ping.push(b'.');
        let pickles = [
            nested(b"]", b"a", 200_000),
            nested(b"", b"\x85", 200_000),
            nested(b"", b"2\x86", 100_000),
            ping,
        ];
        for pickle in pickles {
            let mut client = registered(server);
            client.queue_frame(&pickle);
            client.queue_call("vote", vec![Value::Int(5)]);
            let _ = client.flush();
            client.set_read_timeout(Duration::from_secs(60));
            // An error or the end of the connection.
            let _ = client.frame();
        }
    });
}

#[test]
fn clients_that_ask_and_never_read() {
    // 8 clients ask for 2 GB each.
    under_attack(512 * MB, |server| {
        let mut first = registered(server);
        let oid = first.new_oids(1).expect("oid")[0];
        let large = record(&vec![b'x'; MB as usize]);
        first.commit(&[(oid, 0, &large)]).expect("connection").expect("commit");
        let mut silent = Vec::new();
        for _ in 0..8 {
            let mut client = registered(server);
            for _ in 0..2000 {
                client.queue_load(oid);
            }
            client.flush().expect("send");
            silent.push(client);
        }
        thread::sleep(Duration::from_secs(2));
        assert!(server.rss() < 1024 * MB);
    });
}

#[test]
fn clients_that_never_read_their_invalidations() {
    under_attack(512 * MB, |server| {
        let silent: Vec<_> = (0..20).map(|_| registered(server)).collect();
        let mut writer = registered(server);
        let oids = writer.new_oids(10_000).expect("oids");
        let data = record(b"x");
        let mut tid = 0;
        // 100 KB of invalidations each time: more than 4 MB for each client, beyond the sockets' buffers.
        for _ in 0..60 {
            let stores: Vec<_> = oids.iter().map(|oid| (*oid, tid, data.as_slice())).collect();
            let started = Instant::now();
            tid = writer.commit(&stores).expect("connection").expect("commit");
            let took = started.elapsed();
            assert!(
                took < Duration::from_secs(60),
                "a commit took {took:?}: held up by those who do not read"
            );
        }
        drop(silent);
    });
}

#[test]
fn clients_that_never_write() {
    under_attack(128 * MB, |server| {
        let silent: Vec<_> = (0..300).map(|_| connect(server)).collect();
        let half: Vec<_> = (0..100).map(|_| greeted(server)).collect();
        thread::sleep(Duration::from_millis(500));
        let mut client = registered(server);
        client.call("lastTransaction", vec![]).expect("connection").expect("answer");
        drop((silent, half));
    });
}

/// Not hostile: a thousand idle clients cost little.
#[test]
fn idle_clients_are_cheap() {
    under_attack(64 * MB, |server| {
        let before = server.rss();
        let mut idle: Vec<_> = (0..900).map(|_| registered(server)).collect();
        let mut writer = registered(server);
        let oid = writer.new_oids(1).expect("oid")[0];
        let tid = writer.commit(&[(oid, 0, &record(b"1"))]).expect("connection").expect("commit");
        for client in &mut idle {
            client.set_read_timeout(Duration::from_secs(60));
            // The honest client's commits send invalidations too.
            while !matches!(client.next().expect("a message"),
                crate::support::client::Incoming::Push { method, args }
                    if method == "invalidateTransaction" && args[0].id() == tid)
            {}
        }
        let each = (server.rss() - before.min(server.rss())) / 900;
        println!("{} KB for each idle client", each / 1024);
        // Stacks, for the most part: without optimisation, frames are twice as large.
        let limit = if cfg!(debug_assertions) { 64 } else { 40 };
        assert!(each < limit * 1024, "{each} bytes for each idle client");
    });
}

#[test]
fn slow_writers() {
    under_attack(64 * MB, |server| {
        let bytes = frame(&message("register", vec![text("1"), Value::Bool(false)], false));
        let mut slow: Vec<_> = (0..20).map(|_| greeted(server)).collect();
        for byte in &bytes {
            for stream in &mut slow {
                stream.set_nodelay(true).expect("nodelay");
                stream.write_all(&[*byte]).expect("one byte");
            }
            thread::sleep(Duration::from_millis(2));
        }
        for stream in &mut slow {
            let mut prefix = [0; 4];
            stream.read_exact(&mut prefix).expect("the answer to register");
        }
    });
}

#[test]
fn connect_flood() {
    under_attack(128 * MB, |server| {
        for _ in 0..20 {
            let flood: Vec<_> = (0..100).map(|_| connect(server)).collect();
            drop(flood);
        }
        let mut all: Vec<_> = (0..1000).map(|_| connect(server)).collect();
        for stream in &mut all {
            let mut greeting = [0; 6];
            stream.read_exact(&mut greeting).expect("everybody is greeted");
        }
    });
}

#[test]
fn stores_without_end() {
    // 12 clients with 40 MB each never vote, and then leave.
    under_attack(400 * MB, |server| {
        let mut clients = Vec::new();
        let data = record(&vec![b'x'; MB as usize]);
        for _ in 0..12 {
            let mut client = registered(server);
            client.queue_begin(1);
            for oid in 0..40 {
                client.queue_store(1000 + oid, 0, &data, 1);
            }
            client.call("lastTransaction", vec![]).expect("connection").expect("answer");
            clients.push(client);
        }
        drop(clients);
    });
}

#[test]
fn calls_out_of_order() {
    under_attack(64 * MB, |server| {
        let call = |client: &mut RawClient, method: &str, txn: i64| {
            client.call(method, vec![Value::Int(txn)]).expect("the connection stays")
        };
        let mut client = registered(server);
        let oid = client.new_oids(1).expect("oid")[0];
        assert!(call(&mut client, "vote", 1).is_err(), "vote without begin");
        assert!(matches!(call(&mut client, "tpc_finish", 1), Err(_) | Ok(Value::None | Value::Int(0))));
        assert!(call(&mut client, "tpc_abort", 1).is_ok(), "an abort of nothing is nothing");
        client.queue_begin(1);
        assert!(call(&mut client, "vote", 2).is_err(), "vote with another's id");
        client.queue_store(oid, 0, &record(b"1"), 1);
        assert!(call(&mut client, "vote", 1).is_ok());
        let _ = call(&mut client, "vote", 1);
        let _ = call(&mut client, "tpc_abort", 1);
        assert!(call(&mut client, "vote", 1).is_err(), "vote after abort");
        // Afterwards the connection can commit as usual.
        client.commit(&[(oid, 0, &record(b"2"))]).expect("connection").expect("commit");
    });
}

#[test]
fn disconnects_in_every_state() {
    under_attack(96 * MB, |server| {
        let mut first = registered(server);
        let oid = first.new_oids(1).expect("oid")[0];
        let data = record(b"1");
        let mut tid = first.commit(&[(oid, 0, &data)]).expect("connection").expect("commit");
        for round in 0..30 {
            let mut client = registered(server);
            client.queue_begin(1);
            client.queue_store(oid, tid, &data, 1);
            // A vote may meet a conflict: an earlier round's commit may be published after our load.
            match round % 5 {
                0 => client.flush().expect("send"),
                1 => {
                    let _ = client.call("vote", vec![Value::Int(1)]).expect("connection");
                }
                2 => {
                    // The client leaves while its vote waits for the lock.
                    let mut holder = registered(server);
                    holder.queue_begin(1);
                    holder.queue_store(oid, tid, &data, 1);
                    let _ = holder.call("vote", vec![Value::Int(1)]).expect("connection");
                    client.queue_call("vote", vec![Value::Int(1)]);
                    client.flush().expect("send");
                    thread::sleep(Duration::from_millis(20));
                    drop(client);
                    continue;
                }
                3 => {
                    client.queue_call("vote", vec![Value::Int(1)]);
                    client.flush().expect("send");
                }
                _ => {
                    // The answer is lost, but the transaction is committed as a whole, or not at all.
                    let _ = client.call("vote", vec![Value::Int(1)]).expect("connection");
                    client.queue_call("tpc_finish", vec![Value::Int(1)]);
                    client.flush().expect("send");
                    thread::sleep(Duration::from_millis(20));
                }
            }
            drop(client);
            let load = first.queue_load(oid);
            first.flush().expect("send");
            tid = first.answer(load).expect("connection").expect("load").tuple()[1].id();
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let load = first.queue_load(oid);
            first.flush().expect("send");
            tid = first.answer(load).expect("connection").expect("load").tuple()[1].id();
            if first.commit(&[(oid, tid, &data)]).expect("connection").is_ok() {
                break;
            }
            assert!(Instant::now() < deadline, "the object stays locked");
        }
    });
}

#[test]
fn a_voter_that_goes_silent_is_thrown_out() {
    under_attack_with("transaction-timeout 1", 64 * MB, |server| {
        let mut client = registered(server);
        let oid = client.new_oids(1).expect("oid")[0];
        let data = record(b"1");
        client.queue_begin(1);
        client.queue_store(oid, 0, &data, 1);
        client.call("vote", vec![Value::Int(1)]).expect("connection").expect("vote");
        let mut other = registered(server);
        other.commit(&[(oid, 0, &data)]).expect("connection").expect("commit after the time-out");
        expect_hang_up(&mut client.stream().try_clone().expect("clone"), "after the time-out");
    });
}
