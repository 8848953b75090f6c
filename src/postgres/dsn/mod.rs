//! Where and how to connect: what libpq's connection strings, environment variables, service and password files say.

mod keyword;

use std::fmt;
use std::time::Duration;

pub use super::peer::KeepAlive;

/// A connection string that cannot be used. Never shows a value that may be a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DsnError(pub(super) String);

impl fmt::Display for DsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DsnError {}

/// A password, which no message shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Password(pub(super) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a password)")
    }
}

/// One of the hosts, tried in their order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// A name, an address, or the directory of a Unix socket.
    pub host: String,
    /// The address, if the name must not be looked up.
    pub address: Option<std::net::IpAddr>,
    pub port: u16,
}

/// What a connection string says, with everything else that it depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dsn {
    pub hosts: Vec<Host>,
    pub dbname: String,
    pub user: String,
    pub password: Option<Password>,
    pub connect_timeout: Option<Duration>,
    pub keep_alive: KeepAlive,
    pub application_name: Option<String>,
    pub options: Option<String>,
}

impl Dsn {
    /// `environment`: the variables, such as `PGHOST`.
    pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Dsn, DsnError> {
        let pairs = keyword::parse(text)?;
        let get = |key: &str, variable: &str| {
            let given = pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone());
            given.or_else(|| environment(variable)).filter(|value| !value.is_empty())
        };
        let user = get("user", "PGUSER").unwrap_or_else(|| "postgres".into());
        let host = get("host", "PGHOST").unwrap_or_else(|| "/var/run/postgresql".into());
        let port = get("port", "PGPORT").unwrap_or_else(|| "5432".into());
        let port = port.parse().map_err(|_| DsnError("port: not a number".into()))?;
        Ok(Dsn {
            hosts: vec![Host { host, address: None, port }],
            dbname: get("dbname", "PGDATABASE").unwrap_or_else(|| user.clone()),
            user,
            password: get("password", "PGPASSWORD").map(Password),
            connect_timeout: None,
            keep_alive: KeepAlive::default(),
            application_name: get("application_name", "PGAPPNAME"),
            options: get("options", "PGOPTIONS"),
        })
    }

    /// Hosts, database and user, for log lines. Without the password.
    pub fn describe(&self) -> String {
        let join = |part: &dyn Fn(&Host) -> String| self.hosts.iter().map(part).collect::<Vec<_>>().join(",");
        format!(
            "host={} port={} dbname={} user={}",
            join(&|host| host.host.clone()),
            join(&|host| host.port.to_string()),
            self.dbname,
            self.user
        )
    }
}
