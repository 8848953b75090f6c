//! The peers that are accepted: the certificates of `authenticate`. For a server these are clients, for a client
//! servers.
//!
//! A listed certificate admits the peer that owns it, and its issuer does not matter: ZEO's peers sign their own. A
//! listed authority also admits the peers whose certificates it signed. Only a certificate's own extensions make it an
//! authority, as with `VERIFY_X509_STRICT` in Python.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::certificate::Certificate;
use super::files::{LOG, Role, TlsError, read_pem};

/// File name endings of certificates in a directory that was not prepared with `c_rehash`.
const ENDINGS: &[&str] = &["pem", "crt", "cer"];

pub struct Known {
    /// What the peers are.
    peers: Role,
    /// The setting that names the certificates, for messages.
    setting: &'static str,
    /// Listed certificates, by their bytes.
    listed: HashMap<Vec<u8>, Certificate>,
    authorities: Vec<Authority>,
    /// If there are any, every certificate must be covered by one of them.
    revocations: Vec<CertRevocationList<'static>>,
    pub algorithms: WebPkiSupportedAlgorithms,
}

struct Authority {
    anchor: TrustAnchor<'static>,
    certificate: Certificate,
}

/// Why a certificate is not accepted: for the log, and for the alert that the client gets.
pub struct Refusal {
    pub why: String,
    pub error: CertificateError,
}

impl Refusal {
    fn new(why: impl Into<String>, error: CertificateError) -> Refusal {
        Refusal { why: why.into(), error }
    }
}

impl Known {
    /// The certificates in a file, or in all files of a directory.
    pub fn listed(
        peers: Role,
        setting: &'static str,
        path: &Path,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Known, TlsError> {
        let mut known = Known::nobody(peers, setting, algorithms);
        known.add(setting, path)?;
        if known.listed.is_empty() {
            return Err(unreadable(
                setting,
                path,
                &match peers {
                    Role::Client => "has no certificate of a client or an authority: nobody could connect",
                    Role::Server => "has no certificate of a server or an authority: no server is trusted",
                },
            ));
        }
        Ok(known)
    }

    /// The authorities that this machine trusts.
    pub fn signed(
        peers: Role,
        setting: &'static str,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Known, TlsError> {
        let mut known = Known::nobody(peers, setting, algorithms);
        let found = rustls_native_certs::load_native_certs();
        for der in &found.certs {
            // Some machines trust certificates that are too old to be parsed.
            if let Ok(certificate) = Certificate::parse(der) {
                known.add_authority(der, certificate);
            }
        }
        if known.authorities.is_empty() {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(TlsError(format!(
                "{setting}: this machine trusts no authority{why}; install ca-certificates, or name a file"
            )));
        }
        Ok(known)
    }

    fn nobody(peers: Role, setting: &'static str, algorithms: WebPkiSupportedAlgorithms) -> Known {
        Known {
            peers,
            setting,
            listed: HashMap::new(),
            authorities: Vec::new(),
            revocations: Vec::new(),
            algorithms,
        }
    }

    /// Adds what is in a file, or in all files of a directory. `setting` names it in messages.
    pub fn add(&mut self, setting: &str, path: &Path) -> Result<(), TlsError> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                for file in files_of(path).map_err(|error| unreadable(setting, path, &error))? {
                    self.add_file(setting, &file)?;
                }
                Ok(())
            }
            Ok(_) => self.add_file(setting, path),
            Err(error) => Err(unreadable(setting, path, &error)),
        }
    }

    fn add_file(&mut self, setting: &str, path: &Path) -> Result<(), TlsError> {
        let unreadable = |why: &dyn fmt::Display| unreadable(setting, path, why);
        for section in read_pem(setting, path)? {
            match section.tag() {
                "CERTIFICATE" | "X509 CERTIFICATE" => {
                    let der = section.into_contents();
                    let certificate = Certificate::parse(&der).map_err(|error| unreadable(&error))?;
                    if certificate.is_authority && !self.listed.contains_key(&der) {
                        self.add_authority(&CertificateDer::from(der.as_slice()), certificate.clone());
                    }
                    self.listed.insert(der, certificate);
                }
                "X509 CRL" => {
                    let list = OwnedCertRevocationList::from_der(section.contents())
                        .map_err(|error| unreadable(&format_args!("a revocation list: {error}")))?;
                    self.revocations.push(list.into());
                }
                // Other sections, such as keys, are ignored.
                _ => {}
            }
        }
        Ok(())
    }

    fn add_authority(&mut self, der: &CertificateDer<'_>, certificate: Certificate) {
        match webpki::anchor_from_trusted_cert(der) {
            Ok(anchor) => self.authorities.push(Authority { anchor: anchor.to_owned(), certificate }),
            Err(error) => {
                let subject = &certificate.subject;
                log::warn!(target: LOG, "TLS: '{subject}' cannot be used as an authority: {error}");
            }
        }
    }

    /// Whether the certificate's owner is accepted.
    pub fn check(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        match self.listed.get(der.as_ref()) {
            // A certificate that an authority has signed is also checked against the revocation lists.
            Some(own) if own.is_self_issued || self.revocations.is_empty() => self.check_listed(own, now),
            _ => self.check_signed(der, intermediates, now),
        }
    }

    fn check_signed(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let refused = |error| refusal(&error, self.peers, self.setting);
        let certificate = EndEntityCert::try_from(der).map_err(refused)?;
        // webpki does not check whether an authority has expired.
        let anchors: Vec<TrustAnchor<'_>> = self
            .authorities
            .iter()
            .filter(|authority| authority.certificate.check_time(system_time(now)).is_ok())
            .map(|authority| authority.anchor.clone())
            .collect();
        let lists: Vec<&CertRevocationList<'_>> = self.revocations.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::EndEntity)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let usage = match self.peers {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        certificate
            .verify_for_usage(self.algorithms.all, &anchors, intermediates, now, usage, revocation, None)
            .map(drop)
            .map_err(refused)
    }

    fn check_listed(&self, certificate: &Certificate, now: UnixTime) -> Result<(), Refusal> {
        let now = system_time(now);
        certificate.check_time(now).map_err(|why| Refusal::new(why, CertificateError::Expired))?;
        let is_for_others = match self.peers {
            Role::Client => certificate.is_not_for_clients,
            Role::Server => certificate.is_not_for_servers,
        };
        if is_for_others { Err(wrong_purpose(self.peers)) } else { Ok(()) }
    }
}

fn wrong_purpose(peers: Role) -> Refusal {
    let why = format!("the certificate is not for {}s (extended key usage)", peers.name());
    Refusal::new(why, CertificateError::InvalidPurpose)
}

/// webpki's reasons, worded for operators.
fn refusal(error: &webpki::Error, peers: Role, setting: &str) -> Refusal {
    match error {
        webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity => {
            let why = format!("the certificate is not in '{setting}', and no authority there has signed it");
            Refusal::new(why, CertificateError::UnknownIssuer)
        }
        webpki::Error::CertExpired { .. } => {
            Refusal::new("the certificate, or one that it depends on, has expired", CertificateError::Expired)
        }
        webpki::Error::CertNotValidYet { .. } => {
            let why = "the certificate, or one that it depends on, is not valid yet";
            Refusal::new(why, CertificateError::NotValidYet)
        }
        webpki::Error::CertRevoked => {
            Refusal::new("the certificate was revoked by its authority", CertificateError::Revoked)
        }
        webpki::Error::UnknownRevocationStatus => {
            let why = format!("no revocation list in '{setting}' covers the certificate");
            Refusal::new(why, CertificateError::UnknownRevocationStatus)
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => wrong_purpose(peers),
        other => Refusal::new(
            format!("the certificate cannot be verified: {other}"),
            CertificateError::Other(rustls::OtherError(Arc::new(other.clone()))),
        ),
    }
}

/// The files that OpenSSL would read in a directory: those with names as `c_rehash` makes them, of hashed subjects. A
/// directory without such names, which OpenSSL treats as empty: all files with the ending of a certificate.
fn files_of(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let (hashed, others): (Vec<PathBuf>, Vec<PathBuf>) = paths.into_iter().partition(|path| is_hashed(path));
    if !hashed.is_empty() {
        return Ok(hashed);
    }
    let ends = |path: &PathBuf| path.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known));
    Ok(others.into_iter().filter(ends).collect())
}

/// `9d66eef0.0`, or `9d66eef0.r0` for a revocation list.
fn is_hashed(path: &Path) -> bool {
    let Some((hash, number)) = path.file_name().and_then(|name| name.to_str()?.split_once('.')) else {
        return false;
    };
    let number = number.strip_prefix('r').unwrap_or(number);
    hash.len() == 8
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn unreadable(setting: &str, path: &Path, why: &dyn fmt::Display) -> TlsError {
    TlsError(format!("{setting}: {}: {why}", path.display()))
}

fn system_time(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs())
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (listed, authorities) = (self.listed.len(), self.authorities.len());
        match listed {
            0 => write!(f, "a certificate of one of {authorities} authorities that this machine trusts")?,
            _ => write!(
                f,
                "one of {listed} certificates, or one signed by {authorities} authorities among them"
            )?,
        }
        match self.revocations.len() {
            0 => Ok(()),
            lists => write!(f, "; {lists} revocation lists"),
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
