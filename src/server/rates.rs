//! How much a client address may ask for in a second (`max-requests-per-second`, `max-sent-per-second`). One that is
//! ahead of that is not read for a while: it waits, and gets no error, which clients of some generations would not
//! understand.
//!
//! Each address has a debt for each rate, of which a second's worth is paid off in a second; a debt of a second's
//! worth costs nothing, so short bursts are free. A session adds what it has answered, and waits while the debt is
//! larger. Clients whose transaction is voted do not wait: others wait for its locks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::base::address::Host;
use crate::base::sync::{Mutex, rank};

/// Longest wait before a session reads again; what is left of its debt counts then.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Addresses with a debt, above which those without are forgotten.
const HOSTS_KEPT: usize = 1024;

/// What an address may have in a second. `None`: any number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rates {
    pub requests: Option<u64>,
    /// Bytes of messages to it, without those of TLS.
    pub sent: Option<u64>,
}

impl Rates {
    /// Whether there is none.
    pub fn are_unlimited(&self) -> bool {
        *self == Rates::default()
    }
}

/// The debts of the addresses of a listener. All clients of a Unix socket are one address.
#[derive(Debug, Default)]
pub struct Debts {
    by_host: Mutex<HashMap<Option<Host>, HostDebts>, rank::Debts>,
}

#[derive(Debug)]
struct HostDebts {
    requests: f64,
    sent: f64,
    /// When they were paid off last.
    at: Instant,
}

impl Debts {
    /// Adds what a session has answered. Returns for how long it is to wait.
    pub fn add(
        &self,
        host: Option<Host>,
        rates: Rates,
        requests: u64,
        sent: u64,
        now: Instant,
    ) -> Option<Duration> {
        let mut by_host = self.by_host.lock();
        if by_host.len() > HOSTS_KEPT {
            by_host.retain(|_, debts| {
                debts.pay_off(rates, now);
                debts.requests > 0.0 || debts.sent > 0.0
            });
        }
        let debts = by_host.entry(host).or_insert(HostDebts { requests: 0.0, sent: 0.0, at: now });
        debts.pay_off(rates, now);
        debts.requests += requests as f64;
        debts.sent += sent as f64;
        let waits = [wait(debts.requests, rates.requests), wait(debts.sent, rates.sent)];
        let longest = waits.into_iter().fold(0.0, f64::max);
        (longest > 0.0).then(|| Duration::from_secs_f64(longest.min(WAIT_MAX.as_secs_f64())))
    }
}

impl HostDebts {
    fn pay_off(&mut self, rates: Rates, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let left =
            |debt: f64, rate: Option<u64>| rate.map_or(0.0, |rate| (debt - rate as f64 * passed).max(0.0));
        self.requests = left(self.requests, rates.requests);
        self.sent = left(self.sent, rates.sent);
        self.at = now;
    }
}

/// Seconds until the debt is a second's worth.
fn wait(debt: f64, rate: Option<u64>) -> f64 {
    rate.map_or(0.0, |rate| (debt / rate as f64 - 1.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rate_holds() {
        let (debts, start) = (Debts::default(), Instant::now());
        let rates = Rates { requests: Some(100), sent: None };
        let add =
            |requests, millis| debts.add(None, rates, requests, 0, start + Duration::from_millis(millis));
        assert_eq!(add(100, 0), None, "a second's worth");
        assert_eq!(add(50, 0), Some(Duration::from_millis(500)));
        assert_eq!(add(0, 500), None);
        // Ten seconds of asking as fast as it may.
        let (mut asked, mut now) = (0, 500);
        while now < 10_500 {
            asked += 10;
            now += add(10, now).map_or(0, |wait| wait.as_millis() as u64);
        }
        assert!((990..=1020).contains(&asked), "{asked}");
        assert_eq!(add(100_000, 20_000), Some(WAIT_MAX));
    }

    #[test]
    fn addresses_have_their_own_debts_and_the_larger_one_counts() {
        let (debts, now) = (Debts::default(), Instant::now());
        let rates = Rates { requests: Some(10), sent: Some(1000) };
        let host = |last: u8| Some(Host::from(std::net::IpAddr::from([10, 0, 0, last])));
        assert_eq!(debts.add(host(1), rates, 1, 2500, now), Some(Duration::from_millis(1500)));
        assert_eq!(debts.add(host(2), rates, 1, 900, now), None);
        for last in 0..=255 {
            for other in 0..8 {
                let host = Some(Host::from(std::net::IpAddr::from([10, 1, other, last])));
                debts.add(host, rates, 1, 0, now);
            }
        }
        debts.add(host(3), rates, 1, 0, now + Duration::from_secs(60));
        assert_eq!(debts.by_host.lock().len(), 1, "those without a debt are forgotten");
    }
}
