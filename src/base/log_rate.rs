//! Limits on the rate of log lines: lines that clients can cause at any rate must not fill the disk.
//!
//! Each kind of line has its own limit, a `static` beside the code that writes the lines. It counts lines for each host
//! and in all, so a host that floods the log with one kind of line hides neither lines of other hosts nor its own lines
//! of other kinds. Suppressed lines are counted; one line reports the count when the minute is over ([`summaries`]).
//!
//! The limits are for the process, because there is one log, and they have the computer's time.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use super::address::Host;
use super::clock::TimeSource;
use super::sync::{Mutex, rank};

/// The period of the limits.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Upper bound on the hosts that are counted in a period. More than the limit of all hosts together.
const HOSTS_MAX: usize = 4096;

/// The limit of one kind of line.
#[derive(Debug)]
pub struct LogRate {
    /// What is suppressed, in the plural, for the summary: `... of {host}`.
    what: &'static str,
    /// Lines in a minute for one host.
    per_host: u64,
    /// Lines in a minute for all hosts.
    in_all: u64,
    /// Whether the same text from the same host is logged only once in a minute.
    same_once: bool,
    /// Whether only the first line of a run is logged: the summaries count the others until a minute has none.
    is_first_of_run: bool,
    /// Created at the first line, because a lock of the model checker cannot be created in a constant.
    window: OnceLock<Mutex<Option<Window>, rank::LogRateWindow>>,
    is_known: OnceLock<()>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    total: Count,
    by_host: HashMap<Option<Host>, Count>,
    /// Hashes of hosts and texts that were logged. The hash is keyed, so clients cannot choose texts that collide.
    logged: HashSet<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    logged: u64,
    left_out: u64,
}

/// All limits that were ever used, for [`summaries`].
static KNOWN: LazyLock<Mutex<Vec<&'static LogRate>, rank::LogRates>> = LazyLock::new(Mutex::default);

impl LogRate {
    /// `per_host` lines in a minute for one host, `in_all` for all. `what`: the suppressed lines, in the plural.
    pub const fn new(what: &'static str, per_host: u64, in_all: u64) -> LogRate {
        LogRate {
            what,
            per_host,
            in_all,
            same_once: false,
            is_first_of_run: false,
            window: OnceLock::new(),
            is_known: OnceLock::new(),
        }
    }

    /// Of lines with the same text from the same host, logs only the first.
    pub const fn same_once(mut self) -> LogRate {
        self.same_once = true;
        self
    }

    /// Logs the first line of a run of lines, and then `{number} more {what}` each minute as long as lines go on.
    pub const fn first_of_run(what: &'static str) -> LogRate {
        let mut rate = LogRate::new(what, 1, 1);
        rate.is_first_of_run = true;
        rate
    }

    /// Whether to log a line with this text about `host`. `None`: all peers without an address.
    pub fn admits(&'static self, host: Option<Host>, text: &str) -> bool {
        self.is_known.get_or_init(|| KNOWN.lock().push(self));
        self.admits_at(TimeSource::SYSTEM.now(), host, text)
    }

    fn admits_at(&self, now: Instant, host: Option<Host>, text: &str) -> bool {
        let mut window = self.window().lock();
        let is_over = |open: &mut Window| open.total.left_out == 0 && open.is_over(now);
        window.take_if(is_over);
        let window = window.get_or_insert_with(|| Window::new(now));
        let is_admitted = self.admits_in(window, host, text);
        window.count(host, is_admitted);
        is_admitted
    }

    fn window(&self) -> &Mutex<Option<Window>, rank::LogRateWindow> {
        self.window.get_or_init(Mutex::default)
    }

    fn admits_in(&self, window: &mut Window, host: Option<Host>, text: &str) -> bool {
        let of_host = window.by_host.get(&host).map_or(0, |count| count.logged);
        window.total.logged < self.in_all
            && of_host < self.per_host
            && (!self.same_once || window.logged.insert(hash(host, text)))
    }

    /// The summary of a minute that is over, or with `at_once` of the present one.
    fn summary(&self, now: Instant, at_once: bool) -> Option<String> {
        let mut window = self.window().lock();
        let over = window.take_if(|open| at_once || open.is_over(now))?;
        let left_out = over.total.left_out;
        if left_out == 0 {
            return None;
        }
        if self.is_first_of_run {
            // The run ends with the first window without such a line.
            let mut next = Window::new(now);
            next.total.logged = self.in_all;
            *window = Some(next);
            return Some(format!("{left_out} more {}", self.what));
        }
        let most = over.by_host.iter().max_by_key(|(_, count)| count.left_out);
        let most = most.and_then(|(host, count)| host.as_ref().map(|host| (host, count.left_out)));
        let of = most.map_or(String::new(), |(host, count)| format!(", {count} of them of {host}"));
        Some(format!("{left_out} more {} are left out of the log{of}", self.what))
    }
}

impl Window {
    fn new(since: Instant) -> Window {
        Window { since, total: Count::default(), by_host: HashMap::new(), logged: HashSet::new() }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }

    fn count(&mut self, host: Option<Host>, is_logged: bool) {
        self.total.count(is_logged);
        if self.by_host.len() < HOSTS_MAX || self.by_host.contains_key(&host) {
            self.by_host.entry(host).or_default().count(is_logged);
        }
    }
}

impl Count {
    fn count(&mut self, is_logged: bool) {
        if is_logged { self.logged += 1 } else { self.left_out += 1 }
    }
}

fn hash(host: Option<Host>, text: &str) -> u64 {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    HASHER.get_or_init(RandomState::new).hash_one((host, text))
}

/// To be called repeatedly: the summaries of minutes that are over. `at_once`: also of the present one, because the
/// process ends.
pub fn summaries(now: Instant, at_once: bool) -> Vec<String> {
    let known = KNOWN.lock().clone();
    known.iter().filter_map(|rate| rate.summary(now, at_once)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> Option<Host> {
        Some(Host::from(std::net::IpAddr::from([10, 0, 0, n])))
    }

    fn admitted(
        rate: &LogRate,
        now: Instant,
        host: Option<Host>,
        texts: impl Iterator<Item = String>,
    ) -> usize {
        texts.filter(|text| rate.admits_at(now, host, text)).count()
    }

    fn texts(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|n| format!("text {n}"))
    }

    /// A client with a wrong certificate that tried again hundreds of times a second used to take all lines of a
    /// minute, so that errors of other clients were not logged.
    #[test]
    fn one_who_tries_again_does_not_hide_the_others() {
        let rate = LogRate::new("errors", 20, 300).same_once();
        let start = Instant::now();
        let same = |text: &str| vec![text.to_string(); 500].into_iter();
        assert_eq!(admitted(&rate, start, host(1), same("unknown certificate")), 1);
        assert_eq!(admitted(&rate, start, host(1), same("no certificate")), 1);
        assert_eq!(admitted(&rate, start, host(2), same("no certificate")), 1);
        assert_eq!(rate.summary(start, false), None);
        let summary = rate.summary(start + WINDOW, false).expect("a summary");
        assert_eq!(summary, "1497 more errors are left out of the log, 998 of them of 10.0.0.1");
        assert_eq!(rate.summary(start + WINDOW, true), None, "reported once");
        let next = start + WINDOW;
        assert_eq!(admitted(&rate, next, host(1), same("no certificate")), 1, "again in the next minute");
    }

    #[test]
    fn a_flood_is_a_few_lines_and_a_number() {
        let rate = LogRate::new("errors", 5, 12);
        let start = Instant::now();
        assert_eq!(admitted(&rate, start, host(1), texts(1000)), 5);
        assert_eq!(admitted(&rate, start, host(2), texts(1000)), 5);
        assert_eq!(admitted(&rate, start, None, texts(1000)), 2);
        assert_eq!(admitted(&rate, start, host(3), texts(1)), 0);
        assert!(rate.summary(start, true).expect("the process ends").starts_with("2989 more errors are"));
    }

    #[test]
    fn a_host_below_the_limit_loses_no_line() {
        let rate = LogRate::new("errors", 50, 500);
        let start = Instant::now();
        for minute in 0..10 {
            assert_eq!(admitted(&rate, start + minute * WINDOW, host(1), texts(50)), 50);
        }
        assert_eq!(rate.summary(start + 20 * WINDOW, false), None);
    }

    #[test]
    fn a_run_is_its_first_line_and_a_number_each_minute() {
        let rate = LogRate::first_of_run("connections were refused");
        let start = Instant::now();
        let after = |windows: u32| start + windows * WINDOW;
        assert_eq!(admitted(&rate, start, host(1), texts(1001)), 1);
        assert_eq!(rate.summary(start, false), None);
        assert_eq!(rate.summary(after(1), false).as_deref(), Some("1000 more connections were refused"));
        assert_eq!(admitted(&rate, after(1), host(2), texts(1)), 0);
        assert_eq!(rate.summary(after(2), false).as_deref(), Some("1 more connections were refused"));
        assert_eq!(rate.summary(after(3), false), None);
        assert_eq!(admitted(&rate, after(3), host(1), texts(1)), 1, "a new run");
    }

    #[test]
    fn any_number_of_hosts_takes_little_memory() {
        let rate = LogRate::new("errors", 5, 100);
        let now = Instant::now();
        for n in 0..100_000_u32 {
            rate.admits_at(now, Some(Host::from(std::net::IpAddr::from(n.to_be_bytes()))), "x");
        }
        let window = rate.window().lock();
        assert_eq!(window.as_ref().map(|open| open.by_host.len()), Some(HOSTS_MAX));
    }
}
