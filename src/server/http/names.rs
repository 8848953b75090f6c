//! The names under which a server is asked over HTTP without TLS, so that no web page reads its answers through the
//! browser of an operator (DNS rebinding).
//!
//! A page of `attacker.example` may have its name resolve to this server once it is loaded. To the browser its requests
//! are then those of a page to its own site: nothing is in them that another program does not send, or that the page
//! could not choose, but the name in `Host`, which the browser writes. That is the attacker's, which must be resolved
//! by the public DNS. So answered are addresses, names without a dot, which nobody has in the public DNS, the names of
//! the machine and of the configured address, and those that are configured. A program that sends no name is no
//! browser.
//!
//! Over TLS the browser compares the name with the certificate, and a Unix socket is for no browser.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The names with a dot that are answered, in lower case and without a dot at the end.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OwnNames(BTreeSet<String>);

impl OwnNames {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> OwnNames {
        OwnNames(names.into_iter().map(plain).collect())
    }

    /// Whether a request for this host, which may have a port, is for this server.
    pub fn answer(&self, host: &str) -> bool {
        if let Some(rest) = host.strip_prefix('[') {
            return rest.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
        }
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        let name = plain(name);
        let is_single = !name.is_empty() && !name.contains('.');
        is_single || name.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_is_not_answered() {
        let own = OwnNames::new(["ZEO1.example.org", "status.example.org."]);
        for host in [
            "127.0.0.1:8101",
            "10.1.2.3",
            "[::1]:8101",
            "[fe80::1]",
            "localhost:8101",
            "LOCALHOST",
            "zeo",
            "zeo1.example.org:8101",
            "zeo1.EXAMPLE.org.",
            "status.example.org",
        ] {
            assert!(own.answer(host), "{host}");
        }
        for host in [
            "",
            ":8101",
            ".",
            "attacker.example",
            "attacker.example:8101",
            "127.0.0.1.attacker.example",
            "zeo1.example.org.attacker.example",
            "xzeo1.example.org",
            "example.org",
            "[attacker.example]",
            "[::1",
            "127.0.0.1@attacker.example",
            "..",
        ] {
            assert!(!own.answer(host), "{host}");
        }
    }
}
