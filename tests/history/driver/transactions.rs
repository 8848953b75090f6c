//! The transactions of a client: what it stores, checks or undoes, and where in the commit it stops.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{Asked, Driver, Step, data_of};
use crate::check::{Attempt, Outcome, Tid};
use crate::support::client::undo_id;
use crate::support::pickle::{Value, id};

/// Limit of the wait for the end of a connection, longer than transaction-timeout on any machine.
const CLOSED_MAX: Duration = Duration::from_secs(60);

impl Driver<'_> {
    /// Closes the connection, perhaps in the middle of a message.
    fn leave(&mut self) -> Step {
        if self.dice.one_in(3) {
            self.client.queue_raw(&[0, 0, 0, 9, b'(']);
            let _ = self.client.flush();
        }
        let _ = self.client.stream().shutdown(std::net::Shutdown::Both);
        Step::Left
    }

    /// One transaction, from its plan to one of its ends.
    pub(super) fn transaction(&mut self) -> io::Result<Step> {
        let (attempt, undo) = self.plan()?;
        let number = self.race.attempt(attempt.clone());
        self.txn += 1;
        let txn = self.txn;
        self.send_changes(&attempt, txn);
        if let Some(undone) = undo
            && !self.send_undo(undone, txn)?
        {
            return self.abort(txn);
        }
        match self.dice.below(40) {
            0 => return self.abort(txn),
            1 => {
                let _ = self.client.flush();
                return Ok(self.leave());
            }
            _ => {}
        }
        self.vote_and_finish(number, &attempt, txn)
    }

    /// tpc_begin, stores and checks; loads in between.
    fn send_changes(&mut self, attempt: &Attempt, txn: i64) {
        self.client.queue_begin(txn);
        for (oid, (serial, value)) in &attempt.writes {
            let len = if self.dice.one_in(20) { 30_000 } else { self.dice.below(300) as usize };
            self.client.queue_store(*oid, *serial, &data_of(*value, len), txn);
            if self.dice.one_in(12) {
                self.ask_some(1);
            }
        }
        for (oid, serial) in &attempt.checks {
            let args = vec![id(*oid), id(*serial), Value::Int(txn)];
            self.client.queue_async("checkCurrentSerialInTransaction", args);
        }
    }

    /// False if the server refuses at once; in some generations only the vote refuses.
    fn send_undo(&mut self, undone: Tid, txn: i64) -> io::Result<bool> {
        let name = Value::Bytes(undo_id(undone).into_bytes());
        if !self.client.speaks.answers_undo() {
            self.client.queue_async("undoa", vec![name, Value::Int(txn)]);
            return Ok(true);
        }
        let call = self.client.queue_call("undo", vec![name, Value::Int(txn)]);
        self.client.flush()?;
        Ok(self.answer(call)?.is_ok())
    }

    fn vote_and_finish(&mut self, number: usize, attempt: &Attempt, txn: i64) -> io::Result<Step> {
        self.serialnos.clear();
        let vote = self.client.queue_call("vote", vec![Value::Int(txn)]);
        match self.dice.below(40) {
            // It aborts while the vote waits, is running, or is done.
            0 | 1 => {
                self.client.flush()?;
                self.pause();
                let step = self.abort(txn)?;
                self.receive_until_quiet(vote)?;
                return Ok(step);
            }
            2 => {
                let _ = self.client.flush();
                self.pause();
                return Ok(self.leave());
            }
            // It does not wait for the answer.
            3 if !self.client.speaks.is_old() => return self.finish(number, attempt, txn, Some(vote)),
            4..=9 => self.ask_some(3),
            _ => {}
        }
        self.client.flush()?;
        match self.answer(vote)? {
            Err(class) => {
                if class.contains("ConflictError") {
                    self.race.conflicted(number);
                }
                return self.abort(txn);
            }
            Ok(_) if self.is_refused() => return self.abort(txn),
            Ok(_) => {}
        }
        match self.dice.below(40) {
            0 => return self.abort(txn),
            1 => return Ok(self.leave()),
            2..=4 => {
                self.ask_some(4);
                self.receive_reads()?;
            }
            5..=7 => self.pause(),
            _ => {}
        }
        if self.dice.one_in(1500) { self.stall() } else { self.finish(number, attempt, txn, None) }
    }

    /// Waits after the vote until the server's transaction-timeout has closed the connection.
    fn stall(&mut self) -> io::Result<Step> {
        let deadline = Instant::now() + CLOSED_MAX;
        loop {
            match self.receive_one() {
                Ok(()) => assert!(Instant::now() < deadline, "a voted transaction is open without end"),
                Err(error) => {
                    let late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                    assert!(!late.contains(&error.kind()), "a voted transaction is open without end");
                    break;
                }
            }
        }
        self.race.timeouts.fetch_add(1, Ordering::Relaxed);
        Ok(Step::Left)
    }

    /// Plans a transaction, with serials that it knows; rarely with an old one.
    fn plan(&mut self) -> io::Result<(Attempt, Option<Tid>)> {
        let undo = if self.race.can_undo && self.dice.one_in(12) {
            let undoable = self.race.undoable.lock().expect("undoable");
            let recent = &undoable[undoable.len().saturating_sub(6)..];
            (!recent.is_empty()).then(|| self.dice.of(recent))
        } else {
            None
        };
        let mut writes = BTreeSet::new();
        let mut checks = BTreeSet::new();
        if undo.is_some() {
            writes.insert(self.mark);
        } else {
            let hot = self.dice.below(3);
            for _ in 0..1 + self.dice.below(4) {
                let oid = if hot == 0 { self.dice.of(&self.race.hot) } else { self.dice.of(&self.race.cold) };
                writes.insert(oid);
            }
            if self.dice.one_in(3) {
                checks.insert(self.any_oid());
            }
        }
        for oid in writes.iter().chain(&checks).copied().collect::<Vec<_>>() {
            if !self.newest.contains_key(&oid) {
                self.ask_load(oid);
            }
        }
        self.receive_reads()?;
        let mut attempt = Attempt { label: self.label.clone(), undo, ..Attempt::default() };
        for oid in writes {
            let mut serial = self.newest[&oid];
            if self.dice.one_in(40)
                && let Some(old) = self.told.iter().rev().nth(3)
                && serial != 0
            {
                serial = *old;
            }
            let value = self.race.new_value();
            attempt.writes.insert(oid, (serial, value));
        }
        // An object that does not exist cannot be current.
        attempt.checks =
            checks.into_iter().map(|oid| (oid, self.newest[&oid])).filter(|(_, s)| *s != 0).collect();
        Ok((attempt, undo))
    }

    /// Before Z5 the outcome of each store is in serialnos.
    fn is_refused(&self) -> bool {
        self.serialnos.iter().any(|pair| !matches!(pair.tuple()[1], Value::Bytes(_)))
    }

    fn abort(&mut self, txn: i64) -> io::Result<Step> {
        let call = self.client.queue_call("tpc_abort", vec![Value::Int(txn)]);
        self.client.flush()?;
        self.answer(call)?.expect("tpc_abort is never refused");
        Ok(Step::GoOn)
    }

    /// A vote that was overtaken by tpc_abort may have an answer or not.
    fn receive_until_quiet(&mut self, vote: i64) -> io::Result<()> {
        let ping = self.client.queue_call("lastTransaction", vec![]);
        self.asked.insert(ping, Asked::LastTransaction);
        self.receive_reads()?;
        self.answers.remove(&vote);
        Ok(())
    }

    fn finish(&mut self, number: usize, attempt: &Attempt, txn: i64, vote: Option<i64>) -> io::Result<Step> {
        let call = self.client.queue_call("tpc_finish", vec![Value::Int(txn)]);
        // The checker determines the objects of an undo.
        self.finishing = Some((call, attempt.writes.keys().copied().collect()));
        self.race.settle(number, Outcome::Unknown);
        if self.dice.one_in(30) {
            let _ = self.client.flush();
            self.pause();
            return Ok(self.leave());
        }
        if self.dice.one_in(4) {
            self.ask_some(3);
        }
        self.client.flush()?;
        let promised =
            self.serialnos.iter().map(|pair| pair.tuple()[1].bytes()).find(|serial| serial.len() == 8);
        let promised = promised.map(|bytes| u64::from_be_bytes(bytes.try_into().expect("a tid")));
        let answer = self.answer(call)?;
        self.finishing = None;
        match answer {
            Ok(value) if !value.is_none() => {
                let tid = value.id();
                assert!(
                    promised.is_none_or(|promised| promised == tid),
                    "serialnos {promised:x?}, tid {tid:x}"
                );
                self.race.settle(number, Outcome::Acknowledged(tid));
                if attempt.undo.is_some() {
                    self.forget_undone();
                } else {
                    self.race.undoable.lock().expect("undoable").push(tid);
                }
            }
            // The vote was refused, or waits: possible only if the client does not wait for the vote's answer.
            refused => {
                assert!(vote.is_some(), "tpc_finish after a vote that passed: {refused:?}");
                self.race.settle(number, Outcome::NotCommitted);
                self.abort(txn)?;
            }
        }
        if let Some(vote) = vote {
            self.receive_until_quiet(vote)?;
        }
        Ok(Step::GoOn)
    }

    /// Forgets objects whose serials may have been changed by its own undo.
    fn forget_undone(&mut self) {
        self.newest.clear();
    }

    fn pause(&mut self) {
        let micros = [0, 100, 1000, 5000][self.dice.below(4) as usize];
        thread::sleep(Duration::from_micros(micros));
    }
}
