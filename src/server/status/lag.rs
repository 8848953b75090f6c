//! How far behind the servers are that follow this one, or that it follows.

use serde::Serialize;

use crate::storage::Lag;

/// A server that is further behind is worth a warning.
pub const LAG_SECONDS_MAX: f64 = 60.0;

/// How far behind a server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LagStatus {
    pub bytes: u64,
    pub transactions: u64,
    /// Since when the oldest missing transaction is there.
    pub seconds: f64,
}

impl From<Lag> for LagStatus {
    fn from(Lag { bytes, transactions, time }: Lag) -> LagStatus {
        LagStatus { bytes, transactions, seconds: time.as_secs_f64() }
    }
}
