//! A response, and how it is sent: whole, within a time limit, and so that a peer can read it although not all that it
//! has sent was read.

use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;

use socket2::Socket;

use super::connection::HttpConnection;
use super::page::frame;
use crate::base::clock::{IoDeadline, since_1970};
use crate::base::timestamp::Civil;

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// A response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    status: u16,
    content_type: &'static str,
    /// Lines of the head, or none.
    more: &'static str,
    body: String,
}

impl Reply {
    pub fn new(status: u16, content_type: &'static str, body: String) -> Reply {
        Reply { status, content_type, more: "", body }
    }

    /// One line of text.
    pub fn text(status: u16, line: &str) -> Reply {
        Reply::new(status, PLAIN, format!("{line}\n"))
    }

    /// The status page.
    pub fn page(html: String) -> Reply {
        Reply { more: frame::fields(), ..Reply::new(200, HTML, html) }
    }

    pub fn wrong_method() -> Reply {
        Reply { more: "Allow: GET, HEAD\r\n", ..Reply::text(405, "The methods are GET and HEAD.") }
    }

    /// The request is for a name that is not the server's.
    pub fn wrong_name() -> Reply {
        let line = "This server is not known by that name. Ask for its IP address, or add the name to 'host' in <http> of \
                    its configuration.";
        Reply::text(421, line)
    }

    pub fn internal_error() -> Reply {
        Reply::text(500, "A bug: the log of the server has a line about a panic.")
    }

    #[cfg(test)]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// As it is sent; the length is the body's in any case.
    fn bytes(&self, has_body: bool) -> Vec<u8> {
        let Reply { status, content_type, more, body } = self;
        let head = format!(
            "HTTP/1.1 {status} {}\r\nDate: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{more}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            reason(*status),
            date(since_1970()),
            body.len()
        );
        let body = if has_body { body.as_bytes() } else { &[] };
        [head.as_bytes(), body].concat()
    }

    /// Sends it and ends the connection. A peer that does not take it in time has it in part.
    pub fn send(&self, connection: &HttpConnection, has_body: bool, until: IoDeadline) {
        if connection.send_all(&self.bytes(has_body), until).is_ok() {
            connection.end(until);
        }
    }
}

/// Says without waiting that there are too many requests. The socket has taken nothing yet, so it takes this.
pub fn refuse_busy(socket: &Socket) {
    let more = "Retry-After: 1\r\n";
    let busy = Reply { more, ..Reply::text(503, "Too many requests are being answered. Try again.") };
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // The peer may be gone already. What it has sent is read, because a connection that is closed with unread bytes is
    // reset, and the answer may be lost.
    let _ = socket.send_with_flags(&busy.bytes(true), flags);
    let _ = socket.shutdown(Shutdown::Write);
    let _ = socket.set_nonblocking(true).and_then(|()| (&*socket).read(&mut [0; 8 << 10]));
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// `Sun, 29 Nov 2026 17:04:36 GMT`
fn date(unix: Duration) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = Civil::from_unix(unix.as_secs() as f64);
    let day = DAYS.get((unix.as_secs() / 86400 % 7) as usize).unwrap_or(&"");
    let month = MONTHS.get((at.month as usize).wrapping_sub(1)).unwrap_or(&"");
    let (hour, minute, second) = (at.hour, at.minute, at.second as u32);
    format!("{day}, {:02} {month} {} {hour:02}:{minute:02}:{second:02} GMT", at.day, at.year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_complete() {
        let reply = Reply::wrong_method();
        let text = |has_body| String::from_utf8(reply.bytes(has_body)).expect("text");
        let (head, body) =
            text(true).split_once("\r\n\r\n").map(|(a, b)| (a.to_string(), b.to_string())).expect("both");
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\nDate: "), "{head}");
        assert!(
            head.contains("\r\nAllow: GET, HEAD\r\n") && head.ends_with("\r\nConnection: close"),
            "{head}"
        );
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, "The methods are GET and HEAD.\n");
        assert!(text(false).ends_with("\r\n\r\n") && text(false).contains("Content-Length: 30\r\n"));
    }

    #[test]
    fn dates_are_as_in_the_standard() {
        assert_eq!(date(Duration::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
