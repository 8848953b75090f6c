//! The policy of a listener: which clients it admits, and what they get there. Each connection has the policy of the
//! listener which accepted it, for as long as it lives; a reload changes what the policy says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::auth::Protocol;
use crate::base::network::Networks;
use crate::base::sync::{Arc, AtomicUsize, Ordering};
use crate::server::access::{AccessRules, ClientIdentity};
use crate::server::peer::Peer;
use crate::server::rates::{Answered, Debts, NetworkRates, Rates};
use crate::server::rights::Rights;

/// The authentication that a listener demands.
pub struct Authentication {
    /// The protocol's name, which clients look up on their side.
    pub name: String,
    pub protocol: Arc<dyn Protocol>,
}

/// What is configured for a listener. The default admits all clients to all storages.
#[derive(Clone, Default)]
pub struct PolicyOptions {
    /// `None`: clients need no password.
    pub authentication: Option<Arc<Authentication>>,
    /// No client can write, or have a pack made.
    pub read_only: bool,
    /// The names of the storages that are served; `None`: all.
    pub storages: Option<BTreeSet<String>>,
    /// Where clients may connect from; `None`: from everywhere. Clients of a Unix socket have no address.
    pub allow: Option<Networks>,
    /// The proxies, which send the address of each of their clients.
    pub proxies: Networks,
    /// The rules of the storages that have some.
    pub access: Arc<BTreeMap<String, AccessRules>>,
    /// Registered clients; `None`: the server's limits alone.
    pub connections: Option<usize>,
    /// What one address may ask for.
    pub rates: Rates,
    /// What all clients of some networks together may ask for, at this listener and the others.
    pub networks: Arc<[NetworkRates]>,
    /// Its clients, which hold no locks, stand back behind others.
    pub low_priority: bool,
    /// It has TLS, with certificates on both sides.
    pub demands_certificates: bool,
    /// It was taken out of the configuration.
    pub has_gone: bool,
}

impl PolicyOptions {
    /// What a client may do with a storage. `None`: not even read it.
    pub(super) fn rights(&self, storage: &str, client: &ClientIdentity) -> Option<Rights> {
        let rights = match self.access.get(storage) {
            Some(rules) => rules.rights(client)?,
            None => Rights::ALL,
        };
        Some(if self.read_only { rights.and(Rights::READING) } else { rights })
    }

    pub(super) fn serves(&self, storage: &str) -> bool {
        self.storages.as_ref().is_none_or(|served| served.contains(storage))
    }

    /// The networks with rates that the client is in.
    fn networks_of(&self, client: &Peer) -> impl Iterator<Item = &NetworkRates> {
        self.networks.iter().filter(|network| network.contains(client.ip()))
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|networks| networks.contains(address))
    }

    /// Whether a client that is connected could connect now.
    pub(super) fn admits(&self, client: &ClientIdentity) -> bool {
        !self.has_gone
            && client.ip.is_none_or(|ip| self.allows(ip))
            && (self.authentication.is_none() || client.user.is_some())
            && (!self.demands_certificates || client.certificate.is_some())
    }
}

/// The policy of a listener, and the number of its clients.
#[derive(Default)]
pub struct Policy {
    /// A reload replaces them.
    options: ArcSwap<PolicyOptions>,
    debts: Debts,
    /// Registered connections. Changed while the lock of [`Admission`](super::admission) is held.
    registered: AtomicUsize,
}

impl Policy {
    pub fn new(options: PolicyOptions) -> Arc<Policy> {
        Arc::new(Policy {
            options: ArcSwap::from_pointee(options),
            debts: Debts::default(),
            registered: AtomicUsize::new(0),
        })
    }

    /// Sets other options. [`Server::renew_rights`](super::Server::renew_rights) has those that are connected follow.
    pub fn set(&self, options: PolicyOptions) {
        self.options.store(Arc::new(options));
    }

    /// The options at this moment.
    pub fn options(&self) -> Arc<PolicyOptions> {
        self.options.load_full()
    }

    /// The authentication that comes before `register`, if there is one. A connection keeps the one that it began with.
    pub fn authentication(&self) -> Option<Arc<Authentication>> {
        self.options.load().authentication.clone()
    }

    /// What a client may do with a storage. `None`: not even read it.
    pub fn rights(&self, storage: &str, client: &ClientIdentity) -> Option<Rights> {
        self.options.load().rights(storage, client)
    }

    /// Whether there are rules for this storage.
    pub fn has_rules_for(&self, storage: &str) -> bool {
        self.options.load().access.contains_key(storage)
    }

    /// Whether the storage is served. One that is not looks like one that does not exist.
    pub fn serves(&self, storage: &str) -> bool {
        self.options.load().serves(storage)
    }

    /// Whether clients may connect from this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.options.load().allows(address)
    }

    /// Whether connections from this address begin with the header of a proxy.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.options.load().proxies.contains(address)
    }

    /// The options, if there are rates for this client.
    pub fn with_rates_for(&self, client: &Peer) -> Option<Guard<Arc<PolicyOptions>>> {
        let options = self.options.load();
        let has_rates = !options.rates.are_unlimited() || options.networks_of(client).next().is_some();
        has_rates.then_some(options)
    }

    /// Adds what a client's session has answered to the debts of its address and of its networks, by these options.
    /// Returns the longest of its waits, with the network that it is for.
    pub fn count_answered<'a>(
        &self,
        options: &'a PolicyOptions,
        client: &Peer,
        answered: Answered,
        now: Instant,
    ) -> Option<(Duration, Option<&'a NetworkRates>)> {
        let own = match options.rates.are_unlimited() {
            true => None,
            false => self.debts.add(client.host(), options.rates, answered, now),
        };
        let networks = options.networks_of(client);
        let shared = networks.filter_map(|network| Some((network.add(answered, now)?, Some(network))));
        own.map(|wait| (wait, None))
            .into_iter()
            .chain(shared)
            .reduce(|longest, other| if other.0 > longest.0 { other } else { longest })
    }

    /// The limit on registered clients, if it is reached.
    pub fn full(&self) -> Option<usize> {
        self.options.load().connections.filter(|max| self.registered.load(Ordering::Relaxed) >= *max)
    }

    pub(super) fn count(&self) {
        self.registered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn uncount(&self) {
        self.registered.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::access::{Rule, Who};

    /// A read-only listener takes rights away, and gives none that the rules do not.
    #[test]
    fn a_read_only_listener_gives_no_right_that_the_rules_refuse() {
        let reading = Rights { iterate: false, ..Rights::READING };
        let rule = |rights| AccessRules(vec![Rule { who: Who::Everyone, rights }]);
        let access = [("all", Some(Rights::ALL)), ("read", Some(reading)), ("none", None)];
        let access = access.map(|(name, rights)| (name.to_string(), rule(rights)));
        let access: Arc<BTreeMap<_, _>> = Arc::new(access.into());
        let of = |read_only, storage| {
            let options =
                PolicyOptions { read_only, access: Arc::clone(&access), ..PolicyOptions::default() };
            Policy::new(options).rights(storage, &ClientIdentity::default())
        };
        assert_eq!([of(false, "all"), of(true, "all")], [Some(Rights::ALL), Some(Rights::READING)]);
        assert_eq!([of(false, "read"), of(true, "read")], [Some(reading); 2]);
        assert_eq!([of(false, "none"), of(true, "none")], [None; 2]);
        assert_eq!([of(false, "other"), of(true, "other")], [Some(Rights::ALL), Some(Rights::READING)]);
    }

    #[test]
    fn a_client_waits_for_the_longest_of_its_waits() {
        let (clock, rate) = (Instant::now(), |requests| Rates { requests: Some(requests), sent: None });
        let network = |name: &str, addresses: &str, requests| {
            let addresses = addresses.parse().expect("networks");
            NetworkRates::new(name.into(), addresses, rate(requests), clock)
        };
        let options = |own| PolicyOptions {
            rates: own,
            networks: [network("wide", "10.0.0.0/8", 100), network("narrow", "10.1.0.0/16", 50)].into(),
            ..PolicyOptions::default()
        };
        let peer = |address: &str| Peer::new(1, address.into());
        let wait = |policy: &Policy, client: &Peer, requests| {
            let options = policy.with_rates_for(client)?;
            let answered = Answered { requests, sent: 0 };
            let (wait, network) = policy.count_answered(&options, client, answered, clock)?;
            Some((wait.as_millis(), network.map(|network| network.name().to_string())))
        };
        let policy = Policy::new(options(Rates::default()));
        let (in_both, in_one) = (peer("10.1.0.1:1"), peer("10.2.0.1:1"));
        assert_eq!(wait(&policy, &in_both, 40), None);
        assert_eq!(wait(&policy, &in_both, 40), Some((600, Some("narrow".into()))));
        // The other one's debt has all of it, too.
        assert_eq!(wait(&policy, &in_one, 40), Some((200, Some("wide".into()))));
        for outside in [peer("11.0.0.1:1"), peer("./zeo.sock")] {
            assert!(policy.with_rates_for(&outside).is_none(), "{outside:?}");
        }
        // The rates of its own address count besides.
        policy.set(options(rate(20)));
        assert_eq!(wait(&policy, &in_both, 30), Some((500, None)));
        assert_eq!(wait(&policy, &in_one, 30), Some((500, None)), "an address of its own");
    }
}
