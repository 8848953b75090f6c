//! A connection that checks each message against the earlier ones.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use crate::support::client::{Incoming, RawClient, Speaks, content};
use crate::support::pickle::{Value, id};

/// A small generator with a printed seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// The outstanding calls, by message id.
pub enum Asked {
    Load { oid: u64 },
    LoadBefore { oid: u64, before: u64 },
    LastTransaction,
    GetInvalidations { since: u64 },
    Other,
}

/// One connection, with everything that the server has sent on it.
pub struct Watched {
    pub client: RawClient,
    /// The state known to the client: the newest of register, invalidations and own commits.
    pub last: Option<u64>,
    /// The first known state: from `register`, or for Z4 from the first lastTransaction.
    pub registered_at: Option<u64>,
    /// Invalidations and own commits in order of arrival.
    pub told: Vec<(u64, Vec<u64>)>,
    /// Newest tid known for each object.
    pub newest: HashMap<u64, u64>,
    pub asked: HashMap<i64, Asked>,
    /// (oid, tid, content) of every reply, compared with the committed ones at the end.
    pub read: HashMap<(u64, u64), Vec<u8>>,
    /// The committing transaction's objects, for the tpc_finish reply.
    pub finishing: Option<(i64, Vec<u64>)>,
    pub replies: u64,
    /// For Z4: the content of serialnos.
    pub serialnos: Vec<Value>,
}

impl Watched {
    pub fn register(address: SocketAddr, speaks: Speaks) -> io::Result<Self> {
        let (client, tid) = RawClient::register(address, speaks)?;
        let mut watched = Self {
            client,
            last: tid,
            registered_at: tid,
            told: Vec::new(),
            newest: HashMap::new(),
            asked: HashMap::new(),
            read: HashMap::new(),
            finishing: None,
            replies: 0,
            serialnos: Vec::new(),
        };
        if speaks == Speaks::Z4 {
            // Invalidations may come before this answer: then it must agree with them.
            watched.ask_last_transaction();
            watched.client.flush()?;
            watched.receive_answers()?;
        }
        Ok(watched)
    }

    pub fn ask_load(&mut self, oid: u64) {
        let asked = self.client.queue_load(oid);
        self.asked.insert(asked, Asked::Load { oid });
    }

    pub fn ask_load_before(&mut self, oid: u64, before: u64) {
        let asked = self.client.queue_call("loadBefore", vec![id(oid), id(before)]);
        self.asked.insert(asked, Asked::LoadBefore { oid, before });
    }

    pub fn ask_last_transaction(&mut self) {
        let asked = self.client.queue_call("lastTransaction", vec![]);
        self.asked.insert(asked, Asked::LastTransaction);
    }

    pub fn ask_invalidations(&mut self, since: u64) {
        let asked = self.client.queue_call("getInvalidations", vec![id(since)]);
        self.asked.insert(asked, Asked::GetInvalidations { since });
    }

    pub fn told(&mut self, tid: u64, oids: Vec<u64>, how: &str) {
        if let Some(last) = self.last {
            assert!(tid > last, "R3/R4: {how} {tid:x} after {last:x}");
        }
        self.last = Some(tid);
        for oid in &oids {
            self.newest.insert(*oid, tid);
        }
        self.told.push((tid, oids));
    }

    /// Receives until all calls are answered.
    pub fn receive_answers(&mut self) -> io::Result<()> {
        while !self.asked.is_empty() {
            self.receive_one()?;
        }
        Ok(())
    }

    pub fn receive_one(&mut self) -> io::Result<()> {
        match self.client.next()? {
            Incoming::Push { method, args } => match method.as_str() {
                "invalidateTransaction" => {
                    let oids = args[1].tuple().iter().map(Value::id).collect();
                    self.told(args[0].id(), oids, "invalidation");
                }
                "serialnos" => self.serialnos.extend_from_slice(args[0].tuple()),
                "info" => {}
                other => panic!("unexpected push {other}"),
            },
            Incoming::Error { id, class, detail } => {
                assert!(self.asked.remove(&id).is_none(), "answer to a read: {class} {detail:?}");
            }
            Incoming::Reply { id, value } => {
                if let Some((finish, oids)) = self.finishing.take_if(|(finish, _)| *finish == id) {
                    let _ = finish;
                    // R5: this reply takes the place of the invalidation.
                    self.told(value.id(), oids, "own commit");
                }
                if let Some(asked) = self.asked.remove(&id) {
                    self.replies += 1;
                    self.check_reply(asked, value);
                }
            }
        }
        Ok(())
    }

    pub fn check_reply(&mut self, asked: Asked, value: Value) {
        match asked {
            Asked::Other => {}
            Asked::LastTransaction => {
                let tid = value.id();
                match self.last {
                    Some(last) => assert_eq!(tid, last, "R2: lastTransaction {tid:x}, told of {last:x}"),
                    None => {
                        self.last = Some(tid);
                        self.registered_at = Some(tid);
                    }
                }
                if self.registered_at.is_none() {
                    // An invalidation came between register and this answer: the first known state is before it.
                    self.registered_at = self.told.first().map(|(tid, _)| tid - 1);
                }
            }
            Asked::GetInvalidations { since } => {
                if value.is_none() {
                    return; // more than the queue holds
                }
                let (tid, oids) = (value.tuple()[0].id(), value.tuple()[1].tuple());
                assert_eq!(Some(tid), self.last, "R4: getInvalidations is for one published state");
                if tid == since {
                    assert!(oids.is_empty(), "nothing happened since {since:x}, but {oids:?}");
                }
                let oids: Vec<u64> = oids.iter().map(Value::id).collect();
                for (told, changed) in &self.told {
                    if *told > since {
                        assert!(
                            changed.iter().all(|oid| oids.contains(oid)),
                            "R4: {told:x} is missing since {since:x}"
                        );
                    }
                }
            }
            Asked::Load { oid } => {
                let parts = value.tuple();
                self.check_current(oid, parts[1].id(), &parts[0]);
                if let Some(end) = parts.get(2) {
                    assert!(end.is_none() || end.bytes().is_empty(), "the newest revision ends at {end:?}");
                }
            }
            Asked::LoadBefore { oid, before } => {
                if value.is_none() {
                    return;
                }
                let parts = value.tuple();
                let tid = parts[1].id();
                assert!(tid < before, "loadBefore {before:x} gave {tid:x}");
                if parts[2].is_none() {
                    self.check_current(oid, tid, &parts[0]);
                } else {
                    let end = parts[2].id();
                    assert!(end >= before, "loadBefore {before:x} gave an older revision, up to {end:x}");
                    assert!(
                        Some(end) <= self.last,
                        "R2: an end {end:x} that nobody told of, last {:x?}",
                        self.last
                    );
                    self.remember(oid, tid, &parts[0]);
                }
            }
        }
    }

    pub fn check_current(&mut self, oid: u64, tid: u64, data: &Value) {
        assert!(Some(tid) <= self.last, "R2: {oid} as of {tid:x}, but told only up to {:x?}", self.last);
        match self.newest.get(&oid) {
            Some(newest) => {
                assert_eq!(tid, *newest, "R2: {oid} as of {tid:x}, but {newest:x} was told before")
            }
            None => {
                let registered = self.registered_at.unwrap_or(tid);
                assert!(tid <= registered, "R2: {oid} as of {tid:x}, never told");
                self.newest.insert(oid, tid);
            }
        }
        self.remember(oid, tid, data);
    }

    pub fn remember(&mut self, oid: u64, tid: u64, data: &Value) {
        let found = content(data.bytes()).to_vec();
        if let Some(before) = self.read.insert((oid, tid), found.clone()) {
            assert_eq!(before, found, "two contents of {oid} as of {tid:x}");
        }
    }

    /// One transaction; `None` for a conflict.
    pub fn commit(&mut self, txn: i64, stores: &[(u64, u64, Vec<u8>)]) -> io::Result<Option<u64>> {
        self.serialnos.clear();
        self.client.queue_begin(txn);
        for (oid, serial, data) in stores {
            self.client.queue_store(*oid, *serial, data, txn);
        }
        let vote = self.client.queue_call("vote", vec![Value::Int(txn)]);
        self.asked.insert(vote, Asked::Other);
        self.client.flush()?;
        let mut refused = false;
        while self.asked.contains_key(&vote) {
            match self.client.next()? {
                Incoming::Error { id, class, .. } if id == vote => {
                    assert!(class.contains("ConflictError"), "vote: {class}");
                    self.asked.remove(&vote);
                    refused = true;
                }
                Incoming::Reply { id, value } if id == vote => {
                    self.asked.remove(&vote);
                    drop(value);
                }
                other => self.replay(other),
            }
        }
        // Before Z5 the outcome of each store is in serialnos, which comes before vote's reply.
        if self.client.speaks == Speaks::Z4 {
            let outcomes = &self.serialnos;
            refused = outcomes.iter().any(|pair| !matches!(pair.tuple()[1], Value::Bytes(_)));
            assert!(refused || outcomes.len() == stores.len(), "serialnos: {outcomes:?}");
        }
        let last_call = if refused { "tpc_abort" } else { "tpc_finish" };
        let end = self.client.queue_call(last_call, vec![Value::Int(txn)]);
        self.asked.insert(end, Asked::Other);
        if !refused {
            self.finishing = Some((end, stores.iter().map(|(oid, _, _)| *oid).collect()));
        }
        self.client.flush()?;
        while self.asked.contains_key(&end) {
            self.receive_one()?;
        }
        Ok((!refused).then(|| self.last.expect("own commit")))
    }

    /// Like `receive_one`, for a message that has been received already.
    pub fn replay(&mut self, message: Incoming) {
        match message {
            Incoming::Push { method, args } if method == "invalidateTransaction" => {
                let oids = args[1].tuple().iter().map(Value::id).collect();
                self.told(args[0].id(), oids, "invalidation");
            }
            Incoming::Push { method, args } if method == "serialnos" => {
                self.serialnos.extend_from_slice(args[0].tuple());
            }
            Incoming::Push { .. } => {}
            other => panic!("unexpected while waiting for a vote: {other:?}"),
        }
    }

    /// Receives up to the invalidation of the transaction.
    pub fn receive_up_to(&mut self, tid: u64) -> io::Result<()> {
        while self.last < Some(tid) {
            self.receive_one()?;
        }
        Ok(())
    }

    pub fn story(self) -> Story {
        Story { registered_at: self.registered_at, told: self.told, read: self.read, replies: self.replies }
    }
}

pub struct Story {
    pub registered_at: Option<u64>,
    pub told: Vec<(u64, Vec<u64>)>,
    pub read: HashMap<(u64, u64), Vec<u8>>,
    pub replies: u64,
}
