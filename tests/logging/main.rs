//! The log: formats, levels, rotation, syslog, the journal, and failures. A test of something that belongs to the
//! process (its logger, its panic hook, its signals, its limits) runs this program again with that test alone:
//! `support::child`.

#[path = "../support/mod.rs"]
mod support;

mod failures;
mod formats;
mod journal;
mod journald;
mod levels;
mod reopen;
mod rotation;
mod syslog;
