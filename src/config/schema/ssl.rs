//! `<ssl>` in `<zeo>`, and in the section of a client: certificates. The files are opened when the server starts.

use std::path::{Path, PathBuf};

use crate::client::options::TlsOptions;
use crate::config::SslConfig;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Content, KnownTo, SectionType, key, required_key};
use crate::config::zconfig::{ConfigError, Section};
use crate::net::tls::{Files, HostCheck, Password, Peers};

/// Values for all authorities that the machine trusts; the documentation of Python's server has both.
const SIGNED: &[&str] = &["-", "SIGNED"];
/// With this value Python's server trusts no certificate until a program adds some.
const DYNAMIC: &str = "DYNAMIC";

const ZEO_5: KnownTo = KnownTo::Since("ZEO 5.0");

/// The keys of ZEO 6, and `password-file`.
pub static SSL: SectionType = SectionType {
    name: "ssl",
    content: Content::Checked(&[
        required_key("certificate", Datatype::ExistingDirpath).known(ZEO_5),
        key("key", Datatype::ExistingDirpath).known(ZEO_5),
        key("password-file", Datatype::ExistingDirpath).known(KnownTo::Own),
        key("password-function", Datatype::Any).known(ZEO_5),
        required_key("authenticate", Datatype::Any).known(ZEO_5),
    ]),
};

/// The keys of a client of ZEO 6, and `password-file`.
pub static CLIENT_SSL: SectionType = SectionType {
    name: "ssl",
    content: Content::Checked(&[
        required_key("certificate", Datatype::ExistingDirpath).known(ZEO_5),
        key("key", Datatype::ExistingDirpath).known(ZEO_5),
        key("password-file", Datatype::ExistingDirpath).known(KnownTo::Own),
        key("password-function", Datatype::Any).known(ZEO_5),
        key("authenticate", Datatype::ExistingDirpath).default("SIGNED").known(ZEO_5),
        key("check-hostname", Datatype::Boolean).default("true").known(ZEO_5),
        key("server-hostname", Datatype::Any).known(ZEO_5),
    ]),
};

/// The section in `<zeo>`.
pub fn ssl(section: &Section) -> Result<SslConfig, ConfigError> {
    let authorities = section.value("authenticate");
    if let Some(value) = authorities.filter(|value| value.text.is_empty()) {
        return Err(ConfigError::at(&value.location, "authenticate: name a file, a directory, or SIGNED"));
    }
    let Some(peers) = authenticate(section)? else {
        return Err(ConfigError::at(&section.start, "<ssl> lacks the required key 'authenticate'"));
    };
    Ok(SslConfig { files: files(section, peers)?, location: section.start.clone() })
}

/// The section of a client.
pub fn client_ssl(section: &Section) -> Result<TlsOptions, ConfigError> {
    let peers = match authenticate(section)? {
        // Unlike in `<zeo>`, `~` is a home directory in Python, and an empty path is none.
        Some(Peers::Listed(_)) => {
            section.get("authenticate", datatypes::existing_dirpath)?.map(Peers::Listed)
        }
        signed => signed,
    };
    let peers = peers.filter(|peers| *peers != Peers::Listed(PathBuf::new())).unwrap_or(Peers::Signed);
    let host = section.value("server-hostname").map(|value| value.text.clone());
    let host = HostCheck {
        is_off: !section.get("check-hostname", datatypes::boolean)?.unwrap_or(true),
        host: host.filter(|host| !host.is_empty()),
    };
    Ok(TlsOptions { files: files(section, peers)?, host })
}

/// The key `authenticate`: whose certificates are accepted.
fn authenticate(section: &Section) -> Result<Option<Peers>, ConfigError> {
    Ok(Some(match section.value("authenticate") {
        Some(value) if value.text == DYNAMIC && !Path::new(DYNAMIC).exists() => {
            return Err(ConfigError::at(
                &value.location,
                "authenticate DYNAMIC: the certificates would have to come from a Python program; name a file, a directory, or \
                 SIGNED",
            ));
        }
        // In Python's server an existing file of that name takes precedence.
        Some(value) if SIGNED.contains(&value.text.as_str()) && !Path::new(&value.text).exists() => {
            Peers::Signed
        }
        Some(value) => Peers::Listed(value.text.clone().into()),
        None => return Ok(None),
    }))
}

/// The keys that both sections have.
fn files(section: &Section, peers: Peers) -> Result<Files, ConfigError> {
    let Some(certificate) = section.get("certificate", datatypes::existing_dirpath)? else {
        return Err(ConfigError::at(&section.start, "<ssl> lacks the required key 'certificate'"));
    };
    if let Some(function) = section.value("password-function") {
        return Err(ConfigError::at(
            &function.location,
            "password-function needs Python, which this server does not have: write the password into a file that only the \
             server can read, and name it with 'password-file'",
        ));
    }
    let password = section.get("password-file", datatypes::existing_dirpath)?.map(Password::File);
    let key = section.get("key", datatypes::existing_dirpath)?;
    Ok(Files { certificate, key, password, peers })
}
