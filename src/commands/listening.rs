//! The addresses at which a server's clients connect: binding them, all or none, and what holds at each.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::time::Instant;

use super::failure::Failure;
use crate::auth::Protocols;
use crate::base::sync::Arc;
use crate::config::{Config, HttpConfig, ListenerConfig, SslConfig, ZEO_SOCKETS, ZeoConfig};
use crate::net::listen::{self, Bound, Endpoint, ListenError, Listener, SocketAccess};
use crate::net::tls::Tls;
use crate::process::activation::Passed;
use crate::server::access::AccessRules;
use crate::server::policy::{Authentication, PolicyOptions};
use crate::server::rates::NetworkRates;

/// Python's logger for messages about the process.
const RUNZEO: &str = "ZEO.runzeo";

/// The certificates of all listeners, `<http>` included. Those with the same section share them.
pub(super) struct Certificates(Vec<(SslConfig, Arc<Tls>)>);

impl Certificates {
    /// Reads the certificates and keys of all `<ssl>` sections.
    pub(super) fn load(
        listeners: &[ListenerConfig],
        http: Option<&HttpConfig>,
    ) -> Result<Certificates, Failure> {
        let mut loaded = Certificates(Vec::new());
        let of_listeners = listeners.iter().filter_map(|listener| listener.ssl.as_ref());
        for ssl in of_listeners.chain(http.and_then(|http| http.ssl.as_ref())) {
            if loaded.of(ssl).is_none() {
                let failed = |error| Failure::outside(format!("{}: {error}", ssl.location));
                let tls = Tls::load(ssl.files.clone()).map_err(failed)?;
                loaded.0.push((ssl.clone(), Arc::new(tls)));
            }
        }
        Ok(loaded)
    }

    /// Those of a listener.
    pub(super) fn of_listener(&self, config: &ListenerConfig) -> Option<Arc<Tls>> {
        config.ssl.as_ref().and_then(|ssl| self.of(ssl))
    }

    /// Those of `<http>`.
    pub(super) fn of_http(&self, config: &HttpConfig) -> Option<Arc<Tls>> {
        config.ssl.as_ref().and_then(|ssl| self.of(ssl))
    }

    fn of(&self, ssl: &SslConfig) -> Option<Arc<Tls>> {
        self.0.iter().find(|(known, _)| known == ssl).map(|(_, tls)| Arc::clone(tls))
    }

    /// Reads certificates and keys again after their renewal, for later connections.
    pub(super) fn reload(&self) {
        for (ssl, tls) in &self.0 {
            if let Err(error) = tls.reload() {
                // With one section there is no doubt which it is.
                let which = if self.0.len() > 1 { format!("{}: ", ssl.location) } else { String::new() };
                log::error!(
                    target: RUNZEO,
                    "{which}the renewed certificates cannot be used, those that were read before stay in use: {error}"
                );
            }
        }
    }
}

/// Reads the password file.
pub(super) fn authentication(
    protocols: &Protocols,
    zeo: &ZeoConfig,
) -> Result<Option<Arc<Authentication>>, Failure> {
    let Some(config) = &zeo.authentication else { return Ok(None) };
    let protocol = protocols
        .get(&config.protocol)
        .and_then(|kind| (kind.open)(&config.settings))
        .map_err(|message| Failure::outside(format!("{}: {message}", config.location)))?;
    Ok(Some(Arc::new(Authentication { name: config.protocol.clone(), protocol })))
}

/// The addresses of a server, bound but not listening.
pub(super) struct BoundListeners<'a>(Vec<(&'a ListenerConfig, Bound)>);

/// An address at which the kernel accepts connections. The file of a Unix socket is unlinked when this is dropped.
pub(super) struct OpenListener<'a> {
    pub config: &'a ListenerConfig,
    pub sockets: Vec<Listener>,
    pub files: UnixSockets,
}

/// Binds all addresses. Sockets that the service manager has passed take the place of some.
pub(super) fn bind(listeners: &[ListenerConfig], passed: Vec<Passed>) -> Result<BoundListeners<'_>, Failure> {
    let mut inherited = inherited(listeners, passed)?;
    let own = listeners.iter().enumerate().filter(|(index, _)| !inherited.is_taken(*index));
    own.map(|(_, listener)| listener).try_for_each(|listener| check_unused(listeners, listener))?;
    let mut bound = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let one = match inherited.take(index) {
            Inherited::Nothing => bind_own(listeners, listener)?,
            Inherited::Sockets(sockets) => {
                warn_of_access(listener);
                Bound::Inherited(sockets)
            }
            Inherited::Replaced => Bound::Inherited(Vec::new()),
        };
        bound.push((listener, one));
    }
    Ok(BoundListeners(bound))
}

/// Binds further addresses of a server that runs: all of them or none. `all`: all addresses that it is to have.
pub(super) fn bind_more<'a>(
    more: &[&'a ListenerConfig],
    all: &[ListenerConfig],
) -> Result<BoundListeners<'a>, Failure> {
    more.iter().try_for_each(|listener| check_unused(all, listener))?;
    let bound = more.iter().map(|listener| Ok((*listener, bind_own(all, listener)?)));
    bound.collect::<Result<_, Failure>>().map(BoundListeners)
}

/// Two servers may share a port without an error from the kernel (one on `::`, one on 127.0.0.1).
fn check_unused(all: &[ListenerConfig], listener: &ListenerConfig) -> Result<(), Failure> {
    match listen::is_in_use(&listener.address) {
        true => Err(cannot_listen(all, listener, ListenError::InUse)),
        false => Ok(()),
    }
}

fn bind_own(all: &[ListenerConfig], listener: &ListenerConfig) -> Result<Bound, Failure> {
    let group = listener.socket_group.as_ref().map(|group| group.id);
    let access = SocketAccess { mode: listener.socket_mode, group };
    listen::bind(&listener.address, access).map_err(|error| cannot_listen(all, listener, error))
}

fn warn_of_access(listener: &ListenerConfig) {
    let mode = listener.socket_mode.map(|_| "socket-mode");
    let group = listener.socket_group.as_ref().map(|_| "socket-group");
    for key in mode.into_iter().chain(group) {
        log::warn!(target: RUNZEO, "{key} has no effect: the socket is the service manager's");
    }
}

impl<'a> BoundListeners<'a> {
    /// From now on the kernel accepts connections at all of them.
    pub(super) fn listen(
        self,
        all: &[ListenerConfig],
        certificates: &Certificates,
    ) -> Result<Vec<OpenListener<'a>>, Failure> {
        let open = |(config, bound): (&'a ListenerConfig, Bound)| {
            let sockets = bound.listen().map_err(|error| cannot_listen(all, config, error))?;
            let tls = certificates.of_listener(config);
            sockets.iter().for_each(|listener| listener.set_tls(tls.clone()));
            let mut files = UnixSockets::default();
            files.add(&sockets);
            Ok(OpenListener { config, sockets, files })
        };
        self.0.into_iter().map(open).collect()
    }
}

/// What the policies of all listeners have in common.
pub(super) struct Common {
    authentication: Option<Arc<Authentication>>,
    /// The rules of the storages that have some.
    access: Arc<BTreeMap<String, AccessRules>>,
    networks: Arc<[NetworkRates]>,
}

impl Common {
    /// `before`: what was in use. The clients of a network that stays have asked for what they have asked for.
    pub(super) fn new(
        config: &Config,
        authentication: Option<Arc<Authentication>>,
        now: Instant,
        before: Option<&Common>,
    ) -> Common {
        let others = before.map(|before| &*before.networks).unwrap_or_default();
        let networks = config.networks.iter().map(|network| {
            let rates = NetworkRates::new(network.name(), network.addresses.clone(), network.rates, now);
            rates.continued(others)
        });
        Common {
            authentication,
            access: Arc::new(config.access.0.clone()),
            networks: networks.collect::<Vec<_>>().into(),
        }
    }

    /// The authentication that is demanded at the listeners with passwords.
    pub(super) fn authentication(&self) -> Option<&Arc<Authentication>> {
        self.authentication.as_ref()
    }

    /// What holds at an address.
    pub(super) fn policy(&self, config: &ListenerConfig) -> PolicyOptions {
        PolicyOptions {
            authentication: self.authentication.clone().filter(|_| config.passwords),
            read_only: config.read_only,
            storages: config.storages.as_ref().map(|names| names.iter().cloned().collect()),
            allow: config.allow.clone(),
            proxies: config.proxies.clone(),
            access: Arc::clone(&self.access),
            connections: config.connections,
            rates: config.rates,
            networks: Arc::clone(&self.networks),
            low_priority: config.low_priority,
            demands_certificates: config.ssl.is_some(),
            has_gone: false,
        }
    }
}

/// Logs the address. One address may have a socket for each IP version.
pub(super) fn log_listening(config: &ListenerConfig, listeners: &[Listener]) {
    let Some(first) = listeners.first() else { return };
    let section = config.section.as_ref().map(|section| format!(" ({section})")).unwrap_or_default();
    log::info!(target: "ZEO.zrpc", "({}) listening on {}{section}", process::id(), first.endpoint);
}

/// Why an address cannot be listened on. With several of them the message names the place of this one.
fn cannot_listen(all: &[ListenerConfig], listener: &ListenerConfig, error: ListenError) -> Failure {
    let ListenerConfig { address, section, location, .. } = listener;
    let place = match all {
        [_] => String::new(),
        _ => format!("{location}: {}: ", section.as_deref().unwrap_or("<zeo>")),
    };
    match error {
        ListenError::InUse => {
            Failure { code: 2, message: format!("{place}address {} already in use", address.python_repr()) }
        }
        ListenError::Io(error) => Failure::outside(format!("{place}can't listen on {address}: {error}")),
    }
}

/// The sockets of the service manager that take the place of a listener's address.
enum Inherited {
    /// None: the address is bound.
    Nothing,
    Sockets(Vec<Listener>),
    /// Those of an earlier address take the place of this one, too.
    Replaced,
}

/// One entry for each listener.
struct AllInherited(Vec<Inherited>);

impl AllInherited {
    fn is_taken(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|one| !matches!(one, Inherited::Nothing))
    }

    fn take(&mut self, index: usize) -> Inherited {
        self.0.get_mut(index).map_or(Inherited::Nothing, |one| std::mem::replace(one, Inherited::Nothing))
    }

    fn add(&mut self, index: usize, listener: Listener) {
        match self.0.get_mut(index) {
            Some(Inherited::Sockets(sockets)) => sockets.push(listener),
            Some(other) => *other = Inherited::Sockets(vec![listener]),
            None => {}
        }
    }
}

/// The sockets with the name of a `<listen>` section are for that section. Of the others, those that are called `zeo`
/// take the place of all addresses of `<zeo>`, or else the first and all of its name. The rest is closed.
fn inherited(listeners: &[ListenerConfig], passed: Vec<Passed>) -> Result<AllInherited, Failure> {
    let mut all = AllInherited(listeners.iter().map(|_| Inherited::Nothing).collect());
    let section = |passed: &Passed| {
        let name = passed.name.to_lowercase();
        listeners.iter().position(|listener| listener.name() == Some(&name))
    };
    let first = passed.iter().find(|passed| section(passed).is_none());
    let has_zeo = passed.iter().any(|passed| passed.name == ZEO_SOCKETS);
    let name = first.map(|first| if has_zeo { ZEO_SOCKETS.to_string() } else { first.name.clone() });
    let mut is_replaced = false;
    for passed in passed {
        let shown = passed.name.escape_debug();
        let index = match section(&passed) {
            Some(index) => index,
            None if Some(&passed.name) == name.as_ref() => {
                is_replaced = true;
                0
            }
            None => {
                log::warn!(
                    target: RUNZEO,
                    "the socket '{shown}' of the service manager is not used, and closed: clients are served on '{}'",
                    name.as_deref().unwrap_or_default().escape_debug()
                );
                continue;
            }
        };
        let inherited = Listener::inherited(passed.fd).map_err(|error| {
            Failure::outside(format!("the socket '{shown}' of the service manager {error}"))
        })?;
        all.add(index, inherited);
    }
    // Further addresses of `<zeo>`.
    let further = all.0.iter_mut().zip(listeners).skip(1).filter(|(_, config)| config.section.is_none());
    further.filter(|_| is_replaced).for_each(|(one, _)| *one = Inherited::Replaced);
    Ok(all)
}

/// Paths of Unix sockets, unlinked when dropped.
#[derive(Default)]
pub(super) struct UnixSockets(Vec<PathBuf>);

impl UnixSockets {
    pub(super) fn add(&mut self, listeners: &[Listener]) {
        let path = |listener: &Listener| match &listener.endpoint {
            Endpoint::Unix(path) if !listener.is_inherited() => Some(path.clone()),
            Endpoint::Unix(_) | Endpoint::Tcp { .. } => None,
        };
        self.0.extend(listeners.iter().filter_map(path));
    }
}

impl Drop for UnixSockets {
    fn drop(&mut self) {
        for path in &self.0 {
            // Another process may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}
