//! Local date and time, as the C library has it.
//!
//! `localtime_r` and `strftime` instead of a time crate, because Python's logging calls the same functions: the same
//! `TZ` rules, the same directives of `dateformat` (the process never calls `setlocale`, so the names are English, as
//! in Python), and no dependency.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;

/// Local date and time.
pub struct LocalTime(libc::tm);

impl LocalTime {
    /// The local time `secs` seconds after 1970-01-01T00:00:00Z.
    pub fn at(secs: i64) -> LocalTime {
        let mut tm = MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: both pointers are valid for the call. `tm` is plain numbers and a pointer, so all zeros are a value
        // of it should the call fail (a year beyond `int`). `tm_zone` points to the C library's own, lasting table.
        let tm = unsafe {
            libc::localtime_r(&secs, tm.as_mut_ptr());
            tm.assume_init()
        };
        LocalTime(tm)
    }

    /// Seconds since local midnight, by the local clock.
    pub fn second_of_day(&self) -> i64 {
        (i64::from(self.0.tm_hour) * 60 + i64::from(self.0.tm_min)) * 60 + i64::from(self.0.tm_sec)
    }

    /// 0 is Monday.
    pub fn weekday(&self) -> i64 {
        (i64::from(self.0.tm_wday) + 6) % 7
    }

    pub fn is_dst(&self) -> bool {
        self.0.tm_isdst > 0
    }

    /// Seconds by which local time is ahead of UTC.
    pub fn utc_offset(&self) -> i64 {
        self.0.tm_gmtoff
    }

    /// Appends the time, formatted by `strftime`.
    pub fn format(&self, format: &CStr, out: &mut String) {
        let mut buffer = vec![0_u8; 64];
        // A result of 0 means that the buffer is too short, or that the text is empty (`%p` in some places). No
        // directive makes more than some dozens of bytes, so the loop ends.
        let len_max = 256 * (format.to_bytes().len() + 1);
        loop {
            // SAFETY: the buffer has the length that is passed, the format ends in NUL, and `tm` is a whole value.
            let len =
                unsafe { libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &self.0) };
            if len > 0 {
                out.push_str(&String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()));
                return;
            }
            if buffer.len() > len_max {
                return;
            }
            buffer.resize(buffer.len() * 4, 0);
        }
    }
}
