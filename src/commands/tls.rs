//! `<ssl>` of the configuration -> certificates that are loaded, and loaded anew.

use crate::base::sync::Arc;
use crate::config::{ClientCertificates, KeyPassword, SslConfig};
use crate::net::tls::{Clients, Files, Password, Tls};

/// The error is ready to be shown.
pub fn load(ssl: Option<&SslConfig>) -> Result<Option<Arc<Tls>>, String> {
    let Some(ssl) = ssl else { return Ok(None) };
    let tls = Tls::load(files(ssl)).map_err(|error| format!("{}: {error}", ssl.location))?;
    Ok(Some(Arc::new(tls)))
}

/// Certificates that were renewed are used from now on, without a restart.
pub fn reload(tls: &Tls) {
    if let Err(error) = tls.reload() {
        log::error!(target: "ZEO.runzeo", "certificates stay as they were: {error}");
    }
}

fn files(ssl: &SslConfig) -> Files {
    Files {
        certificate: ssl.certificate.clone(),
        key: ssl.key.clone(),
        password: ssl.password.as_ref().map(|password| match password {
            KeyPassword::File(path) => Password::File(path.clone()),
            #[cfg(feature = "test-storages")]
            KeyPassword::Text(text) => Password::Text(text.clone()),
        }),
        clients: match &ssl.clients {
            ClientCertificates::Listed(path) => Clients::Listed(path.clone()),
            ClientCertificates::Signed => Clients::Signed,
        },
    }
}
