//! Reads what the files of one side contain.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificate::Certificate;
use super::files::{Files, LOG, Password, Peers, Role, TlsError, read_pem, warn_if_public};
use super::key;
use super::trust::Known;
use crate::base::clock::TimeSource;

/// The setting that says which peers are accepted.
const SETTING: &str = "authenticate";

/// The content of the files, for all later connections.
#[derive(Debug)]
pub struct Loaded {
    pub provider: Arc<CryptoProvider>,
    pub identity: Arc<SingleCertAndKey>,
    pub known: Arc<Known>,
    /// When the own certificate expires, since 1970.
    pub expires: Duration,
}

impl Loaded {
    pub fn read(files: &Files, role: Role) -> Result<Loaded, TlsError> {
        let peers = match role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let known = match &files.peers {
            Peers::Listed(path) => Known::listed(peers, SETTING, path, algorithms),
            Peers::Signed => Known::signed(peers, SETTING, algorithms),
        }?;
        let (identity, expires) = identity(files, peers, &provider)?;
        log::info!(target: LOG, "TLS: {}s have to show {known}", peers.name());
        Ok(Loaded { provider, identity: Arc::new(identity), known: Arc::new(known), expires })
    }
}

/// The own certificate and key, and when the certificate expires; checks that they match.
fn identity(
    files: &Files,
    peers: Role,
    provider: &CryptoProvider,
) -> Result<(SingleCertAndKey, Duration), TlsError> {
    read_identity(&files.certificate, files.key.as_deref(), files.password.as_ref(), peers, provider)
}

/// The certificate in a file and its key, which may be in the same file.
pub fn read_identity(
    path: &Path,
    key: Option<&Path>,
    password: Option<&Password>,
    peers: Role,
    provider: &CryptoProvider,
) -> Result<(SingleCertAndKey, Duration), TlsError> {
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
    let (key, key_path) = match key {
        Some(key_path) => (key::find(&read_pem("key", key_path)?, password, key_path)?, key_path),
        None => (key::find(&sections, password, path)?, path),
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
        let own = match peers {
            Role::Client => "clients will refuse the server",
            Role::Server => "servers will refuse the client",
        };
        log::warn!(target: LOG, "TLS: {own}: {}: {why}", path.display());
    }
    Ok((SingleCertAndKey::from(CertifiedKey::new(chain, key)), own.not_after.since_epoch()))
}
