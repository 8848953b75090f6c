//! Words and numbers as the commands print them, and as Python does.

use std::fmt::Write as _;

use super::selection::{OfServer, OpenedFile};
use crate::base::ids::{Oid, Tid};
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::inspect::show;
use crate::storage::file::FileFormat;

/// Bytes of a user or a description that are shown to people.
const SHOWN_MAX: usize = 200;

/// Text from the file for people: on one line, without what a terminal would execute, cut if it is long.
pub(super) fn shown(bytes: &[u8]) -> String {
    one_line(SHOWN_MAX, format_args!("{}", show::text(bytes)))
}

/// The first line of a report about a server: its protocol, the length of its storage, and the last transaction.
pub(super) fn server_line(name: &str, server: &OfServer) -> String {
    let OfServer { protocol, size, last } = server;
    let last = match *last {
        Tid::ZERO => "no transactions".into(),
        last => format!("up to {} {last}", timestamp(last)),
    };
    format!("{name}: a server of protocol {protocol}, {} bytes, {last}", grouped(*size))
}

/// The first line of a report: the file, its format and its length; or the server.
pub(super) fn file_line(file: &OpenedFile) -> String {
    if let Some(server) = &file.of_server {
        return server_line(&file.name, server);
    }
    let format = match file.data.format() {
        FileFormat::FS21 => "FS21 (Python 2)",
        FileFormat::FS30 => "FS30 (Python 3)",
    };
    let used = file.holder.map_or_else(String::new, |pid| format!(", in use by process {pid}"));
    format!("{}: {format}, {} bytes{used}", file.name, grouped(file.data.end()))
}

/// `2026-11-28 03:13:14.854259`, as Python's TimeStamp.
pub(super) fn timestamp(tid: Tid) -> String {
    let at = tid.to_civil();
    format!("{:04}-{:02}-{:02} {:02}:{:02}:{:09.6}", at.year, at.month, at.day, at.hour, at.minute, at.second)
}

/// Python's `oid_repr`: hexadecimal digits in pairs, without leading pairs of zeros.
pub(super) fn oid_repr(oid: Oid) -> String {
    let digits = format!("{:x}", oid.0);
    if digits.len() % 2 == 1 { format!("0x0{digits}") } else { format!("0x{digits}") }
}

/// Python's `repr` of a `str` of Python 2, or of `bytes` without the `b`.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut text = String::from(quote);
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            _ if char::from(byte) == quote => text.extend(['\\', quote]),
            b' '..=b'~' => text.push(byte.into()),
            // Writing to a text does not fail.
            _ => _ = write!(text, "\\x{byte:02x}"),
        }
    }
    text.push(quote);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_writes_it() {
        for (bytes, expected) in [
            (&b""[..], "''"),
            (b"it's", "\"it's\""),
            (b"it's \"x\"", "'it\\'s \"x\"'"),
            (b"a\\b\t\n\r\0\x7f\xff", "'a\\\\b\\t\\n\\r\\x00\\x7f\\xff'"),
        ] {
            assert_eq!(quoted(bytes), expected);
        }
        for (oid, expected) in [(0, "0x00"), (1, "0x01"), (0x123, "0x0123"), (u64::MAX, "0xffffffffffffffff")]
        {
            assert_eq!(oid_repr(Oid(oid)), expected);
        }
        assert_eq!(timestamp(Tid(0x03d5_c1f0_ffff_ffff)), "2020-02-10 21:04:60.000000");
    }

    #[test]
    fn nothing_from_the_file_reaches_the_terminal_as_a_command() {
        assert_eq!(shown(b"a\x1b[2J\n"), "a\\u{1b}[2J\\n");
        assert!(shown(&[b'x'; 100_000]).len() < 300);
    }
}
