//! The hosts of a connection string: lists of names, addresses and ports that belong together.

use std::net::IpAddr;

use super::error::DsnError;
use super::keys::Settings;

/// The directory of the socket, if no host is given: Debian's.
pub const DEFAULT_SOCKET_DIR: &str = "/var/run/postgresql";
const DEFAULT_PORT: u16 = 5432;
/// Upper bound on the hosts of a string.
const HOSTS_MAX: usize = 1000;

/// One of the hosts, tried in their order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// A name, an address, or the directory of a Unix socket. It begins with `/`, or with `@` for a socket without a
    /// file.
    pub host: String,
    /// The address, if the name must not be looked up.
    pub address: Option<IpAddr>,
    pub port: u16,
}

impl Host {
    /// The path of the socket, if it is a Unix socket.
    pub fn socket_path(&self) -> Option<String> {
        let is_unix = self.address.is_none() && self.host.starts_with(['/', '@']);
        is_unix.then(|| format!("{}/.s.PGSQL.{}", self.host, self.port))
    }
}

/// The hosts in their order; at least one.
pub fn parse(settings: &Settings) -> Result<Vec<Host>, DsnError> {
    let list = |key: &str| settings.get(key).map(|text| text.split(',').collect::<Vec<_>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    if count > HOSTS_MAX {
        return Err(settings.wrong("host", format_args!("{count} hosts; at most {HOSTS_MAX} are taken")));
    }
    if let Some(names) = &names
        && names.len() != count
    {
        let names = names.len();
        return Err(settings.wrong("hostaddr", format_args!("{count} addresses for {names} hosts")));
    }
    let ports = ports.unwrap_or_else(|| vec![""]);
    if ports.len() != 1 && ports.len() != count {
        let ports = ports.len();
        return Err(settings.wrong("port", format_args!("{ports} ports for {count} hosts")));
    }
    let one = |at: usize| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or_default();
        let name = names.as_ref().and_then(|names| names.get(at)).copied().unwrap_or_default();
        let address = addresses.as_ref().and_then(|addresses| addresses.get(at)).copied().unwrap_or_default();
        Ok(Host {
            host: match (name, address) {
                ("", "") => DEFAULT_SOCKET_DIR.to_string(),
                ("", address) => address.to_string(),
                (name, _) => name.to_string(),
            },
            address: match address {
                "" => None,
                address => Some(
                    address
                        .parse()
                        .map_err(|_| settings.wrong("hostaddr", "not an address of IPv4 or IPv6"))?,
                ),
            },
            port: parse_port(port).ok_or_else(|| settings.wrong("port", "not a number from 1 to 65535"))?,
        })
    };
    (0..count).map(one).collect()
}

fn parse_port(text: &str) -> Option<u16> {
    match text.trim() {
        "" => Some(DEFAULT_PORT),
        text => text.parse().ok().filter(|port| *port > 0),
    }
}
