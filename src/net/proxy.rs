//! The header that a proxy sends in front of a connection: the address of its client (PROXY protocol of HAProxy,
//! versions 1 and 2).
//!
//! Nothing behind the header is read: what follows belongs to the client. Version 1 is read byte by byte, at most
//! [`V1_LEN_MAX`] of them; of version 2 the length is given. Only a proxy that the configuration names may send one.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First bytes of version 1.
const V1_START: &[u8] = b"PROXY ";
/// Longest header of version 1, with its line end.
const V1_LEN_MAX: usize = 107;
/// First bytes of version 2.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Shorter than any header of version 1, so both versions have as many bytes.
const START_LEN: usize = V2_SIGNATURE.len();
/// Version, command, family and length, after the signature of version 2.
const V2_REST_LEN: usize = 4;
/// Addresses and ports of version 2: of IPv4, and of IPv6.
const V2_TCP4_LEN: usize = 4 + 4 + 2 + 2;
const V2_TCP6_LEN: usize = 16 + 16 + 2 + 2;

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The client has this address.
    Client(SocketAddr),
    /// The proxy does not say: the connection is its own, as for a health check (`LOCAL`), or it does not know
    /// (`UNKNOWN`).
    Unsaid,
}

/// Why there is no header.
#[derive(Debug)]
pub enum HeaderError {
    /// The peer closed the connection before it sent anything: a probe.
    Silent,
    /// The peer closed the connection in the middle of the header, or the network failed.
    Gone(io::Error),
    /// What is wrong with it.
    Bad(String),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Silent => f.write_str("the proxy closed the connection before it sent anything"),
            HeaderError::Gone(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the proxy closed the connection in the middle of the header")
            }
            HeaderError::Gone(error) => write!(f, "the connection broke: {error}"),
            HeaderError::Bad(why) => f.write_str(why),
        }
    }
}

type Result<T> = std::result::Result<T, HeaderError>;

fn bad<T>(why: impl Into<String>) -> Result<T> {
    Err(HeaderError::Bad(why.into()))
}

/// Reads a header. `recv` waits for bytes and returns how many there are; 0 is the end of the stream.
pub fn read(mut recv: impl FnMut(&mut [u8]) -> io::Result<usize>) -> Result<Origin> {
    let mut start = [0; START_LEN];
    match fill(&mut recv, &mut start) {
        Ok(START_LEN) => {}
        Ok(0) => return Err(HeaderError::Silent),
        Ok(_) => return Err(HeaderError::Gone(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => return Err(HeaderError::Gone(error)),
    }
    if start == *V2_SIGNATURE {
        version_2(&mut recv)
    } else if start.starts_with(V1_START) {
        version_1(&mut recv, &start)
    } else {
        bad("it does not begin with the header of the PROXY protocol; does the proxy send one (send-proxy)?")
    }
}

/// Fills the buffer. Fewer bytes: the end of the stream.
fn fill(recv: &mut impl FnMut(&mut [u8]) -> io::Result<usize>, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match recv(rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn exactly(recv: &mut impl FnMut(&mut [u8]) -> io::Result<usize>, buf: &mut [u8]) -> Result<()> {
    match fill(recv, buf) {
        Ok(count) if count == buf.len() => Ok(()),
        Ok(_) => Err(HeaderError::Gone(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(HeaderError::Gone(error)),
    }
}

/// `PROXY TCP4 192.0.2.1 192.0.2.9 56324 8100` and a line end.
fn version_1(recv: &mut impl FnMut(&mut [u8]) -> io::Result<usize>, start: &[u8]) -> Result<Origin> {
    let mut line = Vec::with_capacity(V1_LEN_MAX);
    line.extend_from_slice(start);
    while !line.ends_with(b"\r\n") {
        if line.len() >= V1_LEN_MAX {
            return bad(format!("its line is longer than {V1_LEN_MAX} bytes"));
        }
        let mut byte = [0];
        exactly(recv, &mut byte)?;
        line.extend_from_slice(&byte);
    }
    let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let words: Vec<&str> = text.unwrap_or_default().split(' ').collect();
    match words.as_slice() {
        // The rest of the line, if there is one, has no meaning.
        ["PROXY", "UNKNOWN", ..] => Ok(Origin::Unsaid),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |text: &str| -> Option<IpAddr> {
                match *family {
                    "TCP4" => text.parse().ok().map(IpAddr::V4),
                    _ => text.parse().ok().map(IpAddr::V6),
                }
            };
            match (address(source), address(destination), port(source_port), port(destination_port)) {
                (Some(ip), Some(_), Some(port), Some(_)) => Ok(Origin::Client(SocketAddr::new(ip, port))),
                _ => bad(format!("its addresses or ports are not those of {family}")),
            }
        }
        _ => bad("its line is not PROXY TCP4 or TCP6, two addresses and two ports"),
    }
}

/// Digits alone, unlike those that `parse` accepts.
fn port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn version_2(recv: &mut impl FnMut(&mut [u8]) -> io::Result<usize>) -> Result<Origin> {
    let mut rest = [0; V2_REST_LEN];
    exactly(recv, &mut rest)?;
    let [version_and_command, family, len @ ..] = rest;
    let len = usize::from(u16::from_be_bytes(len));
    let (version, command) = (version_and_command >> 4, version_and_command & 0xf);
    if version != 2 {
        return bad(format!("its version is {version}, not 2"));
    }
    let (addresses_len, what) = match (command, family) {
        // LOCAL; the family has no meaning.
        (0, _) | (1, 0x00) => (0, "no address"),
        (1, 0x11) => (V2_TCP4_LEN, "addresses of IPv4"),
        (1, 0x21) => (V2_TCP6_LEN, "addresses of IPv6"),
        (1, _) => return bad(format!("its family is {family:#04x}, not TCP's")),
        _ => return bad(format!("its command is {command}, not 0 or 1")),
    };
    if len < addresses_len {
        return bad(format!("its length is {len} bytes, which is too short for {what}"));
    }
    let mut addresses = [0; V2_TCP6_LEN];
    let addresses = addresses.get_mut(..addresses_len).unwrap_or_default();
    exactly(recv, addresses)?;
    // Further fields, which nothing here needs.
    let mut left = len - addresses_len;
    let mut skipped = [0; 512];
    while left > 0 {
        let part = skipped.get_mut(..left.min(512)).unwrap_or_default();
        exactly(recv, part)?;
        left -= part.len();
    }
    Ok(match *addresses {
        [a, b, c, d, _, _, _, _, high, low, _, _] => {
            let port = u16::from_be_bytes([high, low]);
            Origin::Client(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        [.., high, low, _, _] => {
            let source = addresses.first_chunk::<16>().copied().unwrap_or_default();
            let port = u16::from_be_bytes([high, low]);
            Origin::Client(SocketAddr::new(Ipv6Addr::from(source).into(), port))
        }
        _ => Origin::Unsaid,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a header from bytes that arrive in pieces of this length; returns what is left behind it.
    fn read_pieces(bytes: &[u8], piece: usize) -> (Result<Origin>, Vec<u8>) {
        let mut left = bytes;
        let result = read(|buf| {
            let count = buf.len().min(left.len()).min(piece);
            let (now, later) = left.split_at(count);
            buf[..count].copy_from_slice(now);
            left = later;
            Ok(count)
        });
        (result, left.to_vec())
    }

    fn v2(version_and_command: u8, family: u8, len: u16, rest: &[u8]) -> Vec<u8> {
        [&V2_SIGNATURE[..], &[version_and_command, family], &len.to_be_bytes(), rest].concat()
    }

    fn good() -> Vec<(Vec<u8>, Origin)> {
        let client = |text: &str| Origin::Client(text.parse().expect("an address"));
        let four = [192, 0, 2, 1, 10, 0, 0, 9, 0x12, 0x34, 0x1f, 0xa4];
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        six[15] = 7;
        six[32..34].copy_from_slice(&[0x12, 0x34]);
        let with_fields = [&four[..], &[4, 0, 1, b'x'], &[0; 900]].concat();
        vec![
            (b"PROXY TCP4 192.0.2.1 10.0.0.9 4660 8100\r\n".to_vec(), client("192.0.2.1:4660")),
            (b"PROXY TCP6 2001:db8::7 ::1 4660 8100\r\n".to_vec(), client("[2001:db8::7]:4660")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Unsaid),
            (b"PROXY UNKNOWN what ever 1 2\r\n".to_vec(), Origin::Unsaid),
            (v2(0x21, 0x11, 12, &four), client("192.0.2.1:4660")),
            (v2(0x21, 0x21, 36, &six), client("[2001:db8::7]:4660")),
            (v2(0x21, 0x11, 916, &with_fields), client("192.0.2.1:4660")),
            (v2(0x20, 0, 0, &[]), Origin::Unsaid),
            (v2(0x20, 0x11, 12, &four), Origin::Unsaid),
            (v2(0x21, 0, 3, &[1, 2, 3]), Origin::Unsaid),
        ]
    }

    #[test]
    fn headers_are_read_to_their_last_byte() {
        for (header, origin) in good() {
            for piece in [1, 2, 13, 5000] {
                let with_more = [&header[..], b"\0\0\0\x02Z5"].concat();
                let (read, left) = read_pieces(&with_more, piece);
                assert_eq!(read.expect("a header"), origin, "{}", header.escape_ascii());
                assert_eq!(left, b"\0\0\0\x02Z5", "{}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn a_header_that_is_cut_is_none() {
        for (header, _) in good() {
            for len in 0..header.len() {
                let (read, _) = read_pieces(&header[..len], 7);
                match read {
                    Err(HeaderError::Silent) => assert_eq!(len, 0),
                    Err(HeaderError::Gone(_)) => assert!(len > 0),
                    other => panic!("{other:?}: {len} bytes of {}", header.escape_ascii()),
                }
            }
        }
    }

    #[test]
    fn a_header_with_a_changed_byte_is_another_one_or_none() {
        for (header, _) in good() {
            for at in 0..header.len() {
                for change in [1, 0x10, 0x80, 0xff] {
                    let mut changed = header.clone();
                    changed[at] ^= change;
                    changed.extend([0; 70_000]);
                    let (_, left) = read_pieces(&changed, 5000);
                    assert!(left.len() >= 70_000 - 65_600, "{at}");
                }
            }
        }
    }

    proptest! {
        /// Any bytes behind any beginning are a header or none, and no more is read than a header can have.
        #[test]
        fn any_bytes(
            start in prop_oneof![
                Just(Vec::new()),
                Just(V1_START.to_vec()),
                Just(b"PROXY TCP4 ".to_vec()),
                Just(V2_SIGNATURE.to_vec()),
                Just([&V2_SIGNATURE[..], &[0x21, 0x11, 0]].concat()),
            ],
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            piece in 1..40_usize,
        ) {
            let all = [start, bytes].concat();
            let (result, left) = read_pieces(&all, piece);
            let read_max = if all.starts_with(V2_SIGNATURE) { 16 + 65_535 } else { V1_LEN_MAX };
            prop_assert!(all.len() - left.len() <= read_max);
            if let Err(HeaderError::Silent) = result {
                prop_assert!(all.is_empty());
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let four = [0; 12];
        for (header, why) in [
            (&b"GET / HTTP/1.0\r\n\r\n"[..], "does not begin with the header"),
            (b"\0\0\0\x02Z5\0\0\0\x02Z5", "does not begin with the header"),
            (b"PROXY TCP4 192.0.2.1 10.0.0.9 4660 81000\r\n", "not those of TCP4"),
            (b"PROXY TCP4 192.0.2.1 10.0.0.9 +466 8100\r\n", "not those of TCP4"),
            (b"PROXY TCP4 2001:db8::7 ::1 4660 8100\r\n", "not those of TCP4"),
            (b"PROXY TCP6 192.0.2.1 10.0.0.9 4660 8100\r\n", "not those of TCP6"),
            (b"PROXY TCP4 localhost 10.0.0.9 4660 8100\r\n", "not those of TCP4"),
            (b"PROXY UDP4 192.0.2.1 10.0.0.9 4660 8100\r\n", "is not PROXY TCP4 or TCP6"),
            (b"PROXY TCP4 192.0.2.1 10.0.0.9 4660\r\n", "is not PROXY TCP4 or TCP6"),
            (b"PROXY TCP4  192.0.2.1 10.0.0.9 4660 8100\r\n", "is not PROXY TCP4 or TCP6"),
            (b"PROXY \xff\xff\xff\xff\xff\xff\xff\xff\r\n", "is not PROXY TCP4 or TCP6"),
            (&[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(), "longer than 107 bytes"),
            (&v2(0x11, 0x11, 12, &four), "its version is 1"),
            (&v2(0x22, 0x11, 12, &four), "its command is 2"),
            (&v2(0x21, 0x12, 12, &four), "its family is 0x12"),
            (&v2(0x21, 0x31, 216, &[0; 216]), "its family is 0x31"),
            (&v2(0x21, 0x11, 11, &four), "too short for addresses of IPv4"),
            (&v2(0x21, 0x21, 12, &four), "too short for addresses of IPv6"),
        ] {
            match read_pieces(header, 5000).0 {
                Err(HeaderError::Bad(said)) => assert!(said.contains(why), "{said}"),
                other => panic!("{other:?}: {}", header.escape_ascii()),
            }
        }
    }
}
