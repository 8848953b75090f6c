//! Configurations: the verdict on a corpus, the values that come out, and arbitrary bytes.

#[path = "../support/mod.rs"]
mod support;

mod corpus;
mod robustness;
mod values;
