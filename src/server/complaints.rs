//! Lines about what strangers get wrong: each tells somebody's trouble, but a client that tries again and again must not hide
//! another's behind its own, and a flood must not fill the log.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::base::sync::Mutex;

/// For so long the same is not said again.
const WINDOW: Duration = Duration::from_secs(60);
/// Different ones in that time.
const LINES_MAX: usize = 100;

/// What was told in the last minute.
#[derive(Debug, Default)]
pub struct Complaints {
    window: Mutex<Option<Window>>,
    /// Nobody who chooses his words finds two that hash alike.
    hasher: RandomState,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    told: HashSet<u64>,
    /// So often nothing was said.
    silent: u64,
}

impl Complaints {
    /// `who` (an address and port, or a socket's path) got `what` wrong. Is it to be logged? Once for each host.
    pub fn is_news(&self, who: &str, what: &str) -> bool {
        let host = who.rsplit_once(':').map_or(who, |(host, _port)| host);
        let complaint = self.hasher.hash_one((host, what));
        let mut window = self.window.lock();
        let new = || Window { since: Instant::now(), told: HashSet::new(), silent: 0 };
        let window = window.get_or_insert_with(new);
        if window.told.len() < LINES_MAX && window.told.insert(complaint) {
            return true;
        }
        window.silent += 1;
        false
    }

    /// To be asked from time to time: how often nothing was said, in a minute that is over.
    pub fn more(&self, now: Instant) -> Option<u64> {
        let over = self.window.lock().take_if(|open| now.saturating_duration_since(open.since) >= WINDOW)?;
        (over.silent > 0).then_some(over.silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client with the wrong certificate tried again hundreds of times a second, which used up all the lines of a minute;
    /// why another one was refused could not be seen.
    #[test]
    fn one_who_tries_again_does_not_hide_the_others() {
        let complaints = Complaints::default();
        let said = |host: &str, what: &str| {
            (1000..1500).filter(|port| complaints.is_news(&format!("{host}:{port}"), what)).count()
        };
        assert_eq!(said("10.0.0.1", "unknown certificate"), 1);
        assert_eq!(said("10.0.0.1", "no certificate"), 1);
        assert_eq!(said("10.0.0.2", "no certificate"), 1);
        let start = Instant::now();
        assert_eq!(complaints.more(start), None);
        assert_eq!(complaints.more(start + WINDOW), Some(3 * 499));
        assert_eq!(said("10.0.0.1", "no certificate"), 1, "said again in the next minute");
    }

    #[test]
    fn a_flood_is_so_many_lines_and_a_number() {
        let complaints = Complaints::default();
        let flood = (0..1000).filter(|n| complaints.is_news("[::1]:7", &format!("method {n}"))).count();
        assert_eq!(flood, LINES_MAX);
        let later = Instant::now() + WINDOW;
        assert_eq!(complaints.more(later), Some(900));
        assert_eq!(complaints.more(later), None);
    }
}
