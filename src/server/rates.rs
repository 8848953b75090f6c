//! How much a client address may ask for in a second (`max-requests-per-second`, `max-sent-per-second`), and how much
//! all clients of a network together (`<network>`). A client that is ahead of that is not read for a while: it waits,
//! and gets no error, which clients of some generations would not understand.
//!
//! Each address and each network has a debt for each rate, of which a second's worth is paid off in a second; a debt of
//! a second's worth costs nothing, so short bursts are free. A session adds what it has answered to the debts of its
//! address and of all its networks, and waits for the largest of them. Clients whose transaction is voted do not wait:
//! others wait for its locks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::base::address::Host;
use crate::base::network::Networks;
use crate::base::sync::{Arc, Mutex, rank};

/// Longest wait before a session reads again; what is left of its debt counts then.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The largest debt: what is paid off in this time. A network of many clients would otherwise have a rush of a minute
/// to pay off for hours, because each of its clients is answered again after the longest wait.
const DEBT_MAX: Duration = Duration::from_secs(60);
/// Addresses with a debt, above which those without are forgotten.
const HOSTS_KEPT: usize = 1024;

/// What an address or a network may have in a second. `None`: any number.
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

/// What a session has answered since it was counted last.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub requests: u64,
    /// Bytes that were sent.
    pub sent: u64,
}

/// The debts of the addresses of a listener. All clients of a Unix socket are one address.
#[derive(Debug, Default)]
pub struct Debts {
    by_host: Mutex<HashMap<Option<Host>, Debt>, rank::Debts>,
}

impl Debts {
    /// Adds what a session has answered. Returns for how long it is to wait.
    pub fn add(
        &self,
        host: Option<Host>,
        rates: Rates,
        answered: Answered,
        now: Instant,
    ) -> Option<Duration> {
        let mut by_host = self.by_host.lock();
        if by_host.len() > HOSTS_KEPT {
            by_host.retain(|_, debt| {
                debt.pay_off(rates, now);
                debt.requests > 0.0 || debt.sent > 0.0
            });
        }
        by_host.entry(host).or_insert_with(|| Debt::new(now)).add(rates, answered, now)
    }
}

/// The rates that all clients of some networks have together, at whatever listener they are.
#[derive(Clone, Debug)]
pub struct NetworkRates {
    /// In the log: the first line of its section.
    name: String,
    addresses: Networks,
    rates: Rates,
    /// Shared with the same networks of another configuration.
    debt: Arc<Mutex<Debt, rank::Debts>>,
}

impl NetworkRates {
    /// Its clients have asked for nothing yet.
    pub fn new(name: String, addresses: Networks, rates: Rates, now: Instant) -> NetworkRates {
        NetworkRates { name, addresses, rates, debt: Arc::new(Mutex::new(Debt::new(now))) }
    }

    /// Takes over what the clients have asked for, if one of the others has the same name.
    pub fn continued(self, others: &[NetworkRates]) -> NetworkRates {
        match others.iter().find(|other| other.name == self.name) {
            Some(other) => NetworkRates { debt: Arc::clone(&other.debt), ..self },
            None => self,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the client is one of its clients. `None`: it has no address.
    pub fn contains(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|client| self.addresses.contains(client))
    }

    /// Adds what the session of one of its clients has answered. Returns for how long it is to wait.
    pub fn add(&self, answered: Answered, now: Instant) -> Option<Duration> {
        self.debt.lock().add(self.rates, answered, now)
    }
}

#[derive(Debug)]
struct Debt {
    requests: f64,
    sent: f64,
    /// When it was paid off last.
    at: Instant,
}

impl Debt {
    fn new(now: Instant) -> Debt {
        Debt { requests: 0.0, sent: 0.0, at: now }
    }

    /// Adds what a session has answered. Returns for how long it is to wait.
    fn add(&mut self, rates: Rates, answered: Answered, now: Instant) -> Option<Duration> {
        self.pay_off(rates, now);
        let grown = |debt: f64, more: u64, rate: Option<u64>| {
            rate.map_or(0.0, |rate| (debt + more as f64).min(rate as f64 * DEBT_MAX.as_secs_f64()))
        };
        self.requests = grown(self.requests, answered.requests, rates.requests);
        self.sent = grown(self.sent, answered.sent, rates.sent);
        let waits = [wait(self.requests, rates.requests), wait(self.sent, rates.sent)];
        let longest = waits.into_iter().fold(0.0, f64::max);
        (longest > 0.0).then(|| Duration::from_secs_f64(longest.min(WAIT_MAX.as_secs_f64())))
    }

    fn pay_off(&mut self, rates: Rates, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let left =
            |debt: f64, rate: Option<u64>| rate.map_or(0.0, |rate| (debt - rate as f64 * passed).max(0.0));
        self.requests = left(self.requests, rates.requests);
        self.sent = left(self.sent, rates.sent);
        // A session may have taken the time before another one that came first.
        self.at = self.at.max(now);
    }
}

/// Seconds until the debt is a second's worth.
fn wait(debt: f64, rate: Option<u64>) -> f64 {
    rate.map_or(0.0, |rate| (debt / rate as f64 - 1.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(requests: u64, sent: u64) -> Answered {
        Answered { requests, sent }
    }

    #[test]
    fn a_burst_is_free_and_the_rate_holds() {
        let (debts, start) = (Debts::default(), Instant::now());
        let rates = Rates { requests: Some(100), sent: None };
        let add = |requests, millis| {
            debts.add(None, rates, answered(requests, 0), start + Duration::from_millis(millis))
        };
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
        let host = |last: u8| Some(Host::from(IpAddr::from([10, 0, 0, last])));
        assert_eq!(debts.add(host(1), rates, answered(1, 2500), now), Some(Duration::from_millis(1500)));
        assert_eq!(debts.add(host(2), rates, answered(1, 900), now), None);
        for last in 0..=255 {
            for other in 0..8 {
                let host = Some(Host::from(IpAddr::from([10, 1, other, last])));
                debts.add(host, rates, answered(1, 0), now);
            }
        }
        debts.add(host(3), rates, answered(1, 0), now + Duration::from_secs(60));
        assert_eq!(debts.by_host.lock().len(), 1, "those without a debt are forgotten");
    }

    fn network(name: &str, addresses: &str, requests: u64, now: Instant) -> NetworkRates {
        let rates = Rates { requests: Some(requests), sent: None };
        NetworkRates::new(name.into(), addresses.parse().expect("networks"), rates, now)
    }

    #[test]
    fn the_clients_of_a_network_have_one_debt() {
        let now = Instant::now();
        let office = network("<network office>", "10.1.0.0/16 2001:db8::/32", 100, now);
        let ip = |text: &str| Some(text.parse().expect("an address"));
        for (client, is_inside) in [
            (ip("10.1.2.3"), true),
            (ip("::ffff:10.1.2.3"), true),
            (ip("2001:db8::7"), true),
            (ip("10.2.0.1"), false),
            (None, false),
        ] {
            assert_eq!(office.contains(client), is_inside, "{client:?}");
        }
        assert_eq!(office.add(answered(60, 1 << 40), now), None, "there is no limit on what is sent");
        assert_eq!(office.add(answered(60, 0), now), Some(Duration::from_millis(200)));
        let later = now + Duration::from_millis(200);
        assert_eq!(office.add(answered(10, 0), later), Some(Duration::from_millis(100)));
        // A session that has taken the time before that pays nothing off, and nothing is paid off twice.
        assert_eq!(office.add(answered(0, 0), now), Some(Duration::from_millis(100)));
        assert_eq!(office.add(answered(0, 0), later), Some(Duration::from_millis(100)));
        assert_eq!(office.add(answered(1_000_000, 0), later), Some(WAIT_MAX));
    }

    /// However much more its clients have asked for.
    #[test]
    fn a_rush_is_paid_off_a_minute_later() {
        let now = Instant::now();
        let office = network("<network office>", "10.0.0.0/8", 100, now);
        assert_eq!(office.add(answered(1_000_000, 0), now), Some(WAIT_MAX));
        assert_eq!(office.add(answered(1_000_000, 0), now), Some(WAIT_MAX));
        let wait_after = |seconds| office.add(answered(0, 0), now + Duration::from_secs(seconds));
        assert_eq!(wait_after(58), Some(Duration::from_secs(1)));
        assert_eq!(wait_after(59), None, "a second's worth costs nothing");
    }

    /// A reload with other numbers is no amnesty.
    #[test]
    fn a_network_of_the_same_name_takes_over_the_debt() {
        let now = Instant::now();
        let before = [network("<network a>", "10.0.0.0/8", 100, now), network("<network b>", "::/0", 1, now)];
        assert_eq!(before[0].add(answered(150, 0), now), Some(Duration::from_millis(500)));
        let after = network("<network a>", "10.1.0.0/16", 50, now).continued(&before);
        assert!(!after.contains("10.2.0.1".parse().ok()));
        assert_eq!(after.add(answered(25, 0), now), Some(Duration::from_secs(2)));
        let other = network("<network c>", "10.1.0.0/16", 50, now).continued(&before);
        assert_eq!(other.add(answered(25, 0), now), None);
    }
}
