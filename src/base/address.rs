//! Where a server listens or a log line goes: a TCP host and port, or the path of a Unix socket.
//!
//! The text forms are ZConfig's: `PORT`, `HOST`, `HOST:PORT`, `:PORT`, `[IPV6]:PORT`, and a path, which
//! is anything with a slash in it. No name is looked up here.

use std::fmt;
use std::path::PathBuf;

/// An address as configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    Tcp {
        /// `None`: every interface (when binding).
        host: Option<String>,
        /// `None`: whatever the use of the address takes for it; a server takes any free port.
        port: Option<u16>,
    },
    Unix(PathBuf),
}

impl Address {
    /// As Python shows it: `('localhost', 8100)` or `'./socket'`.
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

/// In the form that is also read: `[::1]:8100`, `:8100`, `localhost`, `./socket`.
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
}
