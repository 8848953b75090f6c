//! The files that TLS needs: their paths, their sections, and what is wrong with them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Logger for messages about certificates.
pub const LOG: &str = "ZEO.tls";

/// Paths of the files and directories.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// The own certificate, the intermediate ones up to its authority, and the key if it has no file of its own; PEM.
    pub certificate: PathBuf,
    /// The private key, if it is not in the file of the certificate; PEM.
    pub key: Option<PathBuf>,
    /// Password of an encrypted key.
    pub password: Option<Password>,
    /// Which peers are accepted.
    pub peers: Peers,
}

/// Where the password of the key comes from.
#[derive(Clone, Eq, PartialEq)]
pub enum Password {
    /// The first line of a file.
    File(PathBuf),
    /// The password itself: `sslpassword` of a database.
    Text(String),
}

impl fmt::Debug for Password {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::File(path) => write!(f, "File({})", path.display()),
            Password::Text(_) => f.write_str("Text"),
        }
    }
}

/// Which peers are accepted: clients by a server, a server by a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peers {
    /// Those whose certificate is in the file or directory, or signed by an authority in it.
    Listed(PathBuf),
    /// Those whose certificate is signed by an authority that this machine trusts.
    Signed,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    Client,
    Server,
}

impl Role {
    /// `client` or `server`
    pub fn name(self) -> &'static str {
        match self {
            Role::Client => "client",
            Role::Server => "server",
        }
    }
}

/// Why certificates or key cannot be used: which file, what is wrong, what to do.
#[derive(Debug)]
pub struct TlsError(pub(super) String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// The sections of a PEM file. `what`: its name in the configuration.
pub fn read_pem(what: &str, path: &Path) -> Result<Vec<pem::Pem>, TlsError> {
    let error = |why: &dyn fmt::Display| TlsError(format!("{what}: {}: {why}", path.display()));
    let text = fs::read(path).map_err(|why| error(&why))?;
    pem::parse_many(&text).map_err(|why| error(&format_args!("not a PEM file: {why}")))
}

/// Warns if every user of the machine can read the private key.
pub fn warn_if_public(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0) {
        log::warn!(target: LOG, "TLS: everybody can read {}: chmod o-r it", path.display());
    }
}
