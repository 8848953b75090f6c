//! The client verifier for rustls, one for each connection, so that the reason of a refusal is kept with its
//! connection.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};
use webpki::RawPublicKeyEntity;

use super::certificate::Certificate;
use super::trust::Known;

#[derive(Debug)]
pub struct Verifier {
    known: Arc<Known>,
    /// The reason if the client is refused.
    refused: Arc<OnceLock<String>>,
}

impl Verifier {
    pub fn new(known: Arc<Known>, refused: Arc<OnceLock<String>>) -> Verifier {
        Verifier { known, refused }
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
        let certificate =
            Certificate::parse(end_entity).map_err(|why| self.refuse(why, CertificateError::BadEncoding))?;
        self.known.check(end_entity, intermediates, now).map_err(|refusal| {
            self.refuse(format!("'{}': {}", certificate.subject, refusal.why), refusal.error)
        })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = self.public_key(cert)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| bad_signature())?;
        let offered = self.known.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let Some((_, algorithms)) = offered else {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        };
        // In TLS 1.2 a signature scheme does not determine the curve.
        if algorithms.iter().any(|one| key.verify_signature(*one, message, dss.signature()).is_ok()) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(bad_signature())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &self.public_key(cert)?, dss, &self.known.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.known.algorithms.supported_schemes()
    }
}

fn bad_signature() -> Error {
    Error::InvalidCertificate(CertificateError::BadSignature)
}
