//! The parts of a certificate that are parsed here: subject, validity, allowed uses, key.
//!
//! webpki checks chains and signatures. It accepts only certificates of X.509 version 3; listed certificates may be
//! older.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::SubjectPublicKeyInfoDer;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};
use x509_cert::name::Name;

/// `id-kp-clientAuth`.
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
/// `id-kp-serverAuth`.
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
/// `id-at-commonName`.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Upper bound on the subject's length in the log.
const SUBJECT_LEN_MAX: usize = 300;

#[derive(Clone, Debug)]
pub struct Certificate {
    /// In the form of RFC 4514, safe for a log line.
    pub subject: String,
    /// The same as it is.
    pub name: String,
    pub not_before: Moment,
    pub not_after: Moment,
    pub public_key: SubjectPublicKeyInfoDer<'static>,
    /// It may sign other certificates.
    pub is_authority: bool,
    pub is_self_issued: bool,
    /// It lists its purposes, and client authentication is not among them.
    pub is_not_for_clients: bool,
    /// The same for servers.
    pub is_not_for_servers: bool,
    /// The hosts that it is for: names, also with a `*`, and addresses. Of its alternative names; if it has none, of
    /// the common name.
    pub hosts: Vec<String>,
}

/// A point in time as encoded in certificates.
#[derive(Clone, Copy, Debug)]
pub struct Moment(x509_cert::time::Time);

impl Moment {
    pub fn since_epoch(self) -> Duration {
        self.0.to_unix_duration()
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.to_date_time())
    }
}

impl Certificate {
    pub fn parse(der: &[u8]) -> Result<Certificate, String> {
        let broken = |error| format!("a certificate that cannot be read: {error}");
        let certificate = CertificateInner::<Raw>::from_der(der).map_err(broken)?;
        let tbs = certificate.tbs_certificate();
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(broken)?;
        let usage = tbs.get_extension::<ExtendedKeyUsage>().map_err(broken)?;
        let lacks = |purpose| usage.as_ref().is_some_and(|(_, usage)| !usage.0.contains(&purpose));
        let names = tbs.get_extension::<SubjectAltName>().map_err(broken)?;
        let hosts = names.map(|(_, names)| names.0.iter().filter_map(host).collect());
        let public_key = tbs.subject_public_key_info().to_der().map_err(broken)?;
        Ok(Certificate {
            subject: text_of(tbs.subject()),
            name: tbs.subject().to_string(),
            not_before: Moment(tbs.validity().not_before),
            not_after: Moment(tbs.validity().not_after),
            public_key: public_key.into(),
            is_authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
            is_self_issued: tbs.subject() == tbs.issuer(),
            is_not_for_clients: lacks(CLIENT_AUTH),
            is_not_for_servers: lacks(SERVER_AUTH),
            hosts: hosts.unwrap_or_else(|| common_names(tbs.subject())),
        })
    }

    /// Whether it is for this host: a name, or an address. As in Python's ssl module, a `*` stands for the first part
    /// of a name, alone.
    pub fn is_for_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.hosts.iter().any(|of| of.parse() == Ok(address));
        }
        self.hosts.iter().any(|of| match of.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
            None => of.eq_ignore_ascii_case(host),
        })
    }

    /// The hosts that it is for, in words for a log line.
    pub fn hosts_in_words(&self) -> String {
        const SHOWN_MAX: usize = 5;
        let shown: Vec<String> =
            self.hosts.iter().take(SHOWN_MAX).map(|host| format!("'{}'", host.escape_default())).collect();
        match shown.len() {
            0 => "no host".into(),
            _ if self.hosts.len() > SHOWN_MAX => shown.join(", ") + " and others",
            _ => shown.join(", "),
        }
    }

    /// Checks the validity at `now`. The error says what is wrong.
    pub fn check_time(&self, now: SystemTime) -> Result<(), String> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if now < self.not_before.since_epoch() {
            Err(format!("the certificate is not valid before {}", self.not_before))
        } else if now > self.not_after.since_epoch() {
            Err(format!("the certificate expired on {}", self.not_after))
        } else {
            Ok(())
        }
    }
}

/// The host that an alternative name names, if it names one.
fn host(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => match *bytes.as_bytes() {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(bytes.as_bytes()).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

fn common_names(subject: &Name) -> Vec<String> {
    let names = subject.iter_rdn().flat_map(|names| names.iter());
    let is_common = |name: &&AttributeTypeAndValue| name.oid == COMMON_NAME;
    names.filter(is_common).map(|name| String::from_utf8_lossy(name.value.value()).into_owned()).collect()
}

/// The subject as text. The peer chooses it, so nothing in it may break a log line.
fn text_of(name: &Name) -> String {
    let text: String = name
        .to_string()
        .chars()
        .take(SUBJECT_LEN_MAX)
        .map(|c| if c.is_control() || c == '\'' { '?' } else { c })
        .collect();
    if text.is_empty() { "(a certificate without a subject)".into() } else { text }
}
