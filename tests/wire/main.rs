//! What is encoded and decoded, against what Python makes of it.

#[path = "../support/mod.rs"]
mod support;

mod pickle_references;
mod samples;
