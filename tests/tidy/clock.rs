//! One file reads the clocks of the computer, so that a test can move the time that decisions depend on.

use std::collections::BTreeMap;

use crate::exceptions::CLOCK_READERS;
use crate::files::{check_with_exceptions, with_extension};

const CLOCK: &str = "src/base/clock.rs";

/// `.elapsed()` without an argument is a method of `Instant` and of `SystemTime`.
const READS: &[&str] = &["Instant::now", "SystemTime::now", ".elapsed()"];

#[test]
fn the_clock_is_read_in_one_file() {
    let mut found = BTreeMap::new();
    for (path, text) in with_extension(&["src"], "rs") {
        if path == CLOCK || path.ends_with("tests.rs") || path.contains("/tests/") {
            continue;
        }
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        for (number, line) in text[..end].lines().enumerate() {
            let code = line.split_once("//").map_or(line, |(code, _)| code);
            if READS.iter().any(|read| code.contains(read)) {
                found.insert(path.clone(), format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    check_with_exceptions(
        "take the time from a `TimeSource`, or use `Stopwatch` or `IoDeadline` of base::clock",
        &found,
        CLOCK_READERS,
    );
}
