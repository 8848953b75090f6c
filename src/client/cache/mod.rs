//! The client's cache: a file that keeps revisions of objects.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

pub mod trace;
