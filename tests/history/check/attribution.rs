//! Which attempt made which transaction. Acknowledged attempts name theirs; those without an answer are found by the
//! values that became visible, and else by the objects of an invalidation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Attempt, Event, History, Oid, Outcome, Tid, Value};

/// The attempts found so far.
struct Attribution<'a> {
    history: &'a History,
    by_tid: BTreeMap<Tid, usize>,
    /// The attempts in `by_tid`.
    attributed: BTreeSet<usize>,
}

/// The number of the attempt behind each transaction. Fails if a transaction has no attempt, or two attempts the same
/// tid.
pub fn attribute(history: &History) -> Result<BTreeMap<Tid, usize>, String> {
    let mut found = Attribution { history, by_tid: BTreeMap::new(), attributed: BTreeSet::new() };
    found.by_acknowledgement()?;
    let mut unexplained = found.by_values();
    for tid in found.by_invalidations()? {
        unexplained.remove(&tid);
    }
    match unexplained.pop_first() {
        Some((tid, authors)) => Err(format!("{tid:x} is visible, but was not committed by {authors:?}")),
        None => Ok(found.by_tid),
    }
}

/// The values that are visible as of each transaction: in the log, at the end, or in an answer.
fn visible_values(history: &History) -> BTreeMap<Tid, BTreeSet<Value>> {
    let mut visible: BTreeMap<Tid, BTreeSet<Value>> = BTreeMap::new();
    let mut add = |tid: Tid, value: Value| _ = visible.entry(tid).or_default().insert(value);
    for (tid, changes) in history.log.iter().flatten() {
        changes.values().flatten().for_each(|value| add(*tid, *value));
    }
    history.end.values().for_each(|(tid, value)| add(*tid, *value));
    for event in history.connections.iter().flat_map(|connection| &connection.events) {
        if let Event::Loaded { answer: Some(found), .. } = event {
            add(found.tid, found.value);
        }
    }
    visible
}

impl Attribution<'_> {
    fn is_explained(&self, tid: Tid) -> bool {
        tid == self.history.start.0 || self.by_tid.contains_key(&tid) || self.history.markers.contains(&tid)
    }

    /// It had no answer, and no transaction yet.
    fn is_open(&self, number: usize) -> bool {
        self.history.attempts[number].outcome == Outcome::Unknown && !self.attributed.contains(&number)
    }

    fn add(&mut self, tid: Tid, number: usize) {
        self.by_tid.insert(tid, number);
        self.attributed.insert(number);
    }

    fn by_acknowledgement(&mut self) -> Result<(), String> {
        for (number, attempt) in self.history.attempts.iter().enumerate() {
            if let Outcome::Acknowledged(tid) = attempt.outcome {
                if self.is_explained(tid) {
                    return Err(format!("tid {tid:x} was given twice"));
                }
                self.add(tid, number);
            }
        }
        Ok(())
    }

    /// Returns the transactions without an attempt, and the authors of their values.
    fn by_values(&mut self) -> BTreeMap<Tid, BTreeSet<usize>> {
        let mut author: HashMap<Value, usize> = HashMap::new();
        for (number, attempt) in self.history.attempts.iter().enumerate() {
            author.extend(attempt.writes.values().map(|(_, value)| (*value, number)));
        }
        let mut unexplained = BTreeMap::new();
        for (tid, values) in visible_values(self.history) {
            if self.is_explained(tid) {
                continue;
            }
            // An undo has values of others beside its own.
            let authors: BTreeSet<usize> =
                values.iter().filter_map(|value| author.get(value).copied()).collect();
            match authors.iter().find(|number| self.is_open(**number)) {
                Some(&number) => self.add(tid, number),
                None => drop(unexplained.insert(tid, authors)),
            }
        }
        unexplained
    }

    /// Values that were never read or are packed away still had an invalidation. Returns the transactions that it
    /// explains.
    fn by_invalidations(&mut self) -> Result<Vec<Tid>, String> {
        let told: BTreeMap<Tid, &BTreeSet<Oid>> = self
            .history
            .connections
            .iter()
            .flat_map(|connection| &connection.events)
            .filter_map(|event| match event {
                Event::Told { tid, oids } => Some((*tid, oids)),
                _ => None,
            })
            .collect();
        let mut explained = Vec::new();
        for (tid, oids) in told {
            if self.is_explained(tid) {
                continue;
            }
            let number =
                self.fitting(tid, oids).ok_or_else(|| format!("told of {tid:x}, which nobody committed"))?;
            self.add(tid, number);
            explained.push(tid);
        }
        Ok(explained)
    }

    /// The open attempt that can have made the transaction. Of several the one with the latest serial: the others had
    /// to fail.
    fn fitting(&self, tid: Tid, oids: &BTreeSet<Oid>) -> Option<usize> {
        let knew = |attempt: &Attempt| attempt.writes.values().map(|(serial, _)| *serial).max();
        let fits = |number: &usize| {
            let attempt = &self.history.attempts[*number];
            let is_all = attempt.undo.is_some() || attempt.writes.len() == oids.len();
            self.is_open(*number)
                && is_all
                && attempt.writes.keys().all(|oid| oids.contains(oid))
                && knew(attempt) < Some(tid)
        };
        let fitting = (0..self.history.attempts.len()).filter(fits);
        fitting.max_by_key(|number| knew(&self.history.attempts[*number]))
    }
}
