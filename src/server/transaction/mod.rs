//! The transaction that a client may have open, from its vote to the moment when it is visible to others.
//!
//! | file | content |
//! |---|---|
//! | [`state`] | the states, the moves between them, what an abort means in each |
//! | [`locking`] | which objects to lock; waiting for the locks, and going on in another thread |
//! | [`vote`] | vote: `Open -> Voted` |
//! | [`vote_reply`] | the reply to vote, and its log lines |
//! | [`finish`] | tpc_finish: `Voted -> Finishing`, and the ticket that the storage brings back |
//! | [`publisher`] | where a commit becomes visible: called by the storage when transactions are durable |
//! | [`undo`] | an undo that is answered before vote, for clients before ZODB 3.10 |
//! | [`undone`] | looking up the objects that an undo will change, before locks are requested |
//! | [`wrong_id`] | calls for a transaction that is not the open one |
//!
//! `tpc_begin` and the stores are the session's (`session/store.rs`): nothing here happens before vote. Each file
//! uses only those above it in this order: `state`, `wrong_id`, `locking`, `undone`, `vote_reply`, `vote` and `undo`,
//! `finish`, `publisher`.

pub mod finish;
pub mod locking;
pub mod publisher;
pub mod state;
pub mod undo;
pub mod undone;
pub mod vote;
pub mod vote_reply;
pub mod wrong_id;
