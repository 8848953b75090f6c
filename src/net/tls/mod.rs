//! TLS: the server's certificate and key, the clients that it accepts, and the TLS state of a connection.
//!
//! [`Tls`] belongs to a listener, [`layer::Layer`] to a connection. Versions 1.2 and 1.3; every client must show a
//! certificate, as with Python's server. Sessions are never resumed: ZEO's clients stay connected, and each new
//! connection is checked again.

mod certificate;
mod files;
mod key;
pub mod layer;
mod trust;
mod verify;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection};

use certificate::Certificate;
pub use files::{Clients, Files, Password, TlsError};
use files::{LOG, read_pem, warn_if_public};
use layer::Layer;
use trust::Known;
use verify::Verifier;

use crate::base::clock::TimeSource;

/// The content of the files, for all later connections.
#[derive(Debug)]
struct Loaded {
    provider: Arc<CryptoProvider>,
    identity: Arc<SingleCertAndKey>,
    known: Arc<Known>,
}

/// The TLS side of a listener.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    loaded: ArcSwap<Loaded>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: Files) -> Result<Tls, TlsError> {
        let loaded = ArcSwap::from_pointee(Loaded::read(&files)?);
        Ok(Tls { files, loaded })
    }

    /// Reads the files again, for later connections. After an error nothing has changed.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.loaded.store(Arc::new(Loaded::read(&self.files)?));
        Ok(())
    }

    /// The server's side of a new connection.
    pub fn begin(&self) -> Result<Layer, rustls::Error> {
        let loaded = self.loaded.load();
        let refused = Arc::new(OnceLock::new());
        let verifier = Verifier::new(Arc::clone(&loaded.known), Arc::clone(&refused));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&loaded.provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&loaded.identity) as _);
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Layer::new(ServerConnection::new(Arc::new(config))?, refused))
    }
}

impl Loaded {
    fn read(files: &Files) -> Result<Loaded, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let known = match &files.clients {
            Clients::Listed(path) => Known::listed(path, algorithms),
            Clients::Signed => Known::signed(algorithms),
        }?;
        let identity = Arc::new(identity(files, &provider)?);
        log::info!(target: LOG, "TLS: clients have to show {known}");
        Ok(Loaded { provider, identity, known: Arc::new(known) })
    }
}

/// The server's certificate and key; checks that they match.
fn identity(files: &Files, provider: &CryptoProvider) -> Result<SingleCertAndKey, TlsError> {
    let path = &files.certificate;
    let sections = read_pem("certificate", path)?;
    let chain: Vec<CertificateDer<'static>> = sections
        .iter()
        .filter(|section| section.tag() == "CERTIFICATE")
        .map(|section| CertificateDer::from(section.contents().to_vec()))
        .collect();
    let Some(first) = chain.first() else {
        return Err(TlsError(format!(
            "certificate: {} has no '-----BEGIN CERTIFICATE-----'",
            path.display()
        )));
    };
    let own = Certificate::parse(first)
        .map_err(|error| TlsError(format!("certificate: {}: {error}", path.display())))?;
    let (key, key_path) = match &files.key {
        Some(key_path) => {
            (key::find(&read_pem("key", key_path)?, files.password.as_ref(), key_path)?, key_path)
        }
        None => (key::find(&sections, files.password.as_ref(), path)?, path),
    };
    warn_if_public(key_path);
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| TlsError(format!("key: {} cannot be used: {error}", key_path.display())))?;
    if key.public_key().is_some_and(|public| public.as_ref() != own.public_key.as_ref()) {
        return Err(TlsError(format!(
            "key: {} is not the key of the certificate in {}",
            key_path.display(),
            path.display()
        )));
    }
    log::info!(target: LOG, "TLS: certificate of '{}', valid until {}", own.subject, own.not_after);
    if let Err(why) = own.check_time(TimeSource::SYSTEM.system_time()) {
        log::warn!(target: LOG, "TLS: clients will refuse the server: {}: {why}", path.display());
    }
    Ok(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}
