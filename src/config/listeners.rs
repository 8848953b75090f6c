//! Where clients connect: the addresses of `<zeo>` or of the command line, and the `<listen>` sections, each with all
//! that holds for it.

use std::path::Path;

use super::schema::listen::{ListenAccess, ListenSection, for_tcp, for_unix};
use super::zconfig::Location;
use super::zconfig::suggest::nearest;
use super::{AuthenticationConfig, ListenerConfig, NetworkConfig, SocketGroup, SslConfig, files};
use crate::base::address::Address;
use crate::server::rates::Rates;

/// The name of the service manager's sockets for the addresses of `<zeo>`.
pub const ZEO_SOCKETS: &str = "zeo";

/// What `<zeo>` says for the listeners that do not say it themselves.
#[derive(Clone, Copy)]
pub struct OfZeo<'a> {
    pub access: &'a ListenAccess,
    pub ssl: Option<&'a SslConfig>,
    pub authentication: Option<&'a AuthenticationConfig>,
    pub read_only: bool,
    pub rates: Rates,
}

/// All listeners. `storages`: the names of the storages.
pub fn listeners(
    addresses: Vec<(Address, Location)>,
    sections: Vec<ListenSection>,
    of_zeo: OfZeo<'_>,
    storages: &[&str],
) -> Result<Vec<ListenerConfig>, String> {
    let own = addresses.into_iter().map(|(address, location)| Ok(of_zeo.listener(address, location)));
    let more = sections.into_iter().map(|section| of_zeo.section(section, storages));
    let listeners: Vec<ListenerConfig> = own.chain(more).collect::<Result<_, String>>()?;
    of_zeo.check_access(&listeners)?;
    check_twice(&listeners)?;
    Ok(listeners)
}

impl OfZeo<'_> {
    /// An address with nothing of its own.
    fn listener(self, address: Address, location: Location) -> ListenerConfig {
        let ListenAccess { allow, proxies, socket_mode, socket_group } = self.access;
        let is_unix = matches!(address, Address::Unix(_));
        let group = socket_group.as_ref().map(|((name, id), _)| SocketGroup { name: name.clone(), id: *id });
        ListenerConfig {
            section: None,
            socket_mode: socket_mode.as_ref().filter(|_| is_unix).map(|(mode, _)| *mode),
            socket_group: group.filter(|_| is_unix),
            ssl: self.ssl.cloned(),
            passwords: self.authentication.is_some(),
            // `<zeo>` makes the storages read-only for all, with packs for readers as in Python.
            read_only: false,
            storages: None,
            allow: allow.as_ref().filter(|_| !is_unix).map(|(networks, _)| networks.clone()),
            proxies: proxies.as_ref().filter(|_| !is_unix).map(|(p, _)| p.clone()).unwrap_or_default(),
            connections: None,
            rates: self.rates,
            low_priority: false,
            address,
            location,
        }
    }

    fn section(self, section: ListenSection, storages: &[&str]) -> Result<ListenerConfig, String> {
        let name = section.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let shown = format!("<listen{name}>");
        if section.name.as_deref() == Some(ZEO_SOCKETS) {
            let message = "'zeo' is the name of the addresses of <zeo>; choose another one";
            return Err(format!("{}: {shown}: {message}", section.location));
        }
        let mut listener = self.listener(section.address, section.location);
        listener.section = Some(shown);
        match section.ssl_of_zeo {
            Some(location) if self.ssl.is_none() => {
                return Err(format!("{location}: ssl: there is no <ssl> section, neither here nor in <zeo>"));
            }
            _ => listener.ssl = section.ssl.unwrap_or(listener.ssl),
        }
        match section.passwords {
            Some((true, location)) if self.authentication.is_none() => {
                let message = "authentication: <zeo> has no authentication-protocol and no password file";
                return Err(format!("{location}: {message}"));
            }
            Some((passwords, _)) => listener.passwords = passwords,
            None => {}
        }
        match section.read_only {
            Some((false, location)) if self.read_only => {
                let message = "read-only: the server is read-only, so no listener can permit more; remove \
                               read-only from <zeo>, and give it to the other listeners";
                return Err(format!("{location}: {message}"));
            }
            Some((read_only, _)) => listener.read_only = read_only,
            None => {}
        }
        if let Some((names, location)) = section.storages {
            check_names(&names, &location, storages)?;
            listener.storages = Some(names);
        }
        listener.connections = section.connections.flatten().and_then(|max| usize::try_from(max).ok());
        if let Some(requests) = section.requests_per_second {
            listener.rates.requests = requests;
        }
        if let Some(sent) = section.sent_per_second {
            listener.rates.sent = sent;
        }
        if let Some((is_low, location)) = section.low_priority {
            if is_low && !listener.read_only && !self.read_only {
                let message = "priority: low is for addresses with 'read-only true': others would wait for the locks of \
                               a client that stands back";
                return Err(format!("{location}: {message}"));
            }
            listener.low_priority = is_low;
        }
        own_access(&mut listener, section.access)?;
        Ok(listener)
    }

    /// Refuses keys of `<zeo>` that fit none of the addresses.
    fn check_access(self, listeners: &[ListenerConfig]) -> Result<(), String> {
        let ListenAccess { allow, proxies, socket_mode, socket_group } = self.access;
        let has_unix = listeners.iter().any(|listener| matches!(listener.address, Address::Unix(_)));
        let has_tcp = listeners.iter().any(|listener| matches!(listener.address, Address::Tcp { .. }));
        let mode = socket_mode.as_ref().map(|(_, location)| ("socket-mode", location));
        let group = socket_group.as_ref().map(|(_, location)| ("socket-group", location));
        if let Some((key, location)) = mode.or(group).filter(|_| !has_unix) {
            return Err(format!("{location}: {}", for_unix(key)));
        }
        let allow = allow.as_ref().map(|(_, location)| ("allow", location));
        let proxies = proxies.as_ref().map(|(_, location)| ("proxy-protocol", location));
        match allow.or(proxies).filter(|_| !has_tcp) {
            Some((key, location)) => Err(format!("{location}: {}", for_tcp(key))),
            None => Ok(()),
        }
    }
}

/// Warnings about networks that no client can be in.
pub fn without_clients<'a>(
    networks: &'a [NetworkConfig],
    listeners: &[ListenerConfig],
) -> impl Iterator<Item = String> + use<'a> {
    let has_tcp = listeners.iter().any(|listener| matches!(listener.address, Address::Tcp { .. }));
    let useless = networks.iter().filter(move |_| !has_tcp);
    useless.map(|NetworkConfig { section, location, .. }| {
        format!("{location}: {section} has no clients: all addresses are Unix sockets")
    })
}

/// The section's own keys, in place of those of `<zeo>`.
fn own_access(listener: &mut ListenerConfig, access: ListenAccess) -> Result<(), String> {
    access.check(matches!(listener.address, Address::Unix(_)))?;
    let ListenAccess { allow, proxies, socket_mode, socket_group } = access;
    if let Some((networks, _)) = allow {
        listener.allow = Some(networks);
    }
    if let Some((networks, _)) = proxies {
        listener.proxies = networks;
    }
    if let Some((mode, _)) = socket_mode {
        listener.socket_mode = Some(mode);
    }
    if let Some(((name, id), _)) = socket_group {
        listener.socket_group = Some(SocketGroup { name, id });
    }
    Ok(())
}

/// Refuses names of storages that are not there.
fn check_names(names: &[String], location: &Location, storages: &[&str]) -> Result<(), String> {
    let Some(unknown) = names.iter().find(|name| !storages.contains(&name.as_str())) else { return Ok(()) };
    let suggestion = nearest(unknown, storages.iter().copied());
    let suggestion = suggestion.map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
    Err(format!("{location}: storages: there is no storage '{unknown}'{suggestion}"))
}

/// Refuses an address that is given twice, or is part of another one.
fn check_twice(listeners: &[ListenerConfig]) -> Result<(), String> {
    for (index, listener) in listeners.iter().enumerate() {
        let before = listeners.iter().take(index);
        if let Some(other) = before.clone().find(|other| is_same(&other.address, &listener.address)) {
            let ListenerConfig { address, location, .. } = listener;
            return Err(format!(
                "{location}: address {address} is given twice (first at {})",
                other.location
            ));
        }
        let parts = before.map(|other| [(other, listener), (listener, other)]);
        let part = parts.flatten().find(|(whole, part)| is_part(&whole.address, &part.address));
        if let Some((whole, part)) = part {
            return Err(format!(
                "{}: address {} is given twice: {} ({}) is every interface, this one included",
                listener.location, part.address, whole.address, whole.location
            ));
        }
    }
    Ok(())
}

fn is_same(one: &Address, other: &Address) -> bool {
    let identity = |path: &Path| files::identity(path);
    match (one, other) {
        (Address::Tcp { port: None | Some(0), .. }, _) | (_, Address::Tcp { port: None | Some(0), .. }) => {
            false
        }
        (Address::Unix(one), Address::Unix(other)) => identity(one) == identity(other),
        (one, other) => one == other,
    }
}

/// Whether the first is a port of every interface, and the second the same port of one.
fn is_part(whole: &Address, part: &Address) -> bool {
    match (whole, part) {
        (
            Address::Tcp { host: None, port: Some(whole) },
            Address::Tcp { host: Some(_), port: Some(part) },
        ) => whole == part && *whole != 0,
        _ => false,
    }
}
