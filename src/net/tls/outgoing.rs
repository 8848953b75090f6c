//! The TLS side of a client that may leave out what ZEO demands: a certificate of its own, and the check of the
//! server's. For servers of other kinds, whose clients have their own rules for both.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

use super::files::{Password, Role, TlsError};
use super::loaded::read_identity;
use super::trust::Known;
use super::verify::{ExpectedHost, Verifier};

/// Which servers are accepted.
#[derive(Clone, Debug)]
pub enum Servers {
    /// Every one that has the key of its certificate.
    Any,
    /// Those whose certificate is in the file, or signed by an authority in it. `setting` names the file in messages.
    Listed { setting: &'static str, file: PathBuf },
    /// Those whose certificate is signed by an authority that this machine trusts.
    Signed { setting: &'static str },
}

/// What a connection needs.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub servers: Servers,
    /// Files or directories with revocation lists, and the settings that name them.
    pub revocations: Vec<(&'static str, PathBuf)>,
    /// The host that the certificate must be for.
    pub host: Option<ExpectedHost>,
    /// The name that is sent to the server, which may have several certificates.
    pub name: Option<String>,
    /// The own certificate, its key, and the key's password.
    pub identity: Option<(PathBuf, PathBuf, Password)>,
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// The protocol that is spoken inside.
    pub protocol: &'static [u8],
}

/// The reason for which the server was refused, if it was.
pub type Refused = Arc<OnceLock<String>>;

impl Outgoing {
    /// The client's side of a new connection. The files are read each time: they may have changed.
    pub fn begin(&self) -> Result<(ClientConnection, Refused), TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let refused = Refused::default();
        let known = match &self.servers {
            Servers::Any => None,
            Servers::Listed { setting, file } => {
                Some(Known::listed(Role::Server, setting, file, algorithms)?)
            }
            Servers::Signed { setting } => Some(Known::signed(Role::Server, setting, algorithms)?),
        };
        let verifier = match known {
            None => Verifier::of_any(algorithms, Arc::clone(&refused)),
            Some(mut known) => {
                for (setting, path) in &self.revocations {
                    known.add(setting, path)?;
                }
                Verifier::new(Arc::new(known), self.host.clone(), Arc::clone(&refused))
            }
        };
        let broken = |error: rustls::Error| TlsError(error.to_string());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .map_err(broken)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key, password)) => {
                let (identity, _) =
                    read_identity(certificate, Some(key), Some(password), Role::Server, &provider)?;
                config.with_client_cert_resolver(Arc::new(identity))
            }
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![self.protocol.to_vec()];
        config.enable_sni = self.name.is_some();
        let name = self.name.clone().and_then(|name| ServerName::try_from(name).ok());
        let name = name.unwrap_or(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()));
        Ok((ClientConnection::new(Arc::new(config), name).map_err(broken)?, refused))
    }
}

/// The `tls-server-end-point` of RFC 5929: a hash of the server's certificate, which binds what is said inside a
/// connection to it. `None`: the certificate's signature has no hash of its own that is known here.
pub fn end_point(tls: &ClientConnection) -> Option<Vec<u8>> {
    let der = tls.peer_certificates()?.first()?;
    let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
    match certificate.signature_algorithm().oid.to_string().as_str() {
        // With MD5 and SHA-1 as with SHA-256: RSA, ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(der).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(der).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(der).to_vec()),
        _ => None,
    }
}
