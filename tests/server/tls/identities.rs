//! Certificates and keys, and servers that use them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::client::{RawClient, Speaks, connect_from};
use crate::support::process::Server;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

/// A certificate and its key.
pub struct Identity {
    pub certificate: Certificate,
    pub params: CertificateParams,
    pub key: KeyPair,
}

pub fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".into()]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2999, 1, 1);
    params
}

pub fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Identity {
    pub fn self_signed(params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        Identity { certificate: params.self_signed(&key).expect("a certificate"), params, key }
    }

    pub fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer()).expect("a certificate");
        Identity { certificate, params, key }
    }

    pub fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn pem_with_key(&self) -> String {
        self.pem() + &self.key.serialize_pem()
    }
}

/// A server with TLS and the given `authenticate`.
pub struct Secured {
    pub server: Server,
    pub files: TempDir,
    pub own: Identity,
    /// The next host from which no client was refused yet.
    pub next_host: AtomicU8,
}

impl Secured {
    pub fn start(authenticate: &str) -> Secured {
        Secured::start_with(authenticate, "")
    }

    pub fn start_with(authenticate: &str, zeo: &str) -> Secured {
        let files = tempfile::tempdir().expect("a directory");
        let own = Identity::self_signed(params("server"));
        fs::write(files.path().join("server.pem"), own.pem_with_key()).expect("write");
        fs::write(files.path().join("clients.pem"), authenticate).expect("write");
        let directory = files.path().display();
        let ssl = format!(
            "<ssl>\ncertificate {directory}/server.pem\nauthenticate {directory}/clients.pem\n</ssl>\n{zeo}"
        );
        Secured { server: Server::start_with(&ssl), files, own, next_host: AtomicU8::new(1) }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub fn config(
        &self,
        client: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        self.config_with(client, &[], version)
    }

    /// The client shows these certificates after its own.
    pub fn config_with(
        &self,
        client: Option<&Identity>,
        chain: &[&Identity],
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let builder = self.builder(version);
        Arc::new(match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let key = PrivatePkcs8KeyDer::from(client.key.serialize_der());
                let shown = std::iter::once(&client).chain(chain);
                let chain = shown.map(|shown| shown.certificate.der().clone());
                builder.with_client_auth_cert(chain.collect(), key.into()).expect("a certificate")
            }
        })
    }

    /// Does not check whether the key belongs to the certificate.
    pub fn config_unchecked(
        &self,
        client: &Identity,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let key = PrivatePkcs8KeyDer::from(client.key.serialize_der());
        let key = rustls::crypto::ring::sign::any_supported_type(&key.into()).expect("a key");
        let certified = rustls::sign::CertifiedKey::new(vec![client.certificate.der().clone()], key);
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        Arc::new(self.builder(version).with_client_cert_resolver(resolver))
    }

    pub fn builder(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.certificate.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("versions")
            .with_root_certificates(roots)
    }

    pub fn connect(&self, client: &Identity, speaks: Speaks) -> std::io::Result<RawClient> {
        let config = self.config(Some(client), &rustls::version::TLS13);
        RawClient::connect_tls(self.server.address, speaks, &config)
    }

    pub fn client(&self, client: &Identity) -> RawClient {
        let mut client = self.connect(client, Speaks::Z5).expect("connect");
        client.register_now().expect("register");
        client
    }

    /// Reads the certificates again; the server logs `line`. It does so before it replaces the old ones, so they are
    /// read twice: the second time begins after the replacement.
    pub fn reload(&self, line: &str) {
        for _ in 0..2 {
            let before = self.server.count_in_log(line);
            self.server.signal("USR2");
            self.server.wait_for_log_count(line, before + 1);
        }
    }

    /// Checks the refusal in both TLS versions, and the reason in the log.
    pub fn refuses(&self, client: Option<&Identity>, why: &str) {
        self.refuses_with(client, &[], why);
    }

    pub fn refuses_chain(&self, client: &Identity, chain: &[&Identity], why: &str) {
        self.refuses_with(Some(client), chain, why);
    }

    pub fn refuses_with(&self, client: Option<&Identity>, chain: &[&Identity], why: &str) {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let before = self.server.count_in_log(why);
            let config = self.config_with(client, chain, version);
            // The log does not repeat a line about the same host.
            let host = self.next_host.fetch_add(1, Ordering::Relaxed);
            let stream = connect_from([127, 0, 1, host].into(), self.server.address).expect("connect");
            assert!(RawClient::begin_tls(stream, Speaks::Z5, &config).is_err(), "{why}");
            self.server.wait_for_log_count(why, before + 1);
        }
    }

    pub fn accepts(&self, client: &Identity) {
        self.accepts_chain(client, &[]);
    }

    pub fn accepts_chain(&self, client: &Identity, chain: &[&Identity]) {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let config = self.config_with(Some(client), chain, version);
            let mut client =
                RawClient::connect_tls(self.server.address, Speaks::Z5, &config).expect("connect");
            client.register_now().expect("register");
        }
    }
}
