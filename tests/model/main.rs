//! Model-checked tests: every interleaving of the publish step, of the table of locks, of the group commit, of the
//! sequencer of a database in PostgreSQL, of what arrives at a client, of who reads a link, and of the
//! acknowledgements, the fencing and the turns of a replica's threads in a cluster. `scripts/model` runs them, in a
//! build of its own with `--cfg loom`; without that flag nothing is here.

#![cfg(loom)]

mod cluster;
mod group;
mod link;
mod locks;
mod publish;
mod sequencer;
mod timeline;
mod turns;

use runzeo::internal::base::sync::{self, Rank, Ranked};

/// A lock of a model, whose rank nothing checks.
type Mutex<T> = sync::Mutex<T, OfModel>;

struct OfModel;

impl Ranked for OfModel {
    const RANK: Rank = Rank::LogHandler;
}
