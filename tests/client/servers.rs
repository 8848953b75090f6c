//! Servers of all generations: this program, and Python's where the environments are installed.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runzeo::internal::base::address::Address;

use crate::support::process::{Server, free_address};
use crate::support::pythons;

/// The environments with a server each, and whether it can be told to speak msgpack.
pub const PYTHONS: &[(&str, bool)] = &[
    ("zodb38-py27", false),
    ("zodb39-py27", false),
    ("zodb310-py27", false),
    ("zeo4-py27", false),
    ("zeo4-py36", false),
    ("zeo5-py38", false),
    ("zeo6-py311", false),
    ("zeo6-py311", true),
];

/// A server; it ends with the test.
pub enum AnyServer {
    Ours(Server),
    Python(PythonServer),
}

/// A server of Python in its own directory.
pub struct PythonServer {
    pub address: SocketAddr,
    program: PathBuf,
    child: Child,
    directory: tempfile::TempDir,
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl PythonServer {
    /// Starts the server of an environment with these lines in its `<zeo>` section; `prepare` may put files into its
    /// directory. `None`, and a line on stderr: the environment is not installed.
    pub fn start(environment: &str, zeo: &str, prepare: impl FnOnce(&Path)) -> Option<PythonServer> {
        PythonServer::start_any(environment, zeo, FILE, prepare)
    }

    /// A server of any storage.
    pub fn start_any(
        environment: &str,
        zeo: &str,
        storage: &str,
        prepare: impl FnOnce(&Path),
    ) -> Option<PythonServer> {
        let python = pythons::python(environment)?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        prepare(directory.path());
        let address = free_address();
        let log = directory.path().join("zeo.log");
        let config = format!(
            "<zeo>\naddress {address}\n{zeo}\n</zeo>\n{storage}\n\
             <eventlog>\nlevel info\n<logfile>\npath {}\n</logfile>\n</eventlog>\n",
            log.display()
        );
        fs::write(directory.path().join("zeo.conf"), config).expect("write the configuration");
        let program = python.with_file_name("runzeo");
        let child = spawn(&program, directory.path());
        let mut server = PythonServer { address, program, child, directory };
        server.wait_listening();
        Some(server)
    }

    /// After it was killed.
    fn start_again(&mut self) {
        self.child = spawn(&self.program, self.directory.path());
        self.wait_listening();
    }

    fn wait_listening(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("the server ended at once with {status}: {}", self.talk());
            }
            assert!(Instant::now() < deadline, "the server does not listen: {}", self.talk());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its output and its log.
    pub fn talk(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        format!("{}\n{}", read("output.log"), read("zeo.log"))
    }
}

fn spawn(program: &Path, directory: &Path) -> Child {
    let output = fs::File::create(directory.join("output.log")).expect("output.log");
    Command::new(program)
        .args(["-C", "zeo.conf"])
        .current_dir(directory)
        // For storages of a test's own.
        .env("PYTHONPATH", directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("output"))
        .stderr(output)
        .spawn()
        .expect("start the server")
}

impl AnyServer {
    /// Of its files.
    #[allow(dead_code)] // by another program
    pub fn directory(&self) -> &Path {
        match self {
            AnyServer::Ours(server) => server.directory(),
            AnyServer::Python(server) => server.directory.path(),
        }
    }

    pub fn address(&self) -> Address {
        let address = match self {
            AnyServer::Ours(server) => server.address,
            AnyServer::Python(server) => server.address,
        };
        tcp(address)
    }

    pub fn kill(&mut self) {
        match self {
            AnyServer::Ours(server) => server.kill(),
            AnyServer::Python(server) => {
                _ = server.child.kill();
                _ = server.child.wait();
            }
        }
    }

    /// At the same address, with its files, after it was killed.
    pub fn start_again(&mut self) {
        match self {
            AnyServer::Ours(server) => server.start_again(),
            AnyServer::Python(server) => server.start_again(),
        }
    }
}

pub fn tcp(address: SocketAddr) -> Address {
    Address::Tcp { host: Some(address.ip().to_string()), port: Some(address.port()) }
}

/// A storage without blobs.
const FILE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>";
/// A storage with blobs, as all generations read it.
const BLOBS: &str =
    "<blobstorage 1>\nblob-dir blobs\n<filestorage>\npath Data.fs\n</filestorage>\n</blobstorage>";

/// Runs the test with each server, one after the other.
pub fn with_each(test: impl Fn(&str, AnyServer)) {
    with_each_of("", FILE, test);
}

/// The same, with these lines in the `<zeo>` section of each.
pub fn with_each_having(zeo: &str, test: impl Fn(&str, AnyServer)) {
    with_each_of(zeo, FILE, test);
}

/// The same, with servers that take blobs.
pub fn with_each_that_has_blobs(test: impl Fn(&str, AnyServer)) {
    with_each_of("", BLOBS, test);
}

fn with_each_of(zeo: &str, storage: &str, test: impl Fn(&str, AnyServer)) {
    let with_msgpack = format!("msgpack true\n{zeo}");
    test("ours", AnyServer::Ours(Server::start_any(zeo, storage, |_| ())));
    test("ours with msgpack", AnyServer::Ours(Server::start_any(&with_msgpack, storage, |_| ())));
    for &(environment, msgpack) in PYTHONS {
        let zeo = if msgpack { &with_msgpack } else { zeo };
        if let Some(server) = PythonServer::start_any(environment, zeo, storage, |_| ()) {
            let name = if msgpack { format!("{environment} with msgpack") } else { environment.to_string() };
            test(&name, AnyServer::Python(server));
        }
    }
}
