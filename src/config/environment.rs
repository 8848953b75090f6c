//! Own keys in environment variables: `RUNZEO_MAX_CONNECTIONS=50` is `max-connections 50` in `<zeo>`.
//!
//! Python's tools, which refuse a configuration file with keys that are not theirs, never see them; containers are set
//! up with them. The text is parsed as that of a key, and taken literally, without `$` substitution. An empty variable
//! is one that is not set.

use std::ffi::{OsStr, OsString};

use super::drop_ins::OWN_SECTIONS;
use super::schema::zeo::ZEO;
use super::zconfig::matcher::{KnownTo, SectionType};
use super::zconfig::suggest::nearest;
use super::zconfig::tree::{Item, Value};
use super::zconfig::{ConfigError, Location, Section, quoted};

const PREFIX: &str = "RUNZEO_";

/// Variables that are not settings: Kubernetes and Docker set them for a service that is called `runzeo`.
const OF_OTHERS: [&str; 3] = ["RUNZEO_SERVICE_", "RUNZEO_PORT", "RUNZEO_ENV_"];
/// Those of this program's tests and benchmarks.
const OF_TESTS: [&str; 9] = [
    "RUNZEO_TEST_",
    "RUNZEO_BENCH_",
    "RUNZEO_BINARY",
    "RUNZEO_CRASH_SEEDS",
    "RUNZEO_PACK_FILES",
    "RUNZEO_RECORDS",
    "RUNZEO_ROOT",
    "RUNZEO_UPSTREAM_BINARY",
    "RUNZEO_VE", // VENVS, VERIFY_OBJECTS
];

/// A variable, and the key that it sets.
#[derive(Debug)]
pub struct Variable {
    /// The name of the variable.
    pub name: String,
    /// The section of the key.
    pub section: &'static SectionType,
    /// The key.
    pub key: &'static str,
}

/// All variables: each own key of `<zeo>`, and each key of own sections, whose name is part of the variable's.
pub fn variables() -> impl Iterator<Item = Variable> {
    let own = |section: &'static SectionType| section.keys().map(move |key| (section, key));
    let of_zeo = own(&ZEO).filter(|(_, key)| ZEO.known(key) == Some(KnownTo::Own));
    let of_sections = OWN_SECTIONS.iter().copied().flat_map(own);
    of_zeo.chain(of_sections).map(|(section, key)| {
        let words = if section.name == ZEO.name { key.into() } else { format!("{} {key}", section.name) };
        let name = format!("{PREFIX}{}", words.to_uppercase().replace(['-', ' '], "_"));
        Variable { name, section, key }
    })
}

/// The type of a section that has variables.
pub fn section_type(name: &str) -> Option<&'static SectionType> {
    OWN_SECTIONS.iter().copied().chain([&ZEO]).find(|known| known.name == name)
}

/// Puts the values of the variables into the sections of `root`, in place of those of files. An own section that is not
/// there is added.
pub fn apply(root: &mut Section, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    for Variable { name, section, key } in variables() {
        let Some(text) = environment(&name).filter(|text| !text.is_empty()) else { continue };
        let location = Location::Environment(name.into());
        match root.sections().filter(|other| other.type_name == section.name).count() {
            // A file without `<zeo>` is refused.
            0 if section.name == ZEO.name => continue,
            0 => root.items.push(Item::Section(Section::new(section.name, None, location.clone()))),
            1 => {}
            count => {
                let message =
                    format!("there are {count} sections <{}>: set {key} in their files", section.name);
                return Err(ConfigError::at(&location, message));
            }
        }
        for item in &mut root.items {
            if let Item::Section(other) = item
                && other.type_name == section.name
            {
                other.set(Value { key: key.into(), text: text.clone(), location: location.clone() });
            }
        }
    }
    Ok(())
}

/// Looks for variables that look like settings and are none. Returns a warning for each; an error if the value of a
/// variable is not text.
pub fn check(environment: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<String>, String> {
    let known: Vec<String> = variables().map(|variable| variable.name).collect();
    let mut warnings = Vec::new();
    for (name, value) in environment {
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        if known.iter().any(|known| OsStr::new(known) == name) {
            if value.to_str().is_none() {
                return Err(format!("environment variable {}: not UTF-8 text", name.display()));
            }
            continue;
        }
        let name = name.to_string_lossy();
        let is_of_others = OF_OTHERS.iter().chain(&OF_TESTS).any(|prefix| name.starts_with(prefix));
        if !is_of_others {
            warnings.push(warning(&name, &known));
        }
    }
    warnings.sort();
    Ok(warnings)
}

fn warning(name: &str, known: &[String]) -> String {
    let key = name.trim_start_matches(PREFIX).to_lowercase().replace('_', "-");
    if ZEO.known(&key).is_some() {
        return format!(
            "environment variable {name} has no effect: {key} is a key of Python's servers, too, and belongs in the \
             configuration file or on the command line"
        );
    }
    let suggestion = nearest(name, known.iter().map(String::as_str));
    let suggestion = suggestion.map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
    format!("environment variable {} has no effect: there is no such setting{suggestion}", quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each key has a variable of its own, which is not taken for one of something else.
    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = variables().map(|variable| variable.name).collect();
        assert!(names.contains(&"RUNZEO_MAX_CONNECTIONS".into()), "{names:?}");
        assert!(names.contains(&"RUNZEO_BACKUP_REPOSITORY".into()), "{names:?}");
        assert!(!names.contains(&"RUNZEO_ADDRESS".into()), "{names:?}");
        for name in &names {
            let is_of_others = OF_OTHERS.iter().chain(&OF_TESTS).any(|prefix| name.starts_with(prefix));
            assert!(!is_of_others, "{name}");
            assert!(!name.contains(|c: char| !c.is_ascii_uppercase() && c != '_'), "{name}");
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |pairs: &[(&str, &str)]| {
            check(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
        };
        let fine = [
            ("RUNZEO_MAX_CONNECTIONS", "1"),
            ("RUNZEO_PORT_8100_TCP", "x"),
            ("RUNZEO_VENVS", "x"),
            ("A", ""),
        ];
        assert_eq!(check(&fine), Ok(Vec::new()));
        let near = "environment variable 'RUNZEO_MAX_CONECTIONS' has no effect: there is no such setting, \
                    did you mean 'RUNZEO_MAX_CONNECTIONS'?";
        assert_eq!(check(&[("RUNZEO_MAX_CONECTIONS", "1")]), Ok(vec![near.into()]));
        let far = "environment variable 'RUNZEO_FOO\\n' has no effect: there is no such setting";
        assert_eq!(check(&[("RUNZEO_FOO\n", "1")]), Ok(vec![far.into()]));
        let python = "environment variable RUNZEO_READ_ONLY has no effect: read-only is a key of Python's servers, too, and \
                      belongs in the configuration file or on the command line";
        assert_eq!(check(&[("RUNZEO_READ_ONLY", "1")]), Ok(vec![python.into()]));
    }

    #[test]
    fn a_value_that_is_no_text_is_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let pair = (OsString::from("RUNZEO_BACKUP_REPOSITORY"), OsString::from_vec(vec![b'/', 0xff]));
        let message = "environment variable RUNZEO_BACKUP_REPOSITORY: not UTF-8 text";
        assert_eq!(check([pair].into_iter()), Err(message.into()));
    }
}
