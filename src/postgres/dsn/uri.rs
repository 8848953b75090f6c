//! Connection strings of the form `postgresql://user:password@host:port,host:port/dbname?key=value`.

use super::error::DsnError;

const PREFIXES: &[&str] = &["postgresql://", "postgres://"];

/// What follows the scheme, if the text is an URI.
pub fn strip_scheme(text: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix))
}

/// The pairs of an URI, of which the scheme is removed. The same rules as libpq's.
pub fn parse(rest: &str) -> Result<Vec<(String, String)>, DsnError> {
    let mut pairs = Vec::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            pairs.push((key.to_string(), decode(key, value)?));
        }
        Ok(())
    };
    // A user ends at the first '@', if no '/' stands before it.
    let rest = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => {
            let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
            add("user", user)?;
            add("password", password)?;
            &rest[at + 1..]
        }
        _ => rest,
    };
    let (hosts, ports, rest) = hosts(rest)?;
    add("host", &hosts)?;
    add("port", &ports)?;
    let (dbname, query) = match rest.strip_prefix('/') {
        Some(rest) => rest.split_once('?').unwrap_or((rest, "")),
        None => ("", rest.strip_prefix('?').unwrap_or_default()),
    };
    add("dbname", dbname)?;
    parameters(query, &mut pairs)?;
    Ok(pairs)
}

/// The hosts and ports, each list with commas, and what follows them.
fn hosts(mut rest: &str) -> Result<(String, String, &str), DsnError> {
    let (mut hosts, mut ports) = (String::new(), String::new());
    loop {
        let host;
        if let Some(inside) = rest.strip_prefix('[') {
            let (address, after) = inside
                .split_once(']')
                .ok_or_else(|| wrong("an IPv6 address begins with '[' and has no ']' at its end"))?;
            if address.is_empty() {
                return Err(wrong("an IPv6 address is empty"));
            }
            if !after.is_empty() && !after.starts_with([':', '/', '?', ',']) {
                return Err(wrong(
                    "after the ']' of an IPv6 address only ':', '/', '?' and ',' are permitted",
                ));
            }
            (host, rest) = (address, after);
        } else {
            (host, rest) = rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len()));
        }
        hosts += host;
        if let Some(after) = rest.strip_prefix(':') {
            let port;
            (port, rest) = after.split_at(after.find(['/', '?', ',']).unwrap_or(after.len()));
            ports += port;
        }
        let Some(next) = rest.strip_prefix(',') else { return Ok((hosts, ports, rest)) };
        rest = next;
        hosts.push(',');
        ports.push(',');
    }
}

fn parameters(query: &str, pairs: &mut Vec<(String, String)>) -> Result<(), DsnError> {
    let mut rest = query;
    while !rest.is_empty() {
        let (parameter, after) = rest.split_once('&').unwrap_or((rest, ""));
        rest = after;
        let count = pairs.len() + 1;
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(wrong(&format!("parameter {count} has no '='")));
        };
        if value.contains('=') {
            return Err(wrong(&format!("parameter {count} has a second '='; write %3D for one in a value")));
        }
        let (key, value) = (decode("a key", key)?, decode("a value", value)?);
        // As in URIs of JDBC.
        if key == "ssl" && value == "true" {
            pairs.push(("sslmode".into(), "require".into()));
        } else {
            pairs.push((key, value));
        }
    }
    Ok(())
}

/// Replaces `%20` and the like.
fn decode(what: &str, text: &str) -> Result<String, DsnError> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(wrong(&format!(
                "{what}: after a '%' two hexadecimal digits are needed; write %25 for a '%'"
            )));
        };
        match u8::try_from(high * 16 + low) {
            Ok(0) => return Err(wrong(&format!("{what}: %00 is not permitted"))),
            Ok(byte) => decoded.push(byte),
            Err(_) => {}
        }
    }
    String::from_utf8(decoded).map_err(|_| wrong(&format!("{what}: not UTF-8")))
}

/// Without any part of the text: each may belong to a password.
fn wrong(what: &str) -> DsnError {
    DsnError(format!("the URI of the database: {what}"))
}
