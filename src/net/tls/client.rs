//! The TLS side of a client.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::files::{Files, Role, TlsError};
use super::layer::Layer;
use super::loaded::Loaded;
use super::verify::{ExpectedHost, Verifier};

/// Which host the certificate of the server must be for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostCheck {
    /// `check-hostname false`: any.
    pub is_off: bool,
    /// `server-hostname`: this one, instead of the host of the address.
    pub host: Option<String>,
}

/// What a client needs for its connections.
#[derive(Debug)]
pub struct ClientTls {
    loaded: Loaded,
    check: HostCheck,
}

impl ClientTls {
    /// Reads the files.
    pub fn load(files: &Files, check: HostCheck) -> Result<ClientTls, TlsError> {
        Ok(ClientTls { loaded: Loaded::read(files, Role::Client)?, check })
    }

    /// The client's side of a new connection. `host`: of the address; `None` for a Unix socket.
    pub fn begin(&self, host: Option<&str>) -> Result<Layer, TlsError> {
        let host = self.check.host.as_deref().or(host);
        let expected = match (self.check.is_off, host) {
            (true, _) => None,
            (false, Some(host)) => {
                Some(ExpectedHost { name: host.to_string(), advice: "name one of them in 'server-hostname'" })
            }
            (false, None) => {
                return Err(TlsError(
                    "a Unix socket has no host that the certificate of the server could be for: <ssl> needs \
                     'server-hostname', or 'check-hostname false'"
                        .into(),
                ));
            }
        };
        // The name that is sent to the server, which may have several certificates. Not what is checked: that is the
        // verifier's. An address is not sent.
        let name = host.and_then(|host| ServerName::try_from(host.to_string()).ok());
        let name = name.unwrap_or(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()));
        let refused = Arc::new(OnceLock::new());
        let verifier = Verifier::new(Arc::clone(&self.loaded.known), expected, Arc::clone(&refused));
        let broken = |error: rustls::Error| TlsError(error.to_string());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.loaded.provider))
            .with_safe_default_protocol_versions()
            .map_err(broken)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.loaded.identity) as _);
        config.resumption = Resumption::disabled();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(broken)?;
        Ok(Layer::new(connection.into(), refused))
    }
}
