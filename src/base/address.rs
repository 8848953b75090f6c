//! An address to listen at or to send log lines to: a TCP host and port, or the path of a Unix socket.
//!
//! The text forms are ZConfig's: `PORT`, `HOST`, `HOST:PORT`, `:PORT`, `[IPV6]:PORT`, and a path, which
//! is anything with a slash in it. No name is looked up here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// An address as configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A host and a port.
    Tcp {
        /// `None`: every interface (when binding).
        host: Option<String>,
        /// `None`: depends on the use; a server takes any free port.
        port: Option<u16>,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// In Python's form: `('localhost', 8100)` or `'./socket'`.
    pub fn python_repr(&self) -> String {
        match self {
            Address::Tcp { host, port } => {
                let port = port.map_or("None".into(), |port| port.to_string());
                format!("('{}', {port})", host.as_deref().unwrap_or_default())
            }
            Address::Unix(path) => format!("'{}'", path.display()),
        }
    }
}

/// In the form that is also parsed: `[::1]:8100`, `:8100`, `localhost`, `./socket`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } => {
                match host {
                    Some(host) if host.contains(':') => write!(f, "[{host}]")?,
                    Some(host) => f.write_str(host)?,
                    None => {}
                }
                match port {
                    Some(port) => write!(f, ":{port}"),
                    None => Ok(()),
                }
            }
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The peers whose connections are counted together: an address of IPv4, or a /64 network of IPv6, because a customer
/// has at least that.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Host {
        match address {
            IpAddr::V4(address) => Host::V4(address),
            IpAddr::V6(address) => Host::network_of(address),
        }
    }
}

impl Host {
    fn network_of(address: Ipv6Addr) -> Host {
        match address.to_ipv4_mapped() {
            Some(address) => Host::V4(address),
            None => {
                let [a, b, c, d, ..] = address.segments();
                Host::V6([a, b, c, d])
            }
        }
    }
}

/// `10.1.2.3`, `2001:db8:1:2::/64`
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Host::V4(address) => address.fmt(f),
            Host::V6([a, b, c, d]) => write!(f, "{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_addresses() {
        let tcp = |host: Option<&str>, port| Address::Tcp { host: host.map(String::from), port };
        for (address, shown, python) in [
            (tcp(None, Some(8100)), ":8100", "('', 8100)"),
            (tcp(Some("::1"), Some(8100)), "[::1]:8100", "('::1', 8100)"),
            (tcp(Some("localhost"), None), "localhost", "('localhost', None)"),
            (Address::Unix("./sock".into()), "./sock", "'./sock'"),
        ] {
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.python_repr(), python);
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let host = |text: &str| Host::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(host("2001:db8:1:2::7"), host("2001:db8:1:2:3:4:5:6"));
        assert_ne!(host("2001:db8:1:2::7"), host("2001:db8:1:3::7"));
        assert_eq!(host("::ffff:10.1.2.3"), host("10.1.2.3"));
        assert_eq!(host("2001:db8:1:2::7").to_string(), "2001:db8:1:2::/64");
        assert_eq!(host("10.1.2.3").to_string(), "10.1.2.3");
    }
}
