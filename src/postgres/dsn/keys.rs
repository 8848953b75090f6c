//! The keys of connection strings and of service files, and the variables of the environment that stand for them.

use std::collections::BTreeMap;
use std::fmt;

use super::error::DsnError;

/// Each key, and its variable if it has one. Those of libpq 18.
const KEYS: &[(&str, Option<&str>)] = &[
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("client_encoding", Some("PGCLIENTENCODING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("fallback_application_name", None),
    ("gssdelegation", Some("PGGSSDELEGATION")),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("gsslib", Some("PGGSSLIB")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("krbsrvname", Some("PGKRBSRVNAME")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("max_protocol_version", Some("PGMAXPROTOCOLVERSION")),
    ("min_protocol_version", Some("PGMINPROTOCOLVERSION")),
    ("oauth_client_id", None),
    ("oauth_client_secret", None),
    ("oauth_issuer", None),
    ("oauth_scope", None),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("replication", None),
    ("require_auth", Some("PGREQUIREAUTH")),
    ("requirepeer", Some("PGREQUIREPEER")),
    ("scram_client_key", None),
    ("scram_server_key", None),
    ("service", Some("PGSERVICE")),
    ("servicefile", Some("PGSERVICEFILE")),
    ("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION")),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslcertmode", Some("PGSSLCERTMODE")),
    ("sslcompression", Some("PGSSLCOMPRESSION")),
    ("sslcrl", Some("PGSSLCRL")),
    ("sslcrldir", Some("PGSSLCRLDIR")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslkeylogfile", None),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslpassword", None),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslsni", Some("PGSSLSNI")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
];

/// Keys that are libpq's and cannot be used here, and why.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("oauth_client_id", "authentication by OAuth"),
    ("oauth_client_secret", "authentication by OAuth"),
    ("oauth_issuer", "authentication by OAuth"),
    ("oauth_scope", "authentication by OAuth"),
    ("replication", "connections for replication"),
    ("scram_client_key", "keys in place of the password"),
    ("scram_server_key", "keys in place of the password"),
    ("sslkeylogfile", "a log of the keys of TLS"),
];

/// Whether there is a key of this name.
pub fn exists(key: &str) -> bool {
    KEYS.iter().any(|(known, _)| *known == key)
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    String,
    ServiceFile,
    Environment,
}

/// The values of keys. The first source of a value has precedence.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<&'static str, (String, Origin)>);

impl Settings {
    /// Of several values of the string for one key, the last counts. The keys must exist.
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Settings {
        let mut settings = Settings::default();
        for (key, value) in pairs {
            if let Some((key, _)) = KEYS.iter().find(|(known, _)| *known == key) {
                settings.0.insert(key, (value, Origin::String));
            }
        }
        settings
    }

    /// Sets a value unless there is one. `false`: there is no such key.
    pub fn add(&mut self, key: &str, value: &str, origin: Origin) -> bool {
        let Some((key, _)) = KEYS.iter().find(|(known, _)| *known == key) else { return false };
        self.0.entry(key).or_insert_with(|| (value.to_string(), origin));
        true
    }

    /// Takes what the string and the service file have not said from the environment.
    pub fn add_environment(&mut self, environment: &dyn Fn(&str) -> Option<String>) {
        for (key, variable) in KEYS {
            if let Some(value) = variable.and_then(environment) {
                self.add(key, &value, Origin::Environment);
            }
        }
    }

    /// The value; `None` also if it is empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// An error about the value of a key, with the place where the value is.
    pub fn wrong(&self, key: &str, why: impl fmt::Display) -> DsnError {
        let variable = KEYS.iter().find(|(known, _)| *known == key).and_then(|(_, variable)| *variable);
        match (self.0.get(key).map(|(_, origin)| *origin), variable) {
            (Some(Origin::Environment), Some(variable)) => DsnError(format!("{variable}: {why}")),
            (Some(Origin::ServiceFile), _) => DsnError(format!("{key}, in the service file: {why}")),
            _ => DsnError(format!("{key}: {why}")),
        }
    }

    /// Refuses what cannot be used here.
    pub fn check_supported(&self) -> Result<(), DsnError> {
        for (key, what) in UNSUPPORTED {
            let is_off = |value: &str| *key == "replication" && ["false", "off", "no", "0"].contains(&value);
            if self.get(key).is_some_and(|value| !is_off(value)) {
                return Err(self.wrong(key, format_args!("not supported ({what}); leave it out")));
            }
        }
        Ok(())
    }

    /// One of several words; `None`: there is no value.
    pub fn one_of<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, DsnError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == value) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(self.wrong(key, format_args!("not one of {}", words.join(", "))))
            }
        }
    }

    /// A number, with blanks around it.
    pub fn number(&self, key: &str) -> Result<Option<i32>, DsnError> {
        let parse = |value: &str| {
            value.trim().parse().map_err(|_| self.wrong(key, "not a whole number of at most 2147483647"))
        };
        self.get(key).map(parse).transpose()
    }
}
