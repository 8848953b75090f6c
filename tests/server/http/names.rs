//! The names under which a server is asked over HTTP: a web page whose name resolves to it reads nothing.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use super::{Answer, FILE, Served, answer, ask, get};
use crate::reload::Site;
use crate::support::process::{Server, free_address};

const SECRETS: [&str; 4] = ["/", "/status.json", "/metrics", "/nothing"];
const PROBES: [&str; 7] = ["/live", "/livez", "/startup", "/startupz", "/ready", "/readyz", "/health"];

fn get_as(address: SocketAddr, host: &str, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

#[test]
fn a_page_of_another_site_reads_nothing() {
    let served = Served::start();
    let port = served.address.port();
    for path in SECRETS {
        for host in
            ["attacker.example\u{202e}".to_string(), format!("attacker.example:{port}"), String::new()]
        {
            let refused = get_as(served.address, &host, path);
            assert_eq!(refused.status, 421, "{host} {path}");
            assert!(refused.head.starts_with("HTTP/1.1 421 Misdirected Request\r\n"), "{}", refused.head);
            assert!(refused.body.contains("'host' in <http>") && !refused.body.contains("attacker"));
        }
    }
    // The target wins over the field.
    let target = "GET http://attacker.example/status.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(served.address, target).status, 421);
    // Kubernetes and load balancers have names of their own.
    for path in PROBES {
        assert_eq!(get_as(served.address, "attacker.example", path).status, 200, "{path}");
    }
    served.server.wait_for_log(
        "refused: a request of HTTP for attacker.example\\u{202e}, which is no name of this server",
    );
}

#[test]
fn what_has_no_name_of_others_is_answered() {
    let served = Served::start();
    let port = served.address.port();
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let with_port = [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    for host in with_port.iter().map(String::as_str).chain(["LocalHost", "10.1.2.3", "zeo", &machine]) {
        assert_eq!(get_as(served.address, host, "/metrics").status, 200, "{host}");
    }
    // A program that is no browser.
    assert_eq!(ask(served.address, "GET /metrics HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn a_reload_sets_the_names() {
    let address = free_address();
    let section = |host: &str| format!("{FILE}\n<http>\naddress {address}\n{host}\n</http>");
    let site = Site::start("", &section(""));
    assert_eq!(get_as(address, "zeo.example.org", "/").status, 421);
    let said = site.apply("", &section("host zeo.example.org Status.example.org"));
    assert!(said.contains("  <http> host: not set -> zeo.example.org Status.example.org"), "{said}");
    for host in ["zeo.example.org", "zeo.example.org:80", "status.example.org", "ZEO.example.org."] {
        assert_eq!(get_as(address, host, "/").status, 200, "{host}");
    }
    assert_eq!(get_as(address, "www.example.org", "/").status, 421);
    site.apply("", &section(""));
    assert_eq!(get_as(address, "zeo.example.org", "/").status, 421);
    assert_eq!(get(address, "/").status, 200);
}

/// No browser asks a Unix socket.
#[test]
fn a_unix_socket_is_asked_under_any_name() {
    let server = Server::start_any("", &format!("{FILE}\n<http>\naddress ./http\n</http>"), |_| ());
    let mut socket = UnixStream::connect(server.directory().join("http")).expect("a connection");
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: zeo.example.org\r\n\r\n").expect("sent");
    assert_eq!(answer(&mut socket).status, 200);
}
