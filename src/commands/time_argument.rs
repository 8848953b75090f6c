//! A point in time in a command line.

use crate::base::clock::since_1970;
use crate::base::ids::Tid;

/// A time, a time ago, or a tid.
pub(super) fn point_in_time(text: &str) -> Result<Tid, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.len() == 16
        && let Ok(tid) = u64::from_str_radix(digits, 16)
    {
        return Ok(Tid(tid));
    }
    let units = [('d', 86400.0), ('h', 3600.0), ('m', 60.0), ('s', 1.0)];
    let ago = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(*unit)?.parse().ok()?;
        (number >= 0.0).then_some(number * seconds)
    });
    match ago {
        Some(seconds) => Ok(Tid::from_unix((since_1970().as_secs_f64() - seconds).max(-2e9))),
        None => Tid::from_iso(text).map_err(|_| {
            format!("'{text}' is not a time; write 2026-11-28T03:13, 7d or 16 hexadecimal digits")
        }),
    }
}
