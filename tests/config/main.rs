//! Configurations: the verdicts on a corpus, the resulting values, arbitrary bytes, and the documents.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod corpus;
mod documents;
mod journal;
mod networks;
mod own_keys;
mod replication;
mod robustness;
mod values;
