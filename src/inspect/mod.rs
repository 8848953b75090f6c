//! A `Data.fs` as an operator looks at it: read from front to back, at rest or while a server uses it, damaged or not.
//!
//! - `data_file`: the open file and the position up to which it is read
//! - `walk`: its transactions and records in the order of the file; reports damage with its position, and goes on
//!   behind it; `resync` finds the place
//! - `check`: whether all in it agrees
//! - `diff`: two files beside each other
//! - `objects`: the newest record of each object; `path`: a way from the root to one
//! - `garbage`: objects of several databases that nothing refers to
//! - `recover`: a copy of all that can be read; `order`: which tid is the odd one out
//! - `stats`: sums of classes, objects and users
//! - `tail`: the newest transactions, from the end of the file; `follow`: those that come
//! - `record`: what a record says without its application: class and references; `show`: values as bounded JSON
//!
//! The layout is that of `storage::file::format`, and the pickles are those of `pickle`: there is no second decoder.
//!
//! Always true: the file is opened for reading only, nothing is written beside it, and no lock is taken. Nothing behind
//! the end that the file had when it was opened is read, except by `follow`, so that a file in use is seen as it was
//! then: a transaction that is not whole there is an end ([`walk::Ending`]), not damage. Every read ends: positions
//! only grow, back-pointers only go back, and a length from the file is compared with the file before memory is taken
//! for it. No code of the database is run.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::cast_possible_truncation
    )
)]

pub mod check;
pub mod data_file;
pub mod diff;
pub mod follow;
pub mod garbage;
pub mod object_sums;
pub mod objects;
mod order;
pub mod path;
pub mod record;
pub mod recover;
mod resync;
pub mod show;
pub mod stats;
pub mod tail;
pub mod walk;
