//! Pack times: from a client's seconds to a tid, and in words.

use super::{Refusal, Result, StorageError};
use crate::base::ids::Tid;

/// The pack time, in seconds since 1970, as a tid.
pub fn stop_of(time: f64) -> Result<Tid> {
    let refused = |what, message: &str| Err(StorageError::Refused { what, message: message.into() });
    // The range of a time stamp: about 1900 to 9999. Python's limits are those of its C library.
    let year_1900 = -2_208_988_800.0;
    if !(year_1900..253_402_300_800.0).contains(&time) {
        return refused(Refusal::PackTimeRange, "the pack time is out of range");
    }
    match Tid::from_unix(time) {
        Tid::ZERO => refused(Refusal::PackTimeZero, "Invalid pack time"),
        stop => Ok(stop),
    }
}

/// The time of a tid, to the second.
pub fn in_words(tid: Tid) -> String {
    let at = tid.to_civil();
    let (date, second) = (format!("{}-{:02}-{:02}", at.year, at.month, at.day), at.second as u32);
    format!("{date} {:02}:{:02}:{second:02} UTC", at.hour, at.minute)
}
