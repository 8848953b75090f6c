//! Service files: sections of settings, of which `service` names one.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::DsnError;
use super::keys::{Origin, Settings};
use super::machine;
use crate::base::untrusted::Untrusted;

/// The directory of the file for all users, if `PGSYSCONFDIR` names no other: Debian's.
const SYSTEM_DIR: &str = "/etc/postgresql-common";
const FILE_LEN_MAX: u64 = 1 << 20;

/// Adds the settings of the service, if one is named.
pub fn add(settings: &mut Settings, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), DsnError> {
    let given = |variable: &str| environment(variable).filter(|value| !value.is_empty());
    let Some(service) = settings.get("service").map(str::to_string).or_else(|| given("PGSERVICE")) else {
        return Ok(());
    };
    let own = settings.get("servicefile").map(str::to_string).or_else(|| given("PGSERVICEFILE"));
    let own = own
        .map(PathBuf::from)
        .or_else(|| machine::home(environment).map(|home| home.join(".pg_service.conf")));
    let system = given("PGSYSCONFDIR").unwrap_or_else(|| SYSTEM_DIR.into());
    let files = [own, Some(Path::new(&system).join("pg_service.conf"))];
    for file in files.iter().flatten() {
        if let Some(text) = read(file)?
            && add_section(settings, &service, &text, file)?
        {
            return Ok(());
        }
    }
    let files: Vec<_> = files.iter().flatten().map(|file| file.display().to_string()).collect();
    // With a '=' it is a part of the string that begins in a wrong place, perhaps before a password.
    let name = if service.contains('=') { "…" } else { &service };
    Err(DsnError(format!("there is no service '{}' in {}", Untrusted(name), files.join(" or "))))
}

fn read(file: &Path) -> Result<Option<String>, DsnError> {
    let broken = |error: io::Error| DsnError(format!("the service file {}: {error}", file.display()));
    let opened = match fs::metadata(file) {
        Ok(meta) if meta.is_file() => fs::File::open(file).map_err(broken)?,
        Ok(_) => return Err(broken(io::Error::other("it is not a file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(broken(error)),
    };
    let mut text = String::new();
    opened.take(FILE_LEN_MAX + 1).read_to_string(&mut text).map_err(broken)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > FILE_LEN_MAX) {
        return Err(broken(io::Error::other("longer than a megabyte")));
    }
    Ok(Some(text))
}

/// `false`: the file has no such section.
fn add_section(settings: &mut Settings, service: &str, text: &str, file: &Path) -> Result<bool, DsnError> {
    let mut is_found = false;
    for (number, line) in text.lines().enumerate() {
        let wrong =
            |why: &str| DsnError(format!("the service file {}, line {}: {why}", file.display(), number + 1));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if is_found {
                break;
            }
            is_found = name.strip_suffix(']') == Some(service);
            continue;
        }
        if !is_found {
            continue;
        }
        if line.starts_with("ldap") {
            return Err(wrong("settings in LDAP are not supported"));
        }
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("not of the form key=value"))?;
        if key == "service" || key == "servicefile" {
            return Err(wrong("a service cannot refer to another one"));
        }
        if !settings.add(key, value, Origin::ServiceFile) {
            return Err(wrong("unknown key"));
        }
    }
    Ok(is_found)
}
