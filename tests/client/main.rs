//! The client half: the cache and its tools.

#[path = "../support/pythons.rs"]
mod pythons;
mod trace;
