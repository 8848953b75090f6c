//! Configurations: the verdict on a corpus, the values that come out, arbitrary bytes, and the documents.

#[path = "../support/mod.rs"]
mod support;

mod corpus;
mod documents;
mod robustness;
mod values;
