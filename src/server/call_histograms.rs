//! How long calls take, for monitoring: those that wait for others, for the disk or for a sync. Counted once for each
//! of them; loads from memory are not among them.

use std::time::Duration;

use crate::base::histogram::{Distribution, Histogram, TIME_BOUNDS};

/// The histograms of a storage.
#[derive(Debug)]
pub struct CallHistograms([(CallKind, Histogram); 3]);

/// The calls of a histogram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CallKind {
    Vote,
    Finish,
    /// A load that had to wait for the disk.
    DiskLoad,
}

impl CallKind {
    /// The kind of a method, if it has a histogram. Of loads only those that wait have their time taken.
    fn of(method: &str) -> Option<CallKind> {
        match method {
            "vote" => Some(CallKind::Vote),
            "tpc_finish" => Some(CallKind::Finish),
            "loadBefore" | "load" | "loadEx" | "zeoLoad" | "loadSerial" => Some(CallKind::DiskLoad),
            _ => None,
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            CallKind::Vote => "vote",
            CallKind::Finish => "tpc_finish",
            CallKind::DiskLoad => "load-from-disk",
        }
    }
}

impl Default for CallHistograms {
    fn default() -> CallHistograms {
        let kinds = [CallKind::Vote, CallKind::Finish, CallKind::DiskLoad];
        CallHistograms(kinds.map(|kind| (kind, Histogram::new(TIME_BOUNDS))))
    }
}

impl CallHistograms {
    /// A call has ended.
    pub fn count(&self, method: &str, took: Duration) {
        let kind = CallKind::of(method);
        let of = self.0.iter().find(|(known, _)| Some(*known) == kind);
        of.iter().for_each(|(_, histogram)| histogram.count_time(took));
    }

    /// What was counted so far.
    pub fn read(&self) -> [(CallKind, Distribution); 3] {
        self.0.each_ref().map(|(kind, histogram)| (*kind, histogram.read()))
    }
}
