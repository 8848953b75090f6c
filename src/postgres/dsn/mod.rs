//! Where and how to connect: what libpq's connection strings, environment variables, service and password files say.
//!
//! Everything of libpq 18 is understood; what is not supported is an error that names it. No error, and no `Debug`,
//! shows a password.

mod error;
mod hosts;
mod keys;
mod keyword;
mod machine;
mod passfile;
mod service;
#[cfg(test)]
mod tests;
mod uri;
mod values;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use error::{DsnError, Secret};
pub use hosts::{Host, of_lines as hosts_of_lines};
use keys::Settings;
pub use machine::uid_of;
pub use values::{Binding, FileAt, Method, RequiredAuth, Roots, Ssl, SslMode, Target};

use super::peer::{KeepAlive, Peer, SocketPlace};

/// What a connection string says, with everything else that it depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dsn {
    /// At least one.
    pub hosts: Vec<Host>,
    pub dbname: String,
    pub user: String,
    password: Option<Secret>,
    passfile: Option<PathBuf>,
    /// For each address. `None`: not given; zero: without end.
    pub connect_timeout: Option<Duration>,
    pub keep_alive: KeepAlive,
    pub application_name: Option<String>,
    pub fallback_application_name: Option<String>,
    pub options: Option<String>,
    pub ssl: Ssl,
    pub channel_binding: Binding,
    pub required_auth: RequiredAuth,
    pub target: Target,
    /// `load_balance_hosts`: in a random order.
    pub is_shuffled: bool,
    /// The user of the system that the server's process must belong to, at a Unix socket.
    pub required_peer: Option<String>,
}

impl Dsn {
    /// `environment`: the variables, such as `PGHOST`. Reads the service file if there is a service. Values of the
    /// string come before those of the service file, and these before the environment.
    pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Dsn, DsnError> {
        let pairs = pairs(text)?;
        if text.contains('\0') || pairs.iter().any(|(_, value)| value.contains('\0')) {
            return Err(DsnError("a zero byte is not permitted".into()));
        }
        let mut settings = Settings::from_pairs(pairs);
        service::add(&mut settings, environment)?;
        settings.add_environment(environment);
        settings.check_supported()?;
        check_ignored(&settings)?;
        let home = machine::home(environment);
        let text = |key: &str| settings.get(key).map(str::to_string);
        let user = text("user").or_else(machine::user).ok_or_else(|| {
            DsnError("user: none is given, and the user of this process has no name in /etc/passwd".into())
        })?;
        let words = [("disable", false), ("random", true)];
        Ok(Dsn {
            hosts: hosts::parse(&settings)?,
            dbname: text("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: text("password").map(Secret),
            passfile: text("passfile")
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|home| home.join(".pgpass"))),
            connect_timeout: settings
                .number("connect_timeout")?
                .map(|count| seconds(count).unwrap_or_default()),
            keep_alive: keep_alive(&settings)?,
            application_name: text("application_name"),
            fallback_application_name: text("fallback_application_name"),
            options: text("options"),
            ssl: values::ssl(&settings, home)?,
            channel_binding: values::binding(&settings)?,
            required_auth: values::required_auth(&settings)?,
            target: values::target(&settings)?,
            is_shuffled: settings.one_of("load_balance_hosts", &words)?.unwrap_or(false),
            required_peer: text("requirepeer"),
        })
    }

    /// The password for a host: of the string, or of the password file.
    pub fn password_for(&self, host: &Host) -> Option<Secret> {
        let from_file = || {
            let name = if host.host == hosts::DEFAULT_SOCKET_DIR { "localhost" } else { &host.host };
            let wanted =
                passfile::Connecting { host: name, port: host.port, dbname: &self.dbname, user: &self.user };
            passfile::find(self.passfile.as_ref()?, wanted)
        };
        self.password.clone().or_else(from_file)
    }

    /// The port of the first host.
    pub fn port(&self) -> u16 {
        self.hosts.first().map_or(hosts::DEFAULT_PORT, |host| host.port)
    }

    /// The same, for one server alone, to which a session has been opened.
    pub fn only_at(&self, peer: &Peer) -> Dsn {
        let address = match &peer.place {
            SocketPlace::Tcp(address) => Some(address.ip()),
            SocketPlace::Unix(_) => None,
        };
        let host = Host { host: peer.host.clone(), address, port: peer.port };
        Dsn { hosts: vec![host], target: Target::Any, ..self.clone() }
    }

    /// Hosts, database and user, for log lines. Without the password.
    pub fn describe(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Dsn {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |part: &dyn Fn(&Host) -> String| self.hosts.iter().map(part).collect::<Vec<_>>().join(",");
        let (hosts, ports) = (join(&|host| host.host.clone()), join(&|host| host.port.to_string()));
        write!(f, "host={hosts} port={ports} dbname={} user={}", self.dbname, self.user)
    }
}

/// The settings of a string.
fn pairs(text: &str) -> Result<Vec<(String, String)>, DsnError> {
    let pairs = match uri::strip_scheme(text) {
        Some(rest) => uri::parse(rest)?,
        None => keyword::parse(text)?,
    };
    keyword::check_keys(&pairs)?;
    Ok(pairs)
}

/// Seconds; `None`: as if they were not given.
fn seconds(count: i32) -> Option<Duration> {
    u64::try_from(count).ok().filter(|count| *count > 0).map(Duration::from_secs)
}

fn keep_alive(settings: &Settings) -> Result<KeepAlive, DsnError> {
    let positive = |key: &str| Ok(settings.number(key)?.filter(|count| *count > 0));
    Ok(KeepAlive {
        is_off: settings.number("keepalives")? == Some(0),
        idle: positive("keepalives_idle")?.and_then(seconds),
        interval: positive("keepalives_interval")?.and_then(seconds),
        count: positive("keepalives_count")?.and_then(|count| u32::try_from(count).ok()),
        user_timeout: positive("tcp_user_timeout")?
            .and_then(|count| u64::try_from(count).ok())
            .map(Duration::from_millis),
    })
}

/// Keys that have no effect here: those that ask for more than nothing are refused. Without GSSAPI, `gssencmode=prefer`
/// means no encryption by it, and settings of it have no meaning.
fn check_ignored(settings: &Settings) -> Result<(), DsnError> {
    let encryption = [("disable", true), ("prefer", true), ("require", false)];
    if settings.one_of("gssencmode", &encryption)? == Some(false) {
        return Err(
            settings.wrong("gssencmode", "encryption by GSSAPI is not supported; use sslmode=require")
        );
    }
    if let Some(encoding) = settings.get("client_encoding")
        && !["auto", "utf8", "utf-8", "unicode"].contains(&encoding.to_ascii_lowercase().as_str())
    {
        return Err(settings.wrong("client_encoding", "it is always UTF8 here; leave it out"));
    }
    let versions = [("3.0", true), ("latest", false), ("3.2", false)];
    if settings.one_of("min_protocol_version", &versions)? == Some(false) {
        return Err(
            settings.wrong("min_protocol_version", "version 3.0 of the protocol is spoken, no later one")
        );
    }
    settings.one_of("max_protocol_version", &versions)?;
    Ok(())
}
