//! The head of a request, read within a time limit and a length. Nothing of it is ever sent back.

use std::io;

use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::connection::HttpConnection;
use super::reply::Reply;
use crate::base::clock::IoDeadline;

/// Bytes of the longest head.
const HEAD_LEN_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// What of a request matters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    pub method: Method,
    /// Without the query.
    pub path: String,
    /// All `Accept` fields.
    pub accept: String,
    /// The host that is asked for, and perhaps its port; `None`: it is not said.
    pub host: Option<String>,
}

/// The methods that are answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    Get,
    Head,
}

/// Why there is no request to be answered.
#[derive(Debug)]
pub enum Unread {
    /// The peer has closed the connection or sent nothing: a probe of the port.
    Gone,
    Refused(Reply),
}

/// Reads the head of a request. What follows it is not read.
pub fn read(connection: &HttpConnection, until: IoDeadline) -> Result<Head, Unread> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let mut piece = [0; 2048];
        let room = piece.len().min(HEAD_LEN_MAX + 1 - bytes.len());
        let received = match connection.receive(piece.get_mut(..room).unwrap_or_default(), until) {
            Ok(0) if bytes.is_empty() => return Err(Unread::Gone),
            Ok(0) => return Err(refused(400, "The request is not complete.")),
            Ok(received) => received,
            Err(error) if is_timeout(&error) && !bytes.is_empty() => {
                return Err(refused(408, "The request has not come in time."));
            }
            Err(_) => return Err(Unread::Gone),
        };
        bytes.extend_from_slice(piece.get(..received).unwrap_or_default());
        if let Some(head) = parse(&bytes).map_err(Unread::Refused)? {
            return Ok(head);
        }
        if bytes.len() > HEAD_LEN_MAX {
            return Err(refused(431, "The head of the request is longer than 8192 bytes."));
        }
    }
}

fn refused(status: u16, why: &str) -> Unread {
    Unread::Refused(Reply::text(status, why))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The head, if it is complete. `Err`: it is none that can be answered.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Reply> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Ok(None),
        Err(Error::TooManyHeaders) => {
            return Err(Reply::text(431, "The head of the request has more than 64 fields."));
        }
        Err(Error::Version) => return Err(Reply::text(505, "The version of HTTP is not 1.0 or 1.1.")),
        Err(error) => return Err(Reply::text(400, &format!("This is no request of HTTP: {error}."))),
    }
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => return Err(Reply::wrong_method()),
    };
    let fields = |name: &'static str| {
        request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name))
    };
    if request.version == Some(1) && fields("host").count() != 1 {
        return Err(Reply::text(400, "A request of HTTP/1.1 has one field Host."));
    }
    let is_empty = |field: &Header<'_>| field.value.trim_ascii() == b"0";
    if fields("transfer-encoding").next().is_some() || !fields("content-length").all(is_empty) {
        return Err(Reply::text(400, "The request has a body, and nothing here takes one."));
    }
    let accept: Vec<_> = fields("accept").map(|field| String::from_utf8_lossy(field.value)).collect();
    let (host_of_target, path) = host_and_path(request.path.unwrap_or_default());
    // RFC 9112 has the one of the target win.
    let of_field = fields("host").next().map(|field| String::from_utf8_lossy(field.value).trim().to_string());
    let host = host_of_target.or(of_field);
    Ok(Some(Head { method, path, accept: accept.join(","), host }))
}

/// The host and the path of a request's target, which may be a whole address if it came through a proxy.
fn host_and_path(target: &str) -> (Option<String>, String) {
    let (host, path) = match target.split_once("://") {
        Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            (Some(host.to_string()), if path.is_empty() { "/" } else { path })
        }
        _ => (None, target),
    };
    (host, path.split(['?', '#']).next().unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Option<Head>, u16> {
        parse(text.as_bytes()).map_err(|reply| reply.status())
    }

    fn path_of(request: &str) -> Result<String, u16> {
        parsed(request).map(|head| head.expect("a whole head").path)
    }

    #[test]
    fn heads_are_read() {
        let text = "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\naccept: */*\r\n\r\n";
        let head = parsed(text).expect("a head").expect("a whole one");
        assert_eq!(
            head,
            Head {
                method: Method::Get,
                path: "/metrics".into(),
                accept: "text/plain,*/*".into(),
                host: Some("a".into())
            }
        );
        for len in 0..text.len() {
            assert_eq!(parsed(&text[..len]), Ok(None), "{len}");
        }
        assert_eq!(path_of("HEAD / HTTP/1.0\r\n\r\n"), Ok("/".into()));
        assert_eq!(path_of("GET http://zeo:8101/live?x HTTP/1.1\r\nHost: zeo\r\n\r\n"), Ok("/live".into()));
        assert_eq!(path_of("GET http://zeo HTTP/1.1\r\nHost: zeo\r\n\r\n"), Ok("/".into()));
        for (request, host) in [
            ("GET /live HTTP/1.0\r\n\r\n", None),
            ("GET /live HTTP/1.1\r\nHost: zeo:8101 \r\n\r\n", Some("zeo:8101")),
            ("GET http://zeo:8101/live HTTP/1.1\r\nHost: other\r\n\r\n", Some("zeo:8101")),
            ("GET http://zeo HTTP/1.1\r\nHost: other\r\n\r\n", Some("zeo")),
            ("GET http://zeo?x HTTP/1.1\r\nHost: other\r\n\r\n", Some("zeo")),
            ("GET /http://zeo/ HTTP/1.1\r\nHost: other\r\n\r\n", Some("other")),
        ] {
            let head = parsed(request).expect("a head").expect("a whole one");
            assert_eq!(head.host.as_deref(), host, "{request}");
        }
        // RFC 9112 permits line feeds alone.
        assert_eq!(path_of("GET /live HTTP/1.1\nHost: a\n\n"), Ok("/live".into()));
        assert_eq!(path_of("GET /live HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), Ok("/live".into()));
    }

    proptest! {
        /// Whatever comes: no panic, and a path that begins with a slash or is none of ours.
        #[test]
        fn any_bytes_are_a_head_or_none(
            start in prop::sample::select(vec!["", "GET ", "HEAD /", "GET http://", "GET / HTTP/1.1\r\nHost: a\r\n"]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            end in prop::sample::select(vec!["", " HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n"]),
        ) {
            let request = [start.as_bytes(), &bytes, end.as_bytes()].concat();
            match parse(&request) {
                Ok(Some(head)) => prop_assert!(!head.path.contains(['?', '#', '\r', '\n', '\0'])),
                Ok(None) => {}
                Err(reply) => prop_assert!([400, 405, 431, 505].contains(&reply.status())),
            }
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for (request, status) in [
            ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
            ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n folded\r\n\r\n", 400),
            ("\x16\x03\x01\x02", 400),
            ("\0\0\0\x04ruok", 400),
        ] {
            assert_eq!(parsed(request).err(), Some(status), "{request:?}");
        }
        let fields = "X: y\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(parsed(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).err(), Some(431));
    }
}
