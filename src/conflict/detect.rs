//! Detection, a part of every vote: a store that did not start from the committed revision is a conflict, which is merged, given to
//! the client, or an error.
//!
//! A storage goes through the operations of a transaction in their order, calls [`Conflicts::settle`] for each store, and
//! [`Conflicts::finish`] behind the last one. What the transaction is made of and where states are read is the storage's: [`Vote`].

use super::client::ForClient;
use super::{Conflict, ResolverSlot, ThreeStates, merged};
use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};

/// The vote of a storage for one transaction, as far as conflicts are concerned.
pub trait Vote {
    /// One store of the transaction.
    type Store: Copy;
    type Error: From<Conflict>;

    /// The client merges conflicts, not this server: see [`client`](super::client).
    fn client_resolves(&self) -> bool;
    /// This thread may wait for another process. If not, a conflict for which one has to be asked postpones the vote.
    fn may_wait(&self) -> bool;
    /// Cancelled when the client gives the transaction up.
    fn cancel(&self) -> &Cancel;
    /// The record that `store` brings.
    fn record(&self, store: &Self::Store) -> Result<Vec<u8>, Self::Error>;
    /// The record that the object got in transaction `serial`. `None`: it is gone, by a pack or with its object.
    fn revision(&self, oid: Oid, serial: Tid) -> Result<Option<Vec<u8>>, Self::Error>;
    /// Gives operation `index` the record `merged`; returns the store as it is now.
    fn replace(&mut self, index: usize, merged: &[u8]) -> Result<Self::Store, Self::Error>;
}

/// A store of a transaction whose vote is going on.
pub struct Stored<S> {
    /// Of the operation in the transaction.
    pub index: usize,
    pub store: S,
    pub oid: Oid,
    /// The serial that the client started from.
    pub read: Tid,
    /// The object's current serial, if it has ever been stored.
    pub committed: Option<Tid>,
}

/// What is to be done with a store.
#[derive(Debug, Eq, PartialEq)]
pub enum Settled<S> {
    /// The store as it is now, to be written.
    Write(S),
    /// The client merges this conflict, and will store something else.
    Skip,
    /// The vote is postponed: another process has to be asked, and this thread must not wait. The operations behind this one must
    /// not be looked at: if this stays a conflict, it is the first one of the transaction, and the one that the client gets.
    Postponed,
}

/// The conflicts of one vote, and what became of them.
#[derive(Debug)]
pub struct Conflicts<S> {
    resolved: Vec<Oid>,
    for_client: ForClient,
    /// Operations whose record was replaced by a merged one, as they were before.
    replaced: Vec<(usize, S)>,
    is_postponed: bool,
}

/// How the stores of a transaction were settled.
#[derive(Debug)]
pub enum Outcome<S> {
    /// All can be written. The objects whose states were merged.
    Done { resolved: Vec<Oid> },
    /// Conflicts that the client has to merge.
    ForClient(Vec<Conflict>),
    /// The vote has to be repeated by a thread that may wait. Operations to be set back to what they were.
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
    /// Decides what is done with one store. An error is the transaction's first conflict that nobody merges, or of the medium.
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

    /// The outcome, after the last store or the one that postpones the vote.
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

/// The merged record. `None`: another process has to be asked, and this thread must not wait.
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
