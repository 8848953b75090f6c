//! PostgreSQL servers of the tests, made by `scripts/postgres`. Each is in a directory of its own, which is removed
//! with it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

/// What the script ends with if no PostgreSQL is installed.
const SKIPPED: i32 = 77;

/// A running server.
pub struct PostgresServer {
    dir: tempfile::TempDir,
    port: u16,
}

impl PostgresServer {
    /// A server that accepts everybody at its socket. `None`: no PostgreSQL is installed, which is printed.
    pub fn start(options: &[&str]) -> Option<PostgresServer> {
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a directory");
        let port = options.iter().position(|option| *option == "--port");
        let port = port.map_or(5432, |at| options[at + 1].parse().expect("a port"));
        let server = PostgresServer { dir, port };
        server.start_again(options).then_some(server)
    }

    /// Starts the server after a stop. `false`: no PostgreSQL is installed.
    pub fn start_again(&self, options: &[&str]) -> bool {
        run("start", self.dir(), options)
    }

    /// A server that follows this one.
    pub fn standby(&self) -> PostgresServer {
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a directory");
        let standby = PostgresServer { dir, port: self.port };
        assert!(run("standby", standby.dir(), &[self.dir().to_str().expect("a path")]));
        standby
    }

    /// Starts a stopped server or standby as it is.
    pub fn again(&self) {
        assert!(run("again", self.dir(), &[]));
    }

    /// Makes a standby writable.
    pub fn promote(&self) {
        assert!(run("promote", self.dir(), &[]));
    }

    /// `fast` or `immediate`.
    pub fn stop(&self, how: &str) {
        assert!(run("stop", self.dir(), &[how]));
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket_dir(&self) -> PathBuf {
        self.dir().join("socket")
    }

    /// The process that has started all others of the server.
    pub fn pid(&self) -> i32 {
        let file = std::fs::read_to_string(self.dir().join("data/postmaster.pid")).expect("a running server");
        file.lines().next().expect("a line").parse().expect("a number")
    }

    /// The log until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("log")).expect("the log")
    }

    /// A connection string for the superuser at the socket.
    pub fn dsn(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.socket_dir().display(), self.port)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        run("stop", self.dir(), &["immediate"]);
    }
}

fn run(command: &str, dir: &Path, options: &[&str]) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
    let mut child = Command::new(script);
    child.arg(command).arg(dir).args(options).stdin(Stdio::null());
    let output = child.output().expect("scripts/postgres");
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(SKIPPED) {
        // Once, and not captured with the output of a test that passes.
        static SAY: Once = Once::new();
        SAY.call_once(|| drop(write!(std::io::stderr(), "\n{said}")));
        return false;
    }
    print!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() || std::thread::panicking(), "scripts/postgres {command}");
    true
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port().to_string()
}
