//! Encoding and decoding, compared with Python.

#[path = "../support/mod.rs"]
mod support;

mod pickle_references;
mod samples;
