//! Pickles as ZEO and ZODB use them: values without code.
//!
//! [`opcode`] is the table of opcodes, [`lex`] splits a pickle into opcodes and arguments. [`read`] reads protocols 0
//! to 5 but executes nothing: classes are names, instances are the parts that they were pickled from. Time and memory
//! for a message or a record are bounded by its length. [`mod@write`] writes pickles that the unpicklers of both
//! Pythons read.
//!
//! serde-pickle is not used here: it writes protocols 2 and 3 only, while Python 2's cPickle needs 1; it loses the
//! names of classes; and it builds a tree of owned values. The tests compare with it.

// Data from peers and files must not cause a panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod cross_refs;
pub mod globals;
pub mod lex;
pub mod number;
pub mod opcode;
pub mod read;
pub mod record;
pub mod refs;
pub mod rewrite;
mod text;
pub mod value;
pub mod write;

pub use write::Dialect;
