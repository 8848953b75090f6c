//! One line for what happens again and again: a flood must not fill the log.

use std::time::{Duration, Instant};

use crate::base::sync::Mutex;

/// For so long nothing more is said; then, how often it happened meanwhile.
const WINDOW: Duration = Duration::from_secs(60);

/// Something that clients can bring about as often as they like.
#[derive(Debug)]
pub struct Episode {
    /// So many times in a window are logged.
    lines_max: u64,
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    logged: u64,
    /// And so often it was not.
    silent: u64,
}

impl Default for Episode {
    /// One line is enough: all of them would say the same.
    fn default() -> Episode {
        Episode::of_lines(1)
    }
}

impl Episode {
    /// The lines differ: so many of them are of use.
    pub fn of_lines(lines_max: u64) -> Episode {
        Episode { lines_max, window: Mutex::default() }
    }

    /// It has happened. Is it to be logged?
    pub fn is_news(&self) -> bool {
        let mut window = self.window.lock();
        let window = window.get_or_insert_with(|| Window { since: Instant::now(), logged: 0, silent: 0 });
        if window.logged < self.lines_max {
            window.logged += 1;
            return true;
        }
        window.silent += 1;
        false
    }

    /// To be asked from time to time: how often it has happened without being logged, in a window that is over. An
    /// episode ends when it has not; else the number is all that the next window begins with.
    pub fn more(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock();
        let over = window.take_if(|open| now.saturating_duration_since(open.since) >= WINDOW)?;
        if over.silent == 0 {
            return None;
        }
        *window = Some(Window { since: now, logged: self.lines_max, silent: 0 });
        Some(over.silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_and_a_number_each_minute() {
        let episode = Episode::default();
        let start = Instant::now();
        let after = |windows: u32| start + (WINDOW + Duration::from_secs(1)) * windows;
        assert!(episode.is_news());
        assert!((0..1000).all(|_| !episode.is_news()));
        assert_eq!(episode.more(start), None);
        assert_eq!(episode.more(after(1)), Some(1000));
        assert!(!episode.is_news());
        assert_eq!(episode.more(after(2)), Some(1));
        assert_eq!(episode.more(after(3)), None);
        assert!(episode.is_news(), "a new episode");
        let episode = Episode::of_lines(3);
        assert_eq!((0..10).filter(|_| episode.is_news()).count(), 3);
        assert_eq!(episode.more(after(1)), Some(7));
    }
}
