//! `<access>`: who may do what with a storage.

use crate::base::network::Network;
use crate::config::zconfig::datatypes::{self, Datatype};
use crate::config::zconfig::matcher::{Content, KnownTo, SectionType, required_multikey};
use crate::config::zconfig::suggest::nearest;
use crate::config::zconfig::{ConfigError, Location, Section, quoted};
use crate::server::access::{Rule, Who};
use crate::server::rights::Rights;

pub static ACCESS: SectionType = SectionType {
    name: "access",
    content: Content::Own(&[
        required_multikey("rule", Datatype::Custom(|text| rule(text).map(drop))).known(KnownTo::Own)
    ]),
};

/// The words for rights, besides `all` and `none`.
const RIGHTS: [&str; 6] = ["read", "write", "undo", "pack", "iterate", "admin"];

/// The values of a section.
#[derive(Debug)]
pub struct AccessSection {
    /// The storage; `None`: all that have no section of their own.
    pub storage: Option<String>,
    /// In the order of the file.
    pub rules: Vec<(Rule, Location)>,
    pub start: Location,
}

/// Reads a section that the schema has checked.
pub fn access(section: &Section) -> Result<AccessSection, ConfigError> {
    let rules = section.values().map(|value| {
        let rule = rule(&value.text)
            .map_err(|reason| ConfigError::at(&value.location, format!("{}: {reason}", value.key)))?;
        Ok((rule, value.location.clone()))
    });
    Ok(AccessSection {
        storage: section.name.clone(),
        rules: rules.collect::<Result<_, ConfigError>>()?,
        start: section.start.clone(),
    })
}

/// `RIGHTS WHO`, such as `read,write user:alice`. The client is named by the rest of the line: subjects of certificates
/// have blanks.
fn rule(text: &str) -> Result<Rule, String> {
    let form = "write RIGHTS WHO, such as 'read,write user:alice' or 'none everyone'";
    let Some((rights, who)) = text.split_once(char::is_whitespace) else {
        return Err(format!("{} is no rule; {form}", quoted(text)));
    };
    Ok(Rule { rights: self::rights(rights)?, who: self::who(who.trim())? })
}

/// Words with commas between them.
fn rights(text: &str) -> Result<Option<Rights>, String> {
    let words: Vec<String> = text.split(',').map(str::to_lowercase).collect();
    match words.as_slice() {
        [none] if none == "none" => return Ok(None),
        [all] if all == "all" => return Ok(Some(Rights::ALL)),
        _ => {}
    }
    if let Some(unknown) = words.iter().find(|word| !RIGHTS.contains(&word.as_str())) {
        let near = nearest(unknown, RIGHTS).map(|near| format!(", did you mean '{near}'?"));
        let all = RIGHTS.join(", ");
        let all =
            format!("; there are {all}, alone 'all' and 'none', with commas and no blanks between them");
        return Err(format!("{} is no right{}", quoted(unknown), near.unwrap_or(all)));
    }
    let has = |right: &str| words.iter().any(|word| word == right);
    let rights = Rights {
        write: has("write"),
        undo: has("undo"),
        pack: has("pack"),
        iterate: has("iterate"),
        admin: has("admin"),
    };
    match rights.undo && !rights.write {
        true => Err("undo is a transaction: it needs write as well".into()),
        false => Ok(Some(rights)),
    }
}

fn who(text: &str) -> Result<Who, String> {
    if text.eq_ignore_ascii_case("everyone") {
        return Ok(Who::Everyone);
    }
    let named = |name: &str, who: fn(String) -> Who| match name.is_empty() {
        true => Err(format!("{}: there is nothing after the colon", quoted(text))),
        false => Ok(who(name.into())),
    };
    match text.split_once(':') {
        Some(("user", name)) => named(name, Who::User),
        Some(("cert", subject)) => named(subject, Who::Subject),
        Some(("cert-sha256", sum)) => fingerprint(sum).map(Who::Sha256),
        Some(("uid", user)) => datatypes::uid(user).map(Who::Uid),
        Some(("gid", group)) => datatypes::group(group).map(|(_, id)| Who::Gid(id)),
        _ if text.contains('/') => {
            text.parse::<Network>().map(Who::Network).map_err(|why| format!("{} {why}", quoted(text)))
        }
        _ => text.parse::<Network>().map(Who::Network).map_err(|_| {
            format!(
                "{} names no client; write user:NAME, cert:SUBJECT, cert-sha256:HEX, uid:USER, gid:GROUP, an IP address or \
                 network, or everyone",
                quoted(text)
            )
        }),
    }
}

/// 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them: in capitals and with colons.
fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let error =
        || format!("{} is no SHA-256 of a certificate: 64 hexadecimal digits are needed", quoted(text));
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .ok_or_else(error)?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit)).collect();
    if digits.len() != 64 {
        return Err(error());
    }
    bytes.try_into().map_err(|_| error())
}
