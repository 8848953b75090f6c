//! What a server knows of itself at one moment, as plain data: for `/status.json`, `/metrics`, and whatever else shows
//! it. The answer to `ruok` and the text of `monitor-address` have the form that tools for Python's servers
//! expect, and are made by [`Hosted::status`](super::hosted::Hosted::status) and [`monitor`](super::monitor).
//!
//! | file | content |
//! |---|---|
//! | [`server`] | the server: [`ServerReport`] |
//! | [`storage`] | a storage: [`StorageReport`], its counters, its disk |
//! | [`client`] | a connection and its transaction: [`ClientReport`], [`TransactionReport`] |
//! | [`cluster`] | the other servers with the same storages: [`ClusterStatus`](cluster::ClusterStatus) |
//! | [`locks`] | who holds locks, and who waits for them: [`LockReport`] |
//! | [`slow`] | requests that took long: [`SlowReport`] |
//! | [`history`] | what a storage has done in the last hour: [`HistoryReport`] |
//! | [`work`] | packs, checks of files, backups |
//! | [`warnings`] | what an operator should look at, and what to do: [`Warning`] |
//! | [`json`] | all of it as JSON |
//!
//! The names of fields are the keys in JSON. Points in time are Unix times in seconds, durations are in seconds, sizes
//! in bytes. What clients choose (labels, users, descriptions) is escaped, so that it can be shown on a terminal.
//!
//! *Invariant: making a report waits for no disk and for no client.* It takes locks that are held for changes in memory
//! only, one after the other, so the numbers need not be of the same moment.
//!
//! [`StorageReport`]: storage::StorageReport
//! [`ClientReport`]: client::ClientReport
//! [`TransactionReport`]: client::TransactionReport
//! [`Warning`]: warnings::Warning
//! [`LockReport`]: locks::LockReport
//! [`SlowReport`]: slow::SlowReport
//! [`HistoryReport`]: history::HistoryReport

pub mod client;
pub mod cluster;
pub mod history;
pub mod json;
pub mod lag;
pub mod locks;
pub mod reloads;
pub mod server;
pub mod slow;
pub mod storage;
mod time;
pub mod warnings;
pub mod work;

pub use self::server::{Phase, ServerReport};
