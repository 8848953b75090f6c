//! The server that a storage has its data from: another ZEO server, or a database.

use std::time::SystemTime;

use crate::base::clock::TimeSource;

/// Whether that server can be reached, and how often it could not.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Why it cannot be reached; `None`: it can.
    pub failure: Option<String>,
    /// When it was found or lost.
    pub since: SystemTime,
    /// How often it was lost.
    pub interruptions: u64,
}

impl Remote {
    /// One that was found.
    pub fn reached() -> Remote {
        Remote { failure: None, since: now(), interruptions: 0 }
    }

    /// One that was not found yet.
    pub fn unknown(why: &str) -> Remote {
        Remote { failure: Some(why.into()), ..Remote::reached() }
    }

    /// It cannot be reached, or there is another reason for that.
    pub fn lose(&mut self, why: &str) {
        if self.failure.replace(why.into()).is_none() {
            self.since = now();
            self.interruptions += 1;
        }
    }

    /// It was found, if it was not.
    pub fn reach(&mut self) {
        if self.failure.take().is_some() {
            self.since = now();
        }
    }
}

fn now() -> SystemTime {
    TimeSource::SYSTEM.system_time()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_counts_once_whatever_its_reasons() {
        let mut remote = Remote::unknown("never connected");
        remote.lose("refused");
        assert_eq!((remote.failure.as_deref(), remote.interruptions), (Some("refused"), 0));
        remote.reach();
        remote.lose("reset");
        remote.lose("refused");
        assert_eq!((remote.failure.as_deref(), remote.interruptions), (Some("refused"), 1));
        remote.reach();
        assert_eq!((remote.failure.as_deref(), remote.interruptions), (None, 1));
    }
}
