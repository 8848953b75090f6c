//! The hosts of a connection string: lists of names, addresses and ports that belong together.

use std::net::{IpAddr, Ipv6Addr};

use super::error::DsnError;
use super::keys::Settings;

/// The directory of the socket, if no host is given: Debian's.
pub const DEFAULT_SOCKET_DIR: &str = "/var/run/postgresql";
pub const DEFAULT_PORT: u16 = 5432;
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

/// The servers of a list with one in each line, as in a file of RelStorage: a host, or a host and a port with a colon
/// between them. An address of IPv6 has brackets around it if a port follows. Empty lines and those that begin with `#`
/// are left out. `port`: of hosts without one.
pub fn of_lines(text: &str, port: u16) -> Result<Vec<Host>, DsnError> {
    let mut hosts = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let host = of_line(line, port);
        hosts.push(host.ok_or_else(|| DsnError(format!("line {number}: neither HOST nor HOST:PORT")))?);
    }
    match hosts.len() {
        0 => Err(DsnError("it names no server".into())),
        1..=HOSTS_MAX => Ok(hosts),
        count => Err(DsnError(format!("{count} hosts; at most {HOSTS_MAX} are taken"))),
    }
}

fn of_line(line: &str, port: u16) -> Option<Host> {
    if line.contains(|one: char| one == ',' || one.is_whitespace() || one.is_control()) {
        return None;
    }
    let (name, own_port) = match line.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            name.parse::<Ipv6Addr>().ok()?;
            (name, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None if line.parse::<Ipv6Addr>().is_ok() => (line, None),
        None => line.split_once(':').map_or((line, None), |(name, port)| (name, Some(port))),
    };
    let port = match own_port {
        None => port,
        Some("") => return None,
        Some(text) => parse_port(text)?,
    };
    (!name.is_empty()).then(|| Host { host: name.into(), address: None, port })
}

fn parse_port(text: &str) -> Option<u16> {
    match text.trim() {
        "" => Some(DEFAULT_PORT),
        text => text.parse().ok().filter(|port| *port > 0),
    }
}
