//! The order of messages in single situations: a client that waits for its vote, reads slowly, or does not wait for
//! answers.

use super::*;

fn two_objects(server: &Server) -> (Vec<u64>, u64) {
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let oids = client.new_oids(2).expect("oids");
    let data = record(b"start");
    let tid =
        client.commit(&[(oids[0], 0, &data), (oids[1], 0, &data)]).expect("connection").expect("commit");
    (oids, tid)
}

/// R6: a client in the middle of its own commit gets the others' invalidations.
#[test]
fn invalidations_reach_a_client_that_has_voted() {
    let server = Server::start();
    let (oids, tid) = two_objects(&server);
    let (mut voted, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let (mut other, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let data = record(b"new");
    voted.queue_begin(1);
    voted.queue_store(oids[0], tid, &data, 1);
    voted.call("vote", vec![Value::Int(1)]).expect("connection").expect("vote");
    let committed = other.commit(&[(oids[1], tid, &data)]).expect("connection").expect("commit");
    voted.set_read_timeout(Duration::from_secs(60));
    expect_invalidation(&mut voted, committed, oids[1]);
    let finished = voted.call("tpc_finish", vec![Value::Int(1)]).expect("connection").expect("finish").id();
    assert!(finished > committed);
    other.set_read_timeout(Duration::from_secs(60));
    expect_invalidation(&mut other, finished, oids[0]);
}

/// R6: so does a client whose vote waits for a lock.
#[test]
fn invalidations_reach_a_client_that_waits_for_its_vote() {
    let server = Server::start();
    let (oids, tid) = two_objects(&server);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(RawClient::register(server.address, Speaks::Z5).expect("connect").0);
    }
    let [holder, waiter, other] = &mut clients[..] else { unreachable!() };
    let data = record(b"new");
    holder.queue_begin(1);
    holder.queue_store(oids[0], tid, &data, 1);
    holder.call("vote", vec![Value::Int(1)]).expect("connection").expect("vote");
    waiter.queue_begin(2);
    waiter.queue_store(oids[0], tid, &data, 2);
    let vote = waiter.queue_call("vote", vec![Value::Int(2)]);
    waiter.flush().expect("send");
    thread::sleep(Duration::from_millis(50));
    let committed = other.commit(&[(oids[1], tid, &data)]).expect("connection").expect("commit");
    waiter.set_read_timeout(Duration::from_secs(60));
    expect_invalidation(waiter, committed, oids[1]);
    let finished = holder.call("tpc_finish", vec![Value::Int(1)]).expect("connection").expect("finish").id();
    // The invalidation comes before the conflict that it explains.
    expect_invalidation(waiter, finished, oids[0]);
    let error = waiter.answer(vote).expect("connection").expect_err("a conflict");
    assert!(error.0.contains("ConflictError"), "{error:?}");
}

/// A client with several threads continues to load on the connection whose vote waits.
#[test]
fn a_waiting_vote_does_not_hold_up_loads_of_the_same_client() {
    for speaks in [Speaks::Z5, Speaks::Z4] {
        let server = Server::start();
        let (oids, tid) = two_objects(&server);
        let (mut holder, _) = RawClient::register(server.address, speaks).expect("connect");
        let (mut waiter, _) = RawClient::register(server.address, speaks).expect("connect");
        let data = record(b"new");
        for (client, txn) in [(&mut holder, 1), (&mut waiter, 2)] {
            client.queue_begin(txn);
            client.queue_store(oids[0], tid, &data, txn);
        }
        holder.call("vote", vec![Value::Int(1)]).expect("connection").expect("vote");
        let vote = waiter.queue_call("vote", vec![Value::Int(2)]);
        let loads = [waiter.queue_load(oids[0]), waiter.queue_load(oids[1])];
        let ping = waiter.queue_call("lastTransaction", vec![]);
        waiter.flush().expect("send");
        waiter.set_read_timeout(Duration::from_secs(60));
        for load in loads {
            let loaded = waiter.answer(load).expect("an answer in time").expect("load");
            assert_eq!(loaded.tuple()[1].id(), tid);
        }
        assert_eq!(waiter.answer(ping).expect("an answer in time").expect("lastTransaction").id(), tid);
        holder.call("tpc_abort", vec![Value::Int(1)]).expect("connection").expect("abort");
        waiter.answer(vote).expect("the vote's answer").expect("vote");
        let finished =
            waiter.call("tpc_finish", vec![Value::Int(2)]).expect("connection").expect("finish").id();
        assert!(finished > tid);
    }
}

/// All commits before a stop are kept, and tids continue to grow after it.
#[test]
fn a_burst_of_finishes_from_one_client_after_another() {
    let server = Server::start();
    let (oids, mut tid) = two_objects(&server);
    let mut clients = Vec::new();
    for n in 0..6 {
        let speaks = if n % 2 == 0 { Speaks::Z5 } else { Speaks::Z4 };
        clients.push(RawClient::register(server.address, speaks).expect("connect").0);
    }
    // The same object through all connections in turn: each must see the last commit at once.
    for round in 0..20 {
        for client in &mut clients {
            let load = client.queue_load(oids[0]);
            client.flush().expect("send");
            let loaded = client.answer(load).expect("connection").expect("load");
            assert_eq!(loaded.tuple()[1].id(), tid, "round {round}");
            let data = record(format!("{round}").as_bytes());
            let new = client.commit(&[(oids[0], tid, &data)]).expect("connection").expect("no conflict");
            assert!(new > tid);
            tid = new;
        }
    }
}

fn expect_invalidation(client: &mut RawClient, tid: u64, oid: u64) {
    match client.next().expect("an invalidation in time") {
        Incoming::Push { method, args } if method == "invalidateTransaction" => {
            assert_eq!((args[0].id(), args[1].tuple()[0].id()), (tid, oid));
        }
        Incoming::Push { method, .. } if method == "info" => expect_invalidation(client, tid, oid),
        other => panic!("wanted an invalidation: {other:?}"),
    }
}

/// A load that waits after a slow client's own large replies still shows the state of its place in the stream.
#[test]
fn replies_and_invalidations_keep_their_order_for_a_slow_reader() {
    let server = Server::start();
    let (mut writer, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let oids = writer.new_oids(2).expect("oids");
    let large = record(&vec![b'x'; 1_000_000]);
    let small = record(b"0");
    let mut tid =
        writer.commit(&[(oids[0], 0, &large), (oids[1], 0, &small)]).expect("connection").expect("commit");
    let mut slow = Watched::register(server.address, Speaks::Z5).expect("connect");
    // More than any socket buffer: the server cannot send all of it while the client does not read.
    for _ in 0..30 {
        slow.ask_load(oids[0]);
        slow.ask_load(oids[1]);
        slow.ask_last_transaction();
    }
    slow.client.flush().expect("send");
    for n in 1..=20 {
        let data = record(format!("{n}").as_bytes());
        tid = writer.commit(&[(oids[1], tid, &data)]).expect("connection").expect("commit");
    }
    thread::sleep(Duration::from_millis(200));
    slow.receive_answers().expect("all answers");
    slow.receive_up_to(tid).expect("all invalidations");
    assert_eq!(slow.told.len(), 20);
}

/// A client that does not wait for answers had its next vote request locks while those of the transaction before were
/// still in the table: an answer was missing, or an object stayed locked. Now its next tpc_begin waits for the finish.
#[test]
fn transactions_one_behind_the_other_without_waiting_for_answers() {
    let server = Server::start();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = server.address;
            thread::spawn(move || {
                let (mut client, _) = RawClient::register(address, Speaks::Z5).expect("register");
                for round in 0..20 {
                    let oids = client.new_oids(10).expect("oids");
                    let finishes: Vec<i64> = oids
                        .iter()
                        .enumerate()
                        .map(|(n, oid)| {
                            let txn = round * 100 + n as i64;
                            client.queue_begin(txn);
                            client.queue_store(*oid, 0, &record(b"x"), txn);
                            client.queue_call("vote", vec![Value::Int(txn)]);
                            client.queue_call("tpc_finish", vec![Value::Int(txn)])
                        })
                        .collect();
                    client.flush().expect("send");
                    let tids: Vec<u64> = finishes
                        .into_iter()
                        .map(|finish| client.answer(finish).expect("connection").expect("finish").id())
                        .collect();
                    assert!(tids.is_sorted(), "{tids:?}");
                    // Nothing stayed locked.
                    for (oid, tid) in oids.iter().zip(tids) {
                        client.commit(&[(*oid, tid, &record(b"y"))]).expect("connection").expect("commit");
                    }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("a client failed"));
}
