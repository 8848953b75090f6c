//! HTTP for operators, of the whole program: pages, states, metrics, and peers that misbehave.

mod contrib;
mod counted;
mod hostile;
mod metrics;
mod names;
mod page;
mod states;
mod tls;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::connect_from;
use crate::support::process::{Server, free_address};

pub const FILE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>";
const PATIENCE: Duration = Duration::from_secs(60);

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// A server that also speaks HTTP, at this address.
pub struct Served {
    pub server: Server,
    pub address: SocketAddr,
}

impl Served {
    pub fn start() -> Served {
        Served::with("", FILE)
    }

    pub fn with(zeo: &str, storages: &str) -> Served {
        let address = free_address();
        let server = Server::start_any(zeo, &section(storages, address), |_| ());
        let served = Served { server, address };
        served.wait_for_start();
        served
    }

    /// Waits until the storages are open: it answers before.
    pub fn wait_for_start(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/startup").status != 200 {
            assert!(Instant::now() < deadline, "{}", self.server.talk());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        get(self.address, path)
    }

    /// Number of threads of each name.
    pub fn threads(&self) -> BTreeMap<String, usize> {
        threads(&self.server)
    }
}

fn threads(server: &Server) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{}/task", server.pid())).expect("tasks") {
        let name = fs::read_to_string(task.expect("a task").path().join("comm")).unwrap_or_default();
        *names.entry(name.trim().to_string()).or_default() += 1;
    }
    names
}

pub fn section(storages: &str, address: SocketAddr) -> String {
    format!("{storages}\n<http>\naddress {address}\n</http>")
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: zeo\r\n\r\n"))
}

pub fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut socket = connect(address);
    socket.write_all(request.as_bytes()).expect("sent");
    answer(&mut socket)
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// Reads to the end: each connection is for one request.
pub fn answer(socket: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).expect("an answer, and then the end");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    Answer { status: status.expect("a status"), head: head.into(), body: body.into() }
}

#[test]
fn each_path_has_its_page() {
    let served = Served::start();
    for path in ["/live", "/livez", "/startup", "/startupz", "/ready", "/readyz", "/health", "/ready?verbose"]
    {
        let answer = served.get(path);
        assert_eq!((answer.status, &*answer.body), (200, "ok\n"), "{path}");
        assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.field("Content-Length"), Some("3"));
        assert_eq!(
            (answer.field("Connection"), answer.field("Cache-Control")),
            (Some("close"), Some("no-store"))
        );
    }
    let status = served.get("/status.json");
    assert_eq!(status.field("Content-Type"), Some("application/json"));
    let status: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
    assert_eq!(status["phase"], "serving");
    assert_eq!(status["pid"], served.server.pid());
    assert_eq!(status["storages"][0]["disks"][0]["usage"], "data");
    let missing = served.get("/nothing\x01<script>");
    assert_eq!(missing.status, 400);
    let missing = served.get("/nothing<script>");
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("/status.json") && !missing.body.contains("script"), "{}", missing.body);
}

#[test]
fn head_has_no_body_and_others_are_refused() {
    let served = Served::start();
    let head = ask(served.address, "HEAD /metrics HTTP/1.0\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
    assert!(head.field("Content-Length").expect("a length").parse::<usize>().expect("a number") > 1000);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "X"] {
        let refused = ask(served.address, &format!("{method} /live HTTP/1.1\r\nHost: zeo\r\n\r\n"));
        assert_eq!((refused.status, refused.field("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

/// A connection from elsewhere is closed, and the log says why.
#[test]
fn others_than_those_of_allow_are_not_answered() {
    let address = free_address();
    let storages = format!("{FILE}\n<http>\naddress {address}\nallow 127.0.0.2 ::1\n</http>");
    let server = Server::start_any("", &storages, |_| ());
    let asked_from = |last: u8| {
        let mut socket = connect_from(Ipv4Addr::new(127, 0, 0, last), address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // A connection that is closed unread is reset, perhaps before all is sent.
        let _ = socket.write_all(b"GET /live HTTP/1.1\r\nHost: zeo\r\n\r\n");
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        answer
    };
    assert!(asked_from(2).starts_with("HTTP/1.1 200 OK"));
    for last in [1, 3] {
        assert_eq!(asked_from(last), "");
    }
    server.wait_for_log("refused: 'allow' of <http> does not have this address");
    assert!(asked_from(2).starts_with("HTTP/1.1 200 OK"));
}

/// Off, unless it is asked for.
#[test]
fn without_a_section_there_is_no_thread_for_it() {
    let server = Server::start();
    server.wait_for_log("listening on");
    let without = threads(&server);
    assert!(!without.keys().any(|name| name.contains("http") || name.contains("disks")), "{without:?}");
    let served = Served::start();
    let with = served.threads();
    assert_eq!((with.get("zeo-http"), with.get("zeo-disks")), (Some(&1), Some(&1)), "{with:?}");
}

#[test]
fn a_unix_socket_has_its_mode_and_goes_with_the_server() {
    let storages = format!("{FILE}\n<http>\naddress ./http\nsocket-mode 600\n</http>");
    let mut server = Server::start_any("", &storages, |_| ());
    let path = server.directory().join("http");
    assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o600);
    let mut socket = UnixStream::connect(&path).expect("a connection");
    socket.write_all(b"GET /live HTTP/1.1\r\nHost: zeo\r\n\r\n").expect("sent");
    assert_eq!(answer(&mut socket).body, "ok\n");
    assert!(server.stop().success());
    assert!(!path.exists());
}
