//! `zeo://HOST:PORT?storage=NAME` and `zeo:///PATH?storage=NAME`: the address of a storage, as zodburi has it.

use std::time::Duration;

use crate::base::address::Address;
use crate::client::options::ClientOptions;

/// What an address begins with.
const SCHEME: &str = "zeo://";
/// The port that zodburi takes if there is none.
const PORT: u16 = 9991;
/// The longest pause between attempts to connect.
const RETRY: Duration = Duration::from_secs(2);

/// Whether this is the address of a storage and not the name of a file.
pub fn is_address(text: &str) -> bool {
    text.starts_with(SCHEME)
}

/// The client of a storage at this address. The error says what is wrong with it.
pub fn client_of(text: &str) -> Result<ClientOptions, String> {
    let wrong = |what: &str| format!("'{text}': {what}; write zeo://HOST:PORT?storage=NAME or zeo:///PATH");
    let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it is no address of a server"))?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let address = match place.strip_prefix('/') {
        Some("") => return Err(wrong("the path is missing")),
        Some(_) => Address::Unix(place.into()),
        None => tcp(place.strip_suffix('/').unwrap_or(place)).map_err(wrong)?,
    };
    let mut options = ClientOptions::new(vec![address]);
    options.name = text.into();
    options.disconnect_poll = (RETRY, RETRY);
    for item in query.split('&').filter(|item| !item.is_empty()) {
        let (key, value) = item.split_once('=').unwrap_or((item, ""));
        let value = decoded(value).ok_or_else(|| wrong(&format!("the value of '{key}' is not text")))?;
        match key {
            "storage" if !value.is_empty() => options.storage = value,
            "storage" => return Err(wrong("the storage has no name")),
            "wait_timeout" => {
                let seconds = value.parse().map_err(|_| wrong("wait_timeout is a number of seconds"))?;
                options.wait_timeout = Duration::from_secs(seconds);
            }
            _ => {
                return Err(format!(
                    "'{text}': '{key}' is not known here: 'storage' and 'wait_timeout' are. For passwords, TLS and all \
                     else write a <zeoclient> into a configuration, and give that (-C) and its name"
                ));
            }
        }
    }
    Ok(options)
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT`
fn tcp(place: &str) -> Result<Address, &'static str> {
    if place.contains('/') {
        return Err("the name of the storage is not in the path");
    }
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("a ']' is missing")?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
        }
        None => {
            let (host, port) = place.split_once(':').unwrap_or((place, ""));
            (host, Some(port))
        }
    };
    let port = match port {
        Some("") => PORT,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("the port is no port")?,
        None => return Err("the port is no port"),
    };
    match host {
        "" => Err("the host is missing"),
        host => Ok(Address::Tcp { host: Some(host.into()), port: Some(port) }),
    }
}

/// A value of a query: `%2F` is a byte, `+` a blank. `None`: it is no UTF-8.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'+', rest @ ..] => {
                bytes.push(b' ');
                rest
            }
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
                bytes.push(digit(*high) << 4 | digit(*low));
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_zodburi_has_them() {
        for (text, address, storage, seconds) in [
            ("zeo://localhost:8100", "localhost:8100", "1", 30),
            ("zeo://localhost", "localhost:9991", "1", 30),
            ("zeo://localhost:8100/?storage=main", "localhost:8100", "main", 30),
            ("zeo://[::1]:8100?storage=a%20b+c&wait_timeout=5", "[::1]:8100", "a b c", 5),
            ("zeo://[::1]", "[::1]:9991", "1", 30),
            ("zeo:///var/run/zeo.sock?wait_timeout=0&storage=x%", "/var/run/zeo.sock", "x%", 0),
        ] {
            assert!(is_address(text));
            let options = client_of(text).expect(text);
            assert_eq!(options.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), [address]);
            assert_eq!(
                (options.storage.as_str(), options.wait_timeout.as_secs()),
                (storage, seconds),
                "{text}"
            );
            options.check().expect(text);
        }
        assert!(!is_address("Data.fs") && !is_address("./zeo://x"));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, what) in [
            ("zeo://", "the host is missing"),
            ("zeo:///", "the path is missing"),
            ("zeo://:8100", "the host is missing"),
            ("zeo://a:0", "the port is no port"),
            ("zeo://a:x", "the port is no port"),
            ("zeo://[::1]8100", "the port is no port"),
            ("zeo://[::1", "a ']' is missing"),
            ("zeo://a:8100/main", "the name of the storage is not in the path"),
            ("zeo://a:8100?storage=", "the storage has no name"),
            ("zeo://a:8100?storage=%ff", "the value of 'storage' is not text"),
            ("zeo://a:8100?wait_timeout=soon", "wait_timeout is a number of seconds"),
            ("zeo://a:8100?username=x", "'username' is not known here"),
        ] {
            let error = client_of(text).expect_err(text);
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
