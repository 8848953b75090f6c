//! Standard error that is connected to systemd's journal: each line is an entry there, and `<N>` before it is its
//! priority, as syslog numbers them.

use std::os::fd::AsFd;

use super::syslog::severity;

/// The line that Python's `runzeo` puts between entries of its log; the journal has entries.
const SEPARATOR: &str = "------\n";

/// Whether a stream is the one that `JOURNAL_STREAM` tells of, `DEVICE:INODE`. Another program may have set it for a
/// stream of its own, which is not ours.
pub fn is_journal(stream: impl AsFd, journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|value| value.split_once(':')) else { return false };
    rustix::fs::fstat(stream)
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

/// The entry of the log, each line with its priority.
pub fn with_priority(level: u8, text: &str) -> String {
    let text = text.strip_prefix(SEPARATOR).unwrap_or(text);
    text.split_inclusive('\n').map(|line| format!("<{}>{line}", severity(level))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::level::{BLATHER, CRITICAL, ERROR, INFO, WARNING};

    #[test]
    fn each_line_has_its_priority() {
        for (level, number) in [(CRITICAL, 2), (ERROR, 3), (WARNING, 4), (INFO, 6), (BLATHER, 7)] {
            let expected = format!("<{number}>one\n<{number}>  two\n");
            assert_eq!(with_priority(level, "------\none\n  two\n"), expected);
        }
    }
}
