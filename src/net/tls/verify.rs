//! The verifier of peers for rustls, one for each connection, so that the reason of a refusal is kept with its
//! connection.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};
use webpki::RawPublicKeyEntity;

use super::certificate::Certificate;
use super::trust::Known;

#[derive(Debug)]
pub struct Verifier {
    /// `None`: every peer.
    known: Option<Arc<Known>>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The host that a server's certificate must be for. `None`: not checked, and for clients.
    host: Option<ExpectedHost>,
    /// The reason if the peer is refused.
    refused: Arc<OnceLock<String>>,
}

/// The host that a certificate must be for.
#[derive(Clone, Debug)]
pub struct ExpectedHost {
    pub name: String,
    /// What to do if the certificate is for another one.
    pub advice: &'static str,
}

impl Verifier {
    pub fn new(known: Arc<Known>, host: Option<ExpectedHost>, refused: Arc<OnceLock<String>>) -> Verifier {
        Verifier { algorithms: known.algorithms, known: Some(known), host, refused }
    }

    /// Accepts every peer that has the key of its certificate.
    pub fn of_any(algorithms: WebPkiSupportedAlgorithms, refused: Arc<OnceLock<String>>) -> Verifier {
        Verifier { algorithms, known: None, host: None, refused }
    }

    /// Whether the peer is accepted.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate =
            Certificate::parse(end_entity).map_err(|why| self.refuse(why, CertificateError::BadEncoding))?;
        if let Some(known) = &self.known {
            known.check(end_entity, intermediates, now).map_err(|refusal| {
                self.refuse(format!("'{}': {}", certificate.subject, refusal.why), refusal.error)
            })?;
        }
        match &self.host {
            Some(host) if !certificate.is_for_host(&host.name) => {
                let why = format!(
                    "'{}': the certificate of the server is for {}, not for '{}'; {}",
                    certificate.subject,
                    certificate.hosts_in_words(),
                    host.name,
                    host.advice
                );
                Err(self.refuse(why, CertificateError::NotValidForName))
            }
            _ => Ok(()),
        }
    }

    fn refuse(&self, why: String, error: CertificateError) -> Error {
        let _ = self.refused.set(why);
        Error::InvalidCertificate(error)
    }

    /// The certificate's key, for all versions of certificates.
    fn public_key(&self, der: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
        Certificate::parse(der)
            .map(|certificate| certificate.public_key)
            .map_err(|why| self.refuse(why, CertificateError::BadEncoding))
    }

    /// Whether the owner of the certificate has signed the message, with TLS 1.2.
    fn check_tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = self.public_key(cert)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| bad_signature())?;
        let offered = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let Some((_, algorithms)) = offered else {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        };
        // In TLS 1.2 a signature scheme does not determine the curve.
        if algorithms.iter().any(|one| key.verify_signature(*one, message, dss.signature()).is_ok()) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(bad_signature())
    }

    /// The same with TLS 1.3.
    fn check_tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &self.public_key(cert)?, dss, &self.algorithms)
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints, as Python's server: clients have one certificate and show it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn bad_signature() -> Error {
    Error::InvalidCertificate(CertificateError::BadSignature)
}
