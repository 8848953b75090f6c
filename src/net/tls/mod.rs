//! TLS: certificate and key of one side, the peers that it accepts, and the TLS state of a connection.
//!
//! [`Tls`] belongs to a listener, [`ClientTls`] to a client, [`layer::Layer`] to a connection. Versions 1.2 and 1.3;
//! both sides must show a certificate, as with Python's. Sessions are never resumed: ZEO's clients stay connected, and
//! each new connection is checked again.

mod certificate;
mod client;
mod files;
mod key;
pub mod layer;
mod loaded;
pub mod outgoing;
mod trust;
pub mod verify;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{ServerConfig, ServerConnection};

pub use client::{ClientTls, HostCheck};
use files::Role;
pub use files::{Files, Password, Peers, TlsError};
use layer::Layer;
use loaded::Loaded;
use verify::Verifier;

/// The TLS side of a listener.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    loaded: ArcSwap<Loaded>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: Files) -> Result<Tls, TlsError> {
        let loaded = ArcSwap::from_pointee(Loaded::read(&files, Role::Server)?);
        Ok(Tls { files, loaded })
    }

    /// Reads the files again, for later connections. After an error nothing has changed.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.loaded.store(Arc::new(Loaded::read(&self.files, Role::Server)?));
        Ok(())
    }

    /// When the certificate that was read last expires, since 1970.
    pub fn expires(&self) -> Duration {
        self.loaded.load().expires
    }

    /// The server's side of a new connection.
    pub fn begin(&self) -> Result<Layer, rustls::Error> {
        let loaded = self.loaded.load();
        let refused = Arc::new(OnceLock::new());
        let verifier = Verifier::new(Arc::clone(&loaded.known), None, Arc::clone(&refused));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&loaded.provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&loaded.identity) as _);
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Layer::new(ServerConnection::new(Arc::new(config))?.into(), refused))
    }
}
