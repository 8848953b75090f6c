//! How a client connects and what it keeps: the keys of `<zeoclient>` and `<clientstorage>`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::dial::Credentials;
use crate::base::address::Address;
use crate::net::tls::{Files, HostCheck};

/// The options of a client. [`ClientOptions::new`] has the defaults of Python's client; change the fields after it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The addresses of one database's servers; at least one.
    pub addresses: Vec<Address>,
    /// The name of the storage at the server. `1`
    pub storage: String,
    /// The name in log lines; empty: the addresses.
    pub name: String,
    /// The file of the cache. `None`: a temporary one.
    pub cache_path: Option<PathBuf>,
    /// The size of that file in bytes. 20 MB
    pub cache_size: u64,
    /// Bytes of revisions that were loaded lately and are kept in memory, so that a load need not read the file. A
    /// view's loads use it, a server in the middle does not. 0: none. 16 MB
    pub memory_size: usize,
    /// Shown in the server's log.
    pub label: Option<String>,
    /// Never store.
    pub read_only: bool,
    /// Be content with a server that is read-only, until a writable one is there.
    pub read_only_fallback: bool,
    /// Whether opening waits for a server, at most for `wait_timeout`.
    pub wait: bool,
    /// How long calls wait for a connection after it was lost. 30 s
    pub wait_timeout: Duration,
    /// The pause before a lost connection is tried again grows from the first to the second. 5 s, 300 s
    pub disconnect_poll: (Duration, Duration),
    /// For servers before ZEO 5 that ask for a password.
    pub credentials: Option<Credentials>,
    /// `None`: no TLS.
    pub tls: Option<TlsOptions>,
    /// Where blobs are kept. `None`: none are loaded or stored.
    pub blob_dir: Option<PathBuf>,
    /// The blob directory is the server's own.
    pub shared_blob_dir: bool,
    /// The size of an unshared blob directory in bytes, approximately. `None`: nothing is removed.
    pub blob_cache_size: Option<u64>,
    /// Its size is checked when this part of it, in percent, was added. 10
    pub blob_cache_size_check: u8,
    /// [`View::refresh`](super::view::View::refresh) asks the server, so that it sees all that was committed before.
    pub server_sync: bool,
    /// This is the storage of a server with clients of its own. Transactions that were missed while there was no
    /// connection are listed, if they are few, instead of only their objects, so that these clients need not be
    /// disconnected. A download into a blob directory does not wait for another process, which may be one of them.
    pub serves_clients: bool,
    /// Drop the cache if the server's invalidation queue does not reach back to it, instead of checking each object.
    /// Servers since ZEO 5 cannot check.
    pub drop_cache_rather_verify: bool,
}

impl ClientOptions {
    /// The configured name, or the addresses.
    pub(crate) fn shown_name(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!("({})", addresses.join(", "))
    }

    /// A client of storage `1` of the servers at `addresses`, with the defaults of Python's client.
    pub fn new(addresses: Vec<Address>) -> ClientOptions {
        ClientOptions {
            addresses,
            storage: "1".into(),
            name: String::new(),
            cache_path: None,
            cache_size: CACHE_SIZE,
            memory_size: 16 << 20,
            label: None,
            read_only: false,
            read_only_fallback: false,
            wait: true,
            wait_timeout: Duration::from_secs(30),
            disconnect_poll: (Duration::from_secs(5), Duration::from_secs(300)),
            credentials: None,
            tls: None,
            blob_dir: None,
            shared_blob_dir: false,
            blob_cache_size: None,
            blob_cache_size_check: 10,
            server_sync: false,
            serves_clients: false,
            drop_cache_rather_verify: false,
        }
    }

    /// Refuses values that no connection can have, and options that exclude each other.
    pub fn check(&self) -> Result<(), OptionsError> {
        let refused = |key, message: &str| Err(OptionsError { key, message: message.into() });
        if self.addresses.is_empty() {
            return refused("server", "there is no address");
        }
        let is_reachable = |address: &Address| match address {
            Address::Tcp { host, port } => host.is_some() && port.is_some_and(|port| port > 0),
            Address::Unix(_) => true,
        };
        if let Some(address) = self.addresses.iter().find(|address| !is_reachable(address)) {
            let message = format!("'{address}' lacks a host or a port");
            return Err(OptionsError { key: "server", message });
        }
        if self.blob_dir.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return refused("blob-dir", "the path is empty");
        }
        if self.blob_cache_size_check >= 100 {
            return refused("blob-cache-size-check", "it is not below 100 percent");
        }
        let is_local = |address: &Address| matches!(address, Address::Unix(_));
        if self.tls.as_ref().is_some_and(|tls| tls.host == HostCheck::default())
            && self.addresses.iter().any(is_local)
        {
            return refused(
                "server",
                "a Unix socket has no host name that TLS could use: give server-hostname",
            );
        }
        Ok(())
    }

    /// Options that have no effect because of others: Python's client takes them, too. For the log.
    pub fn without_effect(&self) -> Vec<OptionsError> {
        let mut found = Vec::new();
        let mut note = |is_one, key, message: &str| {
            if is_one {
                found.push(OptionsError { key, message: message.into() });
            }
        };
        note(self.read_only && self.read_only_fallback, "read-only", "read-only-fallback prevails");
        note(
            self.disconnect_poll.0 > self.disconnect_poll.1,
            "max-disconnect-poll",
            "it is less than min-disconnect-poll, which is used instead",
        );
        let no_blobs = "there is no blob-dir";
        note(self.shared_blob_dir && self.blob_dir.is_none(), "shared-blob-dir", no_blobs);
        note(self.blob_cache_size.is_some() && self.blob_dir.is_none(), "blob-cache-size", no_blobs);
        note(
            self.blob_cache_size.is_some() && self.shared_blob_dir && self.blob_dir.is_some(),
            "blob-cache-size",
            "nothing is removed from a blob directory that is the server's own (shared-blob-dir)",
        );
        found
    }
}

/// TLS for the connections of a client: the `<ssl>` section. The files are read when the client is opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsOptions {
    /// The client's certificate and key, and which servers it accepts.
    pub files: Files,
    /// Which host the certificate of the server must be for.
    pub host: HostCheck,
}

/// Why options are refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OptionsError {
    /// The key that is to blame, as written in `<zeoclient>`.
    pub key: &'static str,
    message: String,
}

impl OptionsError {
    /// What is wrong with it.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl std::error::Error for OptionsError {}

/// Why a text in ZConfig's language is refused: the error of [`ClientOptions::from_zconfig`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigurationError {
    line: Option<u32>,
    text: String,
}

impl ConfigurationError {
    /// `text`: all that is to be said, with the place.
    pub(crate) fn new(line: Option<u32>, text: String) -> ConfigurationError {
        ConfigurationError { line, text }
    }

    /// The line, the first one is 1. `None`: the error belongs to no line, or to one of an included file.
    pub fn line(&self) -> Option<u32> {
        self.line
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConfigurationError {}

/// The default size of the cache, in bytes.
const CACHE_SIZE: u64 = 20 << 20;
