//! Password files: `~/.pgpass`.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::Secret;

const FILE_LEN_MAX: u64 = 1 << 20;

/// What a line must be for.
#[derive(Clone, Copy, Debug)]
pub struct Connecting<'a> {
    /// `localhost` for the usual Unix socket.
    pub host: &'a str,
    pub port: u16,
    pub dbname: &'a str,
    pub user: &'a str,
}

/// The password of the first line that fits. As with libpq, a file that others may read is not used, with a line in the
/// log, and a file that is not there has no lines.
pub fn find(file: &Path, wanted: Connecting<'_>) -> Option<Secret> {
    let warn = |why: &str| {
        log::warn!(target: super::super::session::LOG, "the password file {} is not used: {why}", file.display());
    };
    // The descriptor, so that what is checked is what is read.
    let opened = fs::File::open(file).ok()?;
    let meta = opened.metadata().ok()?;
    if !meta.is_file() {
        warn("it is not a file");
        return None;
    }
    if meta.mode() & 0o077 != 0 {
        warn("others than its owner may use it; chmod 600");
        return None;
    }
    let mut bytes = Vec::new();
    if let Err(error) = opened.take(FILE_LEN_MAX).read_to_end(&mut bytes) {
        warn(&error.to_string());
        return None;
    }
    bytes.split(|byte| *byte == b'\n').find_map(|line| password(line, wanted))
}

/// The password of a line, if the line is for this connection.
fn password(line: &[u8], wanted: Connecting<'_>) -> Option<Secret> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.starts_with(b"#") {
        return None;
    }
    let port = wanted.port.to_string();
    let mut rest = line;
    for field in [wanted.host, &port, wanted.dbname, wanted.user] {
        rest = after_field(rest, field.as_bytes())?;
    }
    let mut bytes = rest.iter();
    let mut found = Vec::new();
    while let Some(byte) = bytes.next() {
        // A backslash at the end stands for itself.
        found.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    (!found.is_empty()).then(|| String::from_utf8(found).ok().map(Secret))?
}

/// What follows the first field, if the field is `*` or this text.
fn after_field<'a>(line: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let (mut bytes, mut wanted) = (line, wanted);
    loop {
        bytes = match bytes {
            [b':', rest @ ..] => return wanted.is_empty().then_some(rest),
            [b'\\', rest @ ..] if !rest.is_empty() => rest,
            _ => bytes,
        };
        let (byte, rest) = bytes.split_first()?;
        (wanted, bytes) = (wanted.strip_prefix(&[*byte])?, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_is_used() {
        let wanted = Connecting { host: "db.example", port: 5432, dbname: "zodb", user: "zope" };
        let found = |line: &str| password(line.as_bytes(), wanted).map(|found| found.0);
        let is = |line: &str, expected: &str| assert_eq!(found(line).as_deref(), Some(expected), "{line}");
        is("db.example:5432:zodb:zope:secret", "secret");
        is("*:*:*:*:a:b", "a:b");
        is(r"*:*:zodb:*:a\:b\\c", r"a:b\c");
        is(r"db\.example:*:*:zope:x\", r"x\");
        is("*:*:*:*:x\r", "x");
        for line in ["", "#*:*:*:*:x", "db.example:5432:zodb:zope", "*:*:*:*:", "db:*:*:*:x", "*:5433:*:*:x"]
        {
            assert_eq!(found(line), None, "{line}");
        }
        let colon = Connecting { host: "a:b", ..wanted };
        assert_eq!(password(br"a\:b:*:*:*:x", colon), Some(Secret("x".into())));
    }
}
