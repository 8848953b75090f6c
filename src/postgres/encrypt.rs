//! TLS for a connection: the question whether the server has it, and the handshake.

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::dsn::{FileAt, Host, Roots, Ssl, SslMode};
use super::session::LOG;
use super::transport::Transport;
use crate::base::clock::IoDeadline;
use crate::net::tls::outgoing::{Outgoing, Servers};
use crate::net::tls::verify::ExpectedHost;
use crate::net::tls::{Password, TlsError};

/// The name of the protocol inside TLS.
const PROTOCOL: &[u8] = b"postgresql";

/// Why a connection is not encrypted.
#[derive(Debug)]
pub enum EncryptError {
    /// The files of the client cannot be used.
    Files(String),
    /// The server has no TLS.
    NotOffered,
    /// The handshake has failed: the certificate, the versions.
    Handshake(String),
    Broken(io::Error),
}

impl From<io::Error> for EncryptError {
    fn from(error: io::Error) -> EncryptError {
        EncryptError::Broken(error)
    }
}

impl From<TlsError> for EncryptError {
    fn from(error: TlsError) -> EncryptError {
        EncryptError::Files(error.to_string())
    }
}

/// Encrypts a new connection to the host.
pub fn encrypt(
    transport: &mut Transport,
    ssl: &Ssl,
    host: &Host,
    until: Option<IoDeadline>,
) -> Result<(), EncryptError> {
    let outgoing = outgoing(ssl, host)?;
    if !ssl.is_direct {
        ask(transport, until)?;
    }
    let (tls, refused) = outgoing.begin()?;
    transport.set_tls(tls);
    transport.handshake(until).map_err(|error| match (refused.get(), error.kind()) {
        (Some(why), _) => EncryptError::Handshake(format!("the server's certificate: {why}")),
        (None, io::ErrorKind::Other | io::ErrorKind::UnexpectedEof) => {
            EncryptError::Handshake(format!("TLS with the server: {error}"))
        }
        (None, _) => EncryptError::Broken(error),
    })?;
    if ssl.is_direct && transport.tls().and_then(|tls| tls.alpn_protocol()) != Some(PROTOCOL) {
        let why = "the server does not know sslnegotiation=direct";
        return Err(EncryptError::Handshake(why.into()));
    }
    Ok(())
}

/// Asks whether the server has TLS.
fn ask(transport: &mut Transport, until: Option<IoDeadline>) -> Result<(), EncryptError> {
    let mut message = BytesMut::new();
    frontend::ssl_request(&mut message);
    if transport.try_write(&message)? != Some(message.len()) {
        // Eight bytes fit into the buffer of a new socket.
        return Err(io::Error::from(io::ErrorKind::WriteZero).into());
    }
    // One byte: what came behind it would not be encrypted, and must not be taken for what the server says inside.
    let mut answer = [0];
    loop {
        transport.wait(false, None, until)?;
        match transport.try_read(&mut answer)? {
            None => {}
            Some(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Some(_) => break,
        }
    }
    match answer[0] {
        b'S' => Ok(()),
        b'N' => Err(EncryptError::NotOffered),
        // An error that is not encrypted could be anybody's, so it is not shown.
        b'E' => Err(EncryptError::Handshake("the server answered the request for TLS with an error".into())),
        _ => Err(EncryptError::Handshake(
            "the server's answer to the request for TLS is none of PostgreSQL".into(),
        )),
    }
}

/// The files and checks that the settings mean. As with libpq, the server's certificate is checked in every mode if
/// the file of authorities exists.
fn outgoing(ssl: &Ssl, host: &Host) -> Result<Outgoing, EncryptError> {
    let must_verify = matches!(ssl.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    let setting = "sslrootcert";
    let servers = match &ssl.roots {
        Roots::System => Servers::Signed { setting },
        Roots::File(Some(file)) if exists(file, setting) => {
            Servers::Listed { setting, file: file.path.clone() }
        }
        Roots::File(file) if must_verify => {
            let file = file.as_ref().map_or("".into(), |file| format!(" {}", file.path.display()));
            return Err(EncryptError::Files(format!(
                "sslrootcert: there is no file{file} with the authorities to check the server's certificate with; name one, \
                 use sslrootcert=system, or another sslmode"
            )));
        }
        Roots::File(_) => Servers::Any,
    };
    let mut revocations = Vec::new();
    if let Some(file) = ssl.revocations.as_ref().filter(|file| exists(file, "sslcrl")) {
        revocations.push(("sslcrl", file.path.clone()));
    }
    revocations.extend(ssl.revocations_dir.clone().map(|dir| ("sslcrldir", dir)));
    let certificate = ssl.certificate.as_ref().filter(|file| exists(file, "sslcert"));
    let identity = certificate.zip(ssl.key.as_ref()).map(|(certificate, key)| {
        let password = ssl.key_password.as_ref().map(|secret| secret.0.clone()).unwrap_or_default();
        (certificate.path.clone(), key.path.clone(), Password::Text(password))
    });
    if let Some((_, key, _)) = &identity {
        check_private(key)?;
    }
    let is_name = host.host.parse::<std::net::IpAddr>().is_err();
    Ok(Outgoing {
        servers,
        revocations,
        host: (ssl.mode == SslMode::VerifyFull).then(|| ExpectedHost {
            name: host.host.clone(),
            advice: "name one of them in 'host', with the address in 'hostaddr', or use sslmode=verify-ca",
        }),
        name: (ssl.names_host && is_name).then(|| host.host.clone()),
        identity,
        versions: versions(ssl),
        protocol: PROTOCOL,
    })
}

fn versions(ssl: &Ssl) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
    let (older, newer) = ALL.split_at(1);
    match (ssl.min_tls13, ssl.max_tls12) {
        (true, _) => newer,
        (_, true) => older,
        _ => &ALL,
    }
}

/// Whether the file is there. A file that is named and not there is as one that is not named, as with libpq.
fn exists(file: &FileAt, setting: &str) -> bool {
    let exists = file.path.exists();
    if !exists && file.is_given {
        log::warn!(target: LOG, "{setting}: {} does not exist, and is not used", file.path.display());
    }
    exists
}

/// As with libpq, a key that others may read is not used. A key of root may be readable by its group.
fn check_private(key: &std::path::Path) -> Result<(), EncryptError> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(key)
        .map_err(|error| EncryptError::Files(format!("sslkey: {}: {error}", key.display())))?;
    let forbidden = if meta.uid() == 0 && !rustix::process::geteuid().is_root() { 0o037 } else { 0o077 };
    if meta.mode() & forbidden != 0 {
        return Err(EncryptError::Files(format!(
            "sslkey: others than its owner may use {}; chmod 600",
            key.display()
        )));
    }
    Ok(())
}
