//! The client half: connections to servers of all generations, the cache and its tools.

#[path = "../support/mod.rs"]
mod support;

mod dial;
mod link;
mod servers;
mod trace;

use support::pythons;
