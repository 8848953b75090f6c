//! Networks of IP addresses, as `10.0.0.0/8`, `2001:db8::/32`, or one address.
//!
//! IPv4 addresses that are written as IPv6 (`::ffff:10.1.2.3`) are IPv4 addresses here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses whose first bits are those of one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    /// The bits after the prefix are 0.
    first: IpAddr,
    /// Number of bits: at most 32 or 128.
    prefix: u32,
}

/// Any number of networks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Networks(Vec<Network>);

impl Network {
    /// Whether the address is one of the network's.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => first == v4_prefix(address, self.prefix),
            (IpAddr::V6(first), IpAddr::V6(address)) => first == v6_prefix(address, self.prefix),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether every address of the other network is one of this network's.
    pub fn covers(&self, other: &Network) -> bool {
        self.prefix <= other.prefix && self.contains(other.first)
    }
}

fn v4_prefix(address: Ipv4Addr, prefix: u32) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn v6_prefix(address: Ipv6Addr, prefix: u32) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

impl FromStr for Network {
    type Err = String;

    /// The error says what is wrong with the text, and what to write instead.
    fn from_str(text: &str) -> Result<Network, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err("is no IP address and no network; write 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32".into());
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            None => bits,
            Some(text) => match Some(text).filter(is_number).and_then(|text| text.parse().ok()) {
                Some(prefix) if prefix <= bits => prefix,
                _ => return Err(format!("has no number of bits between 0 and {bits} after the slash")),
            },
        };
        let first = match address {
            IpAddr::V4(address) => IpAddr::V4(v4_prefix(address, prefix)),
            IpAddr::V6(address) => IpAddr::V6(v6_prefix(address, prefix)),
        };
        if first != address {
            return Err(format!(
                "has bits after its first {prefix}; the network is {first}/{prefix}, the address is {address}"
            ));
        }
        Ok(match first.to_canonical() {
            IpAddr::V4(v4) if first.is_ipv6() && prefix >= 96 => {
                Network { first: IpAddr::V4(v4), prefix: prefix - 96 }
            }
            _ => Network { first, prefix },
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.first.is_ipv4() { 32 } else { 128 };
        match self.prefix == bits {
            true => self.first.fmt(f),
            false => write!(f, "{}/{}", self.first, self.prefix),
        }
    }
}

impl Networks {
    /// Whether the address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Networks {
    type Err = String;

    /// Networks with blanks between them.
    fn from_str(text: &str) -> Result<Networks, String> {
        let network = |word: &str| word.parse().map_err(|why| format!("'{word}' {why}"));
        let networks: Vec<Network> = text.split_whitespace().map(network).collect::<Result<_, String>>()?;
        match networks.is_empty() {
            true => Err("there is no network; write addresses or networks, with blanks between them".into()),
            false => Ok(Networks(networks)),
        }
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{network}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap_or_else(|why| panic!("{text} {why}"))
    }

    #[test]
    fn an_address_is_in_its_networks() {
        for (text, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["9.255.255.255", "11.0.0.0", "::a00:1"][..],
            ),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
            ("192.168.1.128/25", &["192.168.1.128", "192.168.1.255"], &["192.168.1.127", "192.168.2.128"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1"]),
            ("2001:db8::/32", &["2001:db8::", "2001:db8:ffff::1"], &["2001:db7::1", "2001:db9::", "1.2.3.4"]),
            ("::/0", &["::1", "2001:db8::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.9.8.7", "::ffff:10.9.8.7"], &["11.0.0.1"]),
        ] {
            let found = network(text);
            for address in inside {
                assert!(found.contains(address.parse().expect("an address")), "{address} in {text}");
            }
            for address in outside {
                assert!(!found.contains(address.parse().expect("an address")), "{address} not in {text}");
            }
        }
    }

    #[test]
    fn what_is_written_is_shown() {
        for text in ["10.0.0.0/8", "10.1.2.3", "::1", "2001:db8::/32", "0.0.0.0/0", "::/0"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("10.1.2.3/32").to_string(), "10.1.2.3");
        let both = "10.0.0.0/8  ::1".parse::<Networks>().expect("networks");
        assert_eq!(both.to_string(), "10.0.0.0/8 ::1");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("10.0.0.1/8", "has bits after its first 8; the network is 10.0.0.0/8, the address is 10.0.0.1"),
            ("10.0.0.0/33", "has no number of bits between 0 and 32 after the slash"),
            ("10.0.0.0/", "has no number of bits between 0 and 32 after the slash"),
            ("10.0.0.0/+8", "has no number of bits between 0 and 32 after the slash"),
            ("::/129", "has no number of bits between 0 and 128 after the slash"),
            ("localhost", "is no IP address and no network; write 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32"),
            ("10.1", "is no IP address and no network; write 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32"),
        ] {
            assert_eq!(text.parse::<Network>(), Err(why.into()), "{text}");
        }
        assert!(" ".parse::<Networks>().is_err());
    }

    #[test]
    fn a_network_covers_those_in_it() {
        assert!(network("10.0.0.0/8").covers(&network("10.1.0.0/16")));
        assert!(network("10.0.0.0/8").covers(&network("10.0.0.0/8")));
        assert!(!network("10.1.0.0/16").covers(&network("10.0.0.0/8")));
        assert!(!network("0.0.0.0/0").covers(&network("::1")));
    }
}
