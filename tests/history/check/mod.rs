//! Checks that one order of transactions explains everything that the clients saw.
//!
//! A pure function: a [`History`] in, the first contradiction out. Every store wrote a unique value, so a value
//! identifies its writer. The order of tids follows from acknowledgements, invalidations and the log. In this order:
//!
//! - each store and each checkCurrentSerial must have named the serial that was current at its place (otherwise an
//!   update was lost: this rule makes the order a serial one);
//! - each undo must have found the transaction that it undid;
//! - each connection must have received the invalidations of every transaction since it registered, in order and
//!   complete;
//! - each answer must be the answer of exactly the state up to the connection's last invalidation: so snapshots are
//!   consistent, for every read at a tid;
//! - uncommitted changes must be nowhere, committed ones must be complete, in the log and at the end.

pub mod attribution;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub type Oid = u64;
pub type Tid = u64;
/// The value of one store.
pub type Value = u64;

/// The `before` of a load of the current revision.
pub const LATEST: Tid = i64::MAX as u64;

/// Everything that the clients saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The first transaction.
    pub start: (Tid, BTreeMap<Oid, Value>),
    pub attempts: Vec<Attempt>,
    /// The events of each connection, in order.
    pub connections: Vec<Connection>,
    /// The log as it was iterated at the end, if the storage has one. `None`: un-created.
    pub log: Option<Vec<(Tid, Changes)>>,
    /// Empty transactions, which the server adds to a restored file.
    pub markers: BTreeSet<Tid>,
    /// The current revisions at the end. Objects that cannot be loaded are left out.
    pub end: BTreeMap<Oid, (Tid, Value)>,
    /// The latest pack time. Revisions that were not current then may be gone.
    pub packed: Tid,
    /// Whether former revisions may be gone at any time.
    pub forgets: bool,
}

/// What one connection saw.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// For messages.
    pub label: String,
    pub events: Vec<Event>,
}

/// A transaction that a client attempted.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// Whose it is, for messages.
    pub label: String,
    /// The serial that the client had, and the new value.
    pub writes: BTreeMap<Oid, (Tid, Value)>,
    /// checkCurrentSerialInTransaction
    pub checks: Vec<(Oid, Tid)>,
    /// The transaction to be undone.
    pub undo: Option<Tid>,
    pub outcome: Outcome,
    /// When the client was told that it conflicts, as a tid.
    pub conflict: Option<Tid>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outcome {
    /// Refused or aborted, or the connection ended before tpc_finish.
    #[default]
    NotCommitted,
    Acknowledged(Tid),
    /// The connection ended between tpc_finish and its answer.
    Unknown,
}

/// An event on a connection.
#[derive(Clone, Debug)]
pub enum Event {
    /// `register` (Z5) or lastTransaction. The first one begins the connection's events.
    LastTransaction(Tid),
    /// invalidateTransaction
    Told { tid: Tid, oids: BTreeSet<Oid> },
    /// The answer to its own tpc_finish.
    Finished { tid: Tid },
    /// loadBefore, or a load of the current revision. `None`: there is none.
    Loaded { oid: Oid, before: Tid, answer: Option<Revision> },
    /// getInvalidations. `None`: the server does not know.
    Invalidations { since: Tid, answer: Option<(Tid, BTreeSet<Oid>)> },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Revision {
    pub tid: Tid,
    pub value: Value,
    pub end: Option<Tid>,
}

/// Statistics of a history without contradictions.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Summary {
    pub commits: usize,
    pub undoes: usize,
    pub not_committed: usize,
    /// Attempts of which a client was told that they conflict.
    pub conflicts: usize,
    /// Connections that ended before the answer to tpc_finish: committed, and not committed.
    pub unanswered: (usize, usize),
    pub reads: usize,
    pub told: usize,
}

/// The changes of a transaction. `None`: un-created.
pub type Changes = BTreeMap<Oid, Option<Value>>;

/// The order of transactions, and each object's state after each.
pub struct Order {
    pub txns: BTreeMap<Tid, Changes>,
    pub revisions: HashMap<Oid, Vec<(Tid, Option<Value>)>>,
}

/// Checks everything.
pub fn check(history: &History) -> Result<Summary, String> {
    let by_tid = attribution::attribute(history)?;
    let order = replay(history, &by_tid)?;
    check_conflicts(history, &[&order])?;
    let mut summary = Summary { commits: by_tid.len(), ..Summary::default() };
    for (number, connection) in history.connections.iter().enumerate() {
        let at = |what| format!("connection {number}, {}: {what}", connection.label);
        check_connection(history, &order, &connection.events, &mut summary).map_err(at)?;
    }
    check_end(&order, history.log.as_deref(), &history.end, history.packed)?;
    count(history, &by_tid, &mut summary);
    Ok(summary)
}

/// How the attempts ended.
pub fn count(history: &History, by_tid: &BTreeMap<Tid, usize>, summary: &mut Summary) {
    for (number, attempt) in history.attempts.iter().enumerate() {
        match attempt.outcome {
            Outcome::NotCommitted => summary.not_committed += 1,
            Outcome::Unknown if by_tid.values().any(|a| *a == number) => summary.unanswered.0 += 1,
            Outcome::Unknown => summary.unanswered.1 += 1,
            Outcome::Acknowledged(_) => {}
        }
        summary.undoes += usize::from(attempt.undo.is_some() && attempt.outcome != Outcome::NotCommitted);
        summary.conflicts += usize::from(attempt.conflict.is_some());
    }
}

/// Each conflict was one in one of these orders: an object that the client named was not as the client had it, at the
/// latest when it was told.
pub fn check_conflicts(history: &History, orders: &[&Order]) -> Result<(), String> {
    for (number, attempt) in history.attempts.iter().enumerate() {
        let Some(told) = attempt.conflict.filter(|_| attempt.undo.is_none()) else { continue };
        let read = attempt.writes.iter().map(|(oid, (serial, _))| (*oid, *serial));
        let mut read = read.chain(attempt.checks.iter().copied());
        // A tid may be later than the clock by as many steps as there were transactions in one moment.
        let told = told + (1 << 20);
        let is_other = |oid, serial, order: &&Order| match order.current_by(oid, told) {
            Some((tid, _)) => tid != serial,
            None => serial != 0,
        };
        if !read.any(|(oid, serial)| orders.iter().any(|order| is_other(oid, serial, order))) {
            let oids = attempt.writes.keys().copied().chain(attempt.checks.iter().map(|(oid, _)| *oid));
            let revisions: Vec<_> =
                oids.flat_map(|oid| orders.iter().map(move |order| (oid, order.about(oid, told)))).collect();
            return Err(format!(
                "attempt {number}, of {}, was refused by {told:x} because of a conflict, but all was as it had read it: writes \
                 {:x?}, checks {:x?}; revisions {revisions:x?}",
                attempt.label, attempt.writes, attempt.checks
            ));
        }
    }
    Ok(())
}

/// Replays the transactions in the order of their tids: each must have named the current serials.
pub fn replay(history: &History, by_tid: &BTreeMap<Tid, usize>) -> Result<Order, String> {
    let (first, start) = &history.start;
    let mut order = Order { txns: BTreeMap::new(), revisions: HashMap::new() };
    order.add(*first, start.iter().map(|(oid, value)| (*oid, Some(*value))).collect());
    for (&tid, &number) in by_tid {
        if tid < *first {
            return Err(format!("{tid:x} is older than the first transaction"));
        }
        let attempt = &history.attempts[number];
        let read = attempt.writes.iter().map(|(oid, (serial, _))| (*oid, *serial));
        for (oid, serial) in read.chain(attempt.checks.iter().copied()) {
            let (current, value) = order.current(oid);
            // An un-created object counts as new.
            if serial != current && !(value.is_none() && serial == 0) {
                return Err(format!(
                    "lost update: {tid:x} was made with {oid} as of {serial:x}, which was {current:x} by then"
                ));
            }
        }
        let mut changes = Changes::new();
        if let Some(undone) = attempt.undo {
            let Some(of_undone) = order.txns.get(&undone) else {
                return Err(format!("{tid:x} undid {undone:x}, which was not there"));
            };
            for (oid, value) in of_undone {
                if order.current(*oid).1 != *value {
                    return Err(format!("{tid:x} undid {undone:x}, but {oid} had been changed since"));
                }
                changes.insert(*oid, order.before(*oid, undone).and_then(|(_, value)| value));
            }
        }
        changes.extend(attempt.writes.iter().map(|(oid, (_, value))| (*oid, Some(*value))));
        order.add(tid, changes);
    }
    Ok(order)
}

impl Order {
    fn add(&mut self, tid: Tid, changes: Changes) {
        for (oid, value) in &changes {
            self.revisions.entry(*oid).or_default().push((tid, *value));
        }
        self.txns.insert(tid, changes);
    }

    pub fn of(&self, oid: Oid) -> &[(Tid, Option<Value>)] {
        self.revisions.get(&oid).map_or(&[], Vec::as_slice)
    }

    pub fn current(&self, oid: Oid) -> (Tid, Option<Value>) {
        self.of(oid).last().copied().unwrap_or((0, None))
    }

    /// The last revision before `tid`.
    fn before(&self, oid: Oid, tid: Tid) -> Option<(Tid, Option<Value>)> {
        self.of(oid).iter().rev().find(|(t, _)| *t < tid).copied()
    }

    /// The revision that was current after transaction `tid`.
    pub fn current_by(&self, oid: Oid, tid: Tid) -> Option<(Tid, Option<Value>)> {
        self.of(oid).iter().rev().find(|(t, _)| *t <= tid).copied()
    }

    /// The revisions about transaction `tid`, for messages.
    pub fn about(&self, oid: Oid, tid: Tid) -> &[(Tid, Option<Value>)] {
        let all = self.of(oid);
        let place = all.partition_point(|(t, _)| *t <= tid);
        &all[place.saturating_sub(4)..(place + 2).min(all.len())]
    }

    /// The answer to loadBefore in the state after `state`.
    pub fn load_before(&self, oid: Oid, before: Tid, state: Tid) -> Option<Revision> {
        let revisions = self.of(oid);
        let visible = &revisions[..revisions.partition_point(|(tid, _)| *tid <= state)];
        let count = visible.partition_point(|(tid, _)| *tid < before);
        let (tid, value) = *visible[..count].last()?;
        Some(Revision { tid, value: value?, end: visible.get(count).map(|(tid, _)| *tid) })
    }

    /// The objects that changed after `since`, up to `state`.
    pub fn changed(&self, since: Tid, state: Tid) -> BTreeSet<Oid> {
        let range = self.txns.range(since.saturating_add(1)..=state.max(since.saturating_add(1)));
        range.filter(|(tid, _)| **tid <= state).flat_map(|(_, changes)| changes.keys().copied()).collect()
    }
}

pub fn check_connection(
    history: &History,
    order: &Order,
    events: &[Event],
    summary: &mut Summary,
) -> Result<(), String> {
    // The state of the connection's last invalidation.
    let mut state: Option<Tid> = None;
    for event in events {
        match event {
            Event::LastTransaction(tid) => match state {
                None => state = Some(*tid),
                Some(state) if state == *tid => {}
                Some(state) => return Err(format!("lastTransaction {tid:x}, but told up to {state:x} (R2)")),
            },
            Event::Told { tid, .. } | Event::Finished { tid } => {
                summary.told += 1;
                if let Some(last) = state {
                    if *tid <= last {
                        return Err(format!("{tid:x} came after {last:x} (R3)"));
                    }
                    let next = order.txns.range(last + 1..).next().map(|(tid, _)| *tid);
                    if next != Some(*tid) {
                        return Err(format!(
                            "told of {tid:x}, but next after {last:x} was {next:x?} (R1, R4)"
                        ));
                    }
                }
                if let Event::Told { oids, .. } = event {
                    let changed: Option<BTreeSet<Oid>> =
                        order.txns.get(tid).map(|changes| changes.keys().copied().collect());
                    if changed.as_ref() != Some(oids) {
                        return Err(format!("told that {tid:x} changed {oids:?}, it was {changed:?}"));
                    }
                }
                state = Some(*tid);
            }
            Event::Loaded { oid, before, answer } => {
                summary.reads += 1;
                let state = state.ok_or("a load before the first lastTransaction")?;
                let expected = order.load_before(*oid, *before, state);
                let gone = *before <= history.packed
                    || history.forgets && expected.is_some_and(|found| found.end.is_some());
                if *answer != expected && !(answer.is_none() && gone) {
                    return Err(format!(
                        "{oid} before {before:x} is {answer:x?}, told up to {state:x} it must be {expected:x?} (R2)"
                    ));
                }
            }
            Event::Invalidations { since, answer } => {
                summary.reads += 1;
                let state = state.ok_or("getInvalidations before the first lastTransaction")?;
                let Some((tid, oids)) = answer else { continue };
                if *tid != state {
                    return Err(format!("getInvalidations up to {tid:x}, but told up to {state:x} (R4)"));
                }
                let changed = order.changed(*since, state);
                if changed != *oids {
                    return Err(format!(
                        "getInvalidations since {since:x}: {oids:?}, changed were {changed:?}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Checks the log, if there is one, and the current revisions.
pub fn check_end(
    order: &Order,
    log: Option<&[(Tid, Changes)]>,
    end: &BTreeMap<Oid, (Tid, Value)>,
    packed: Tid,
) -> Result<(), String> {
    for oid in order.revisions.keys() {
        let (tid, value) = order.current(*oid);
        let expected = value.map(|value| (tid, value));
        let found = end.get(oid).copied();
        if found != expected {
            return Err(format!("at the end {oid} is {found:x?}, but was committed as {expected:x?}"));
        }
    }
    let Some(log) = log else { return Ok(()) };
    let mut last = 0;
    for (tid, changes) in log {
        if *tid <= last {
            return Err(format!("the log has {tid:x} behind {last:x} (R3)"));
        }
        last = *tid;
        let Some(committed) = order.txns.get(tid) else {
            return Err(format!("the log has {tid:x}, which nobody committed: {changes:x?}"));
        };
        // A pack removes records and changes none.
        let is_whole = changes == committed;
        let is_part = changes.iter().all(|(oid, value)| committed.get(oid) == Some(value));
        if !(is_whole || *tid <= packed && is_part) {
            return Err(format!("the log has {tid:x} as {changes:?}, committed was {committed:?}"));
        }
    }
    let logged: HashMap<Tid, &Changes> = log.iter().map(|(tid, changes)| (*tid, changes)).collect();
    for (tid, changes) in &order.txns {
        let must_have = |oid: &Oid| {
            let next = order.of(*oid).iter().find(|(t, _)| t > tid).map(|(t, _)| *t);
            // Revisions from the pack time on must be there; un-created objects may be gone.
            next.is_none_or(|next| next > packed) && (*tid > packed || changes[oid].is_some())
        };
        for oid in changes.keys().filter(|oid| must_have(oid)) {
            if !logged.get(tid).is_some_and(|found| found.contains_key(oid)) {
                return Err(format!("{oid} as of {tid:x} was committed, but is not in the log"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
