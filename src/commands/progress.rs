//! The progress of a command that reads a file, on a terminal (stderr).

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::base::clock::Stopwatch;

/// Interval of progress updates.
const INTERVAL: Duration = Duration::from_secs(1);

/// A line that is overwritten with the newest state, and removed at the end.
pub(super) struct Progress {
    name: String,
    begun: Stopwatch,
    shown: Option<Stopwatch>,
    /// Bytes of the file, if that is known.
    total: Option<u64>,
}

impl Progress {
    /// `None` if there is no terminal, or the command prints its report to it while it reads: it does unless
    /// `is_quiet`.
    pub(super) fn on_terminal(name: &str, total: Option<u64>, is_quiet: bool) -> Option<Progress> {
        let is_shown = io::stderr().is_terminal() && (is_quiet || !io::stdout().is_terminal());
        is_shown.then(|| Progress { name: name.into(), begun: Stopwatch::start(), shown: None, total })
    }

    /// Shows how many bytes were read. Reads the clock: not to be called for each record.
    pub(super) fn show(&mut self, done: u64) {
        let total = self.total;
        self.show_text(|| match total {
            Some(total) if total > 0 => format!("{} % read", done.min(total) * 100 / total),
            _ => format!("{} MB read", done >> 20),
        });
    }

    /// Shows how many things were done.
    pub(super) fn show_count(&mut self, done: u64, things: &str) {
        self.show_text(|| format!("{done} {things}"));
    }

    fn show_text(&mut self, text: impl FnOnce() -> String) {
        if self.shown.unwrap_or(self.begun).passed() < INTERVAL {
            return;
        }
        self.shown = Some(Stopwatch::start());
        let seconds = self.begun.passed().as_secs();
        // Without a terminal to write to there is no progress to show.
        _ = write!(io::stderr(), "\r{}: {}, {seconds} s\x1b[K", self.name, text());
    }

    /// Removes the line.
    pub(super) fn end(&mut self) {
        if self.shown.take().is_some() {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
