//! What the keys about encryption, authentication and the wanted server mean.

use std::path::PathBuf;

use super::error::{DsnError, Secret};
use super::keys::Settings;

/// `sslmode`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SslMode {
    Disable,
    /// Only if the server refuses the session without.
    Allow,
    /// If the server can.
    Prefer,
    Require,
    /// The certificate must be signed by a known authority.
    VerifyCa,
    /// It must be for the host, too.
    VerifyFull,
}

/// Where a file is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileAt {
    pub path: PathBuf,
    /// The connection string names it; otherwise it need not exist.
    pub is_given: bool,
}

/// `sslrootcert`
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Roots {
    /// The authorities that this machine trusts.
    System,
    /// `None`: the user has no home directory.
    File(Option<FileAt>),
}

/// What the keys that begin with `ssl` say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ssl {
    pub mode: SslMode,
    /// `sslnegotiation=direct`: TLS without asking the server first.
    pub is_direct: bool,
    pub roots: Roots,
    pub certificate: Option<FileAt>,
    pub key: Option<FileAt>,
    pub key_password: Option<Secret>,
    pub revocations: Option<FileAt>,
    pub revocations_dir: Option<PathBuf>,
    /// `sslsni`: the name of the host is sent to the server.
    pub names_host: bool,
    pub min_tls13: bool,
    pub max_tls12: bool,
}

/// `channel_binding`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Binding {
    Disable,
    Prefer,
    Require,
}

/// A way in which a server lets a client prove who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    Gss,
    Md5,
    /// The server asks for nothing.
    None,
    Password,
    Scram,
    Sspi,
}

const METHODS: &[(&str, Option<Method>)] = &[
    ("gss", Some(Method::Gss)),
    ("md5", Some(Method::Md5)),
    ("none", Some(Method::None)),
    ("oauth", None),
    ("password", Some(Method::Password)),
    ("scram-sha-256", Some(Method::Scram)),
    ("sspi", Some(Method::Sspi)),
];

/// `require_auth`: whether the methods are those that are permitted, or those that are not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequiredAuth {
    /// `None`: each is permitted.
    methods: Option<(bool, Vec<Method>)>,
}

impl RequiredAuth {
    pub fn permits(&self, method: Method) -> bool {
        self.methods.as_ref().is_none_or(|(permitted, methods)| methods.contains(&method) == *permitted)
    }
}

/// `target_session_attrs`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

impl Target {
    /// Whether it asks for a server that is only read.
    pub fn is_for_reading(self) -> bool {
        matches!(self, Target::ReadOnly | Target::Standby | Target::PreferStandby)
    }
}

pub fn target(settings: &Settings) -> Result<Target, DsnError> {
    let words = [
        ("any", Target::Any),
        ("read-write", Target::ReadWrite),
        ("read-only", Target::ReadOnly),
        ("primary", Target::Primary),
        ("standby", Target::Standby),
        ("prefer-standby", Target::PreferStandby),
    ];
    Ok(settings.one_of("target_session_attrs", &words)?.unwrap_or(Target::Any))
}

pub fn binding(settings: &Settings) -> Result<Binding, DsnError> {
    let words = [("disable", Binding::Disable), ("prefer", Binding::Prefer), ("require", Binding::Require)];
    Ok(settings.one_of("channel_binding", &words)?.unwrap_or(Binding::Prefer))
}

pub fn required_auth(settings: &Settings) -> Result<RequiredAuth, DsnError> {
    let key = "require_auth";
    let Some(text) = settings.get(key) else { return Ok(RequiredAuth::default()) };
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let negated = words.iter().filter(|word| word.starts_with('!')).count();
    if negated != 0 && negated != words.len() {
        return Err(settings.wrong(key, "methods with '!' and methods without cannot be mixed"));
    }
    let mut methods = Vec::new();
    for word in words {
        let name = word.trim_start_matches('!');
        let Some((_, method)) = METHODS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<_> = METHODS.iter().map(|(name, _)| *name).collect();
            return Err(settings.wrong(key, format_args!("not a list of {}", names.join(", "))));
        };
        methods.extend(*method);
    }
    Ok(RequiredAuth { methods: Some((negated == 0, methods)) })
}

/// What the keys about TLS say. `home`: the directory of the user.
pub fn ssl(settings: &Settings, home: Option<PathBuf>) -> Result<Ssl, DsnError> {
    let dir = home.map(|home| home.join(".postgresql"));
    let file = |key: &str, name: &str| match settings.get(key) {
        Some(path) => Some(FileAt { path: path.into(), is_given: true }),
        None => dir.as_ref().map(|dir| FileAt { path: dir.join(name), is_given: false }),
    };
    let modes = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let given_mode = settings.one_of("sslmode", &modes)?;
    let roots = match settings.get("sslrootcert") {
        Some("system") => Roots::System,
        _ => Roots::File(file("sslrootcert", "root.crt")),
    };
    // Else every owner of a certificate for any host would be accepted.
    let mode = match (given_mode, &roots) {
        (None, Roots::System) => SslMode::VerifyFull,
        (Some(mode), Roots::System) if mode != SslMode::VerifyFull => {
            return Err(settings.wrong("sslmode", "with sslrootcert=system it must be verify-full"));
        }
        (mode, _) => mode.unwrap_or(SslMode::Prefer),
    };
    let negotiations = [("postgres", false), ("direct", true)];
    let is_direct = settings.one_of("sslnegotiation", &negotiations)?.unwrap_or(false);
    if is_direct && matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) {
        return Err(
            settings.wrong("sslnegotiation", "'direct' needs sslmode=require, verify-ca or verify-full")
        );
    }
    let has_certificate = certificate_mode(settings)?;
    let (min_tls13, max_tls12) = versions(settings)?;
    if settings.get("sslkey").is_some_and(|key| key.contains(':') && !key.starts_with('/')) {
        return Err(settings.wrong("sslkey", "keys in engines of OpenSSL are not supported; name a file"));
    }
    Ok(Ssl {
        mode,
        is_direct,
        roots,
        certificate: file("sslcert", "postgresql.crt").filter(|_| has_certificate),
        key: file("sslkey", "postgresql.key"),
        key_password: settings.get("sslpassword").map(|password| Secret(password.into())),
        revocations: file("sslcrl", "root.crl"),
        revocations_dir: settings.get("sslcrldir").map(PathBuf::from),
        names_host: settings.one_of("sslsni", &[("1", true), ("0", false)])?.unwrap_or(true),
        min_tls13,
        max_tls12,
    })
}

/// Whether a certificate may be sent.
fn certificate_mode(settings: &Settings) -> Result<bool, DsnError> {
    let words = [("disable", Some(false)), ("allow", Some(true)), ("require", None)];
    match settings.one_of("sslcertmode", &words)? {
        None => Ok(true),
        Some(Some(may_be_sent)) => Ok(may_be_sent),
        Some(None) => Err(settings.wrong(
            "sslcertmode",
            "'require' is not supported; to be sure that the server asks for the certificate, demand it there",
        )),
    }
}

/// Whether the version must be 1.3, and whether it must be 1.2. Older ones are not supported.
fn versions(settings: &Settings) -> Result<(bool, bool), DsnError> {
    let words = [("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)];
    let min = settings.one_of("ssl_min_protocol_version", &words)?.unwrap_or(2);
    let max = settings.one_of("ssl_max_protocol_version", &words)?.unwrap_or(3);
    if max < 2 {
        return Err(settings.wrong("ssl_max_protocol_version", "versions before TLSv1.2 are not supported"));
    }
    if min > max {
        return Err(settings.wrong("ssl_min_protocol_version", "newer than ssl_max_protocol_version"));
    }
    Ok((min == 3, max == 2))
}
