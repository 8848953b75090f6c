//! Pickles as ZEO and ZODB use them: values without code.
//!
//! [`opcode`] is the table of opcodes, [`lex`] finds them and their arguments. [`read`] understands protocols
//! 0 to 5 but executes nothing: classes are names, instances are the parts they were pickled from. What a
//! message or a record may cost is bounded by its length. [`mod@write`] writes what the unpicklers of either
//! Python read.
//!
//! serde-pickle is not used on these paths: it writes protocols 2 and 3 only, while Python 2's cPickle wants
//! 1; it loses the names of classes; and it builds a tree of owned values. It is the yardstick in our tests.

// What comes from a peer or a file must not be able to panic. Tests may.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation))]

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
