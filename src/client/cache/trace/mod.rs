//! The trace of a cache: a record for each load, store and invalidation, in the form that `ZEO_CACHE_TRACE` makes ZEO's
//! own client write and that its scripts `cache_stats` and `cache_simul` read.
//!
//! Here are the records ([`TraceRecord`]), the writer that a cache calls ([`Trace`]) and the reader of the tools
//! ([`TraceReader`]). What the tools make of a trace is in `commands/zeocache`.
//!
//! Invariant: every event of the cache writes at most one record, so a load is counted once. ZEO's own client since 4.2
//! writes two for most misses (codes 20 and 24).

mod reader;
mod record;
mod writer;

pub use reader::{TraceItem, TraceReader};
pub use record::{TraceCode, TraceRecord};
pub use writer::Trace;
