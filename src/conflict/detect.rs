//! Detection, a part of every vote: a store that did not start from the committed revision is a conflict, which is
//! merged, given to the client, or an error.
//!
//! A storage goes through the operations of a transaction in order, calls [`Conflicts::settle`] for each store, and
//! [`Conflicts::finish`] after the last one. The storage supplies the operations and the states: [`Vote`].

use super::client::ForClient;
use super::{Conflict, ResolverSlot, ThreeStates, merged};
use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};

/// What conflict detection needs from the vote of one transaction.
pub trait Vote {
    /// One store of the transaction.
    type Store: Copy;
    type Error: From<Conflict>;

    /// The client merges conflicts, not this server: see [`client`](super::client).
    fn client_resolves(&self) -> bool;
    /// This thread may wait for another process. If not, a conflict that needs another process postpones the vote.
    fn may_wait(&self) -> bool;
    /// Cancelled when the client abandons the transaction.
    fn cancel(&self) -> &Cancel;
    /// The record in `store`.
    fn record(&self, store: &Self::Store) -> Result<Vec<u8>, Self::Error>;
    /// The record that transaction `serial` wrote for the object. `None`: it was packed away, or the object is gone.
    fn revision(&self, oid: Oid, serial: Tid) -> Result<Option<Vec<u8>>, Self::Error>;
    /// Gives operation `index` the record `merged`; returns the changed store.
    fn replace(&mut self, index: usize, merged: &[u8]) -> Result<Self::Store, Self::Error>;
}

/// A store of a transaction that is being voted on.
pub struct Stored<S> {
    /// Index of the operation in the transaction.
    pub index: usize,
    pub store: S,
    pub oid: Oid,
    /// The serial that the client started from.
    pub read: Tid,
    /// The object's current serial, if it has ever been stored.
    pub committed: Option<Tid>,
}

/// What the storage does with a store.
#[derive(Debug, Eq, PartialEq)]
pub enum Settled<S> {
    /// Write the store.
    Write(S),
    /// The client merges this conflict and will store another record.
    Skip,
    /// The vote is postponed: a merge needs another process, and this thread must not wait. Later operations must not
    /// be looked at: if this conflict is not merged, it is the transaction's first one, which the client gets.
    Postponed,
}

/// The conflicts of one vote, and how each was settled.
#[derive(Debug)]
pub struct Conflicts<S> {
    resolved: Vec<Oid>,
    for_client: ForClient,
    /// Operations whose record was replaced by a merged one: their stores before that.
    replaced: Vec<(usize, S)>,
    is_postponed: bool,
}

/// How the stores of a transaction were settled.
#[derive(Debug)]
pub enum Outcome<S> {
    /// All stores can be written. `resolved`: the objects whose states were merged.
    Done { resolved: Vec<Oid> },
    /// Conflicts that the client has to merge.
    ForClient(Vec<Conflict>),
    /// The vote has to be repeated by a thread that may wait. `replaced`: stores to be restored in the transaction.
    Postponed { replaced: Vec<(usize, S)> },
}

impl<S> Default for Conflicts<S> {
    fn default() -> Conflicts<S> {
        Conflicts {
            resolved: Vec::new(),
            for_client: ForClient::default(),
            replaced: Vec::new(),
            is_postponed: false,
        }
    }
}

impl<S: Copy> Conflicts<S> {
    /// Decides what is done with one store. An error is the first conflict that cannot be merged, or an error of the
    /// medium.
    pub fn settle<V: Vote<Store = S>>(
        &mut self,
        vote: &mut V,
        resolver: &ResolverSlot,
        stored: Stored<S>,
    ) -> Result<Settled<S>, V::Error> {
        let Stored { index, store, oid, read, committed } = stored;
        let Some(committed) = committed.filter(|committed| *committed != read) else {
            self.for_client.forget(oid);
            return Ok(Settled::Write(store));
        };
        let conflict = Conflict { oid, committed, read, data: vote.record(&store)? };
        if vote.client_resolves() {
            self.for_client.add(index, conflict)?;
            return Ok(Settled::Skip);
        }
        let Some(merged) = merge(vote, resolver, conflict)? else {
            self.is_postponed = true;
            return Ok(Settled::Postponed);
        };
        self.resolved.push(oid);
        self.replaced.push((index, store));
        Ok(Settled::Write(vote.replace(index, &merged)?))
    }

    /// The outcome, after the last store or after the store that postponed the vote.
    pub fn finish(self) -> Outcome<S> {
        if self.is_postponed {
            Outcome::Postponed { replaced: self.replaced }
        } else if self.for_client.is_empty() {
            Outcome::Done { resolved: self.resolved }
        } else {
            Outcome::ForClient(self.for_client.into_conflicts())
        }
    }
}

/// The merged record. `None`: the merge needs another process, and this thread must not wait.
fn merge<V: Vote>(
    vote: &V,
    resolver: &ResolverSlot,
    conflict: Conflict,
) -> Result<Option<Vec<u8>>, V::Error> {
    let Conflict { oid, committed: committed_serial, read, .. } = conflict;
    let Some(resolver) = resolver.get() else { return Err(conflict.into()) };
    let Some(old) = vote.revision(oid, read)? else { return Err(conflict.into()) };
    let Some(committed) = vote.revision(oid, committed_serial)? else { return Err(conflict.into()) };
    let states = ThreeStates {
        oid,
        read,
        committed_serial,
        old: &old,
        committed: &committed,
        new: &conflict.data,
        cancel: vote.cancel(),
    };
    let resolved =
        if vote.may_wait() { Some(resolver.resolve(&states)) } else { resolver.resolve_now(&states) };
    Ok(resolved.map(|resolved| merged(&states, resolved)).transpose()?)
}

/// `checkCurrentSerialInTransaction`: an object that a transaction depends on must have the serial that was read.
pub fn check_current(oid: Oid, read: Tid, committed: Tid) -> Result<(), Conflict> {
    if committed == read { Ok(()) } else { Err(Conflict { oid, committed, read, data: Vec::new() }) }
}
