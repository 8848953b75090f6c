//! Settings from the command line (`-X section/key=value`), which override those of the file.
//!
//! Each step of the path names a section by its name or its type, and selects the first match. The setting replaces the
//! file's values of that key. Its text is used literally, without `$` substitution.

use super::datatypes::basic_key;
use super::error::ConfigError;
use super::tree::{Item, Location, Section, Value};

/// One `path/to/key=text`; the path starts at the current section.
struct Setting<'a> {
    path: &'a [&'a str],
    text: &'a str,
}

/// Applies the settings to the tree.
pub fn apply(root: &mut Section, specifiers: &[String]) -> Result<(), ConfigError> {
    let mut split = Vec::new();
    for specifier in specifiers {
        let (path, text) = specifier
            .split_once('=')
            .ok_or_else(|| fail(format!("-X {specifier}: expected section/key=value")))?;
        let path: Vec<&str> = path.split('/').collect();
        if path.iter().any(|step| step.is_empty()) {
            return Err(fail(format!("-X {specifier}: a section or key name is empty")));
        }
        split.push((path, text));
    }
    apply_here(root, split.iter().map(|(path, text)| Setting { path, text }).collect())
}

fn apply_here(section: &mut Section, settings: Vec<Setting<'_>>) -> Result<(), ConfigError> {
    let mut keys: Vec<(String, &str)> = Vec::new();
    let mut deeper = Vec::new();
    for setting in settings {
        match setting.path {
            [] => {}
            [key] => keys.push((basic_key(key).map_err(fail)?, setting.text)),
            [first, ..] => {
                basic_key(first).map_err(fail)?;
                deeper.push(setting);
            }
        }
    }
    section.items.retain(|item| match item {
        Item::Value(value) => !keys.iter().any(|(key, _)| value.key.eq_ignore_ascii_case(key)),
        Item::Section(_) => true,
    });
    for item in &mut section.items {
        let Item::Section(inner) = item else { continue };
        let (here, rest): (Vec<_>, Vec<_>) = deeper.into_iter().partition(|setting| fits(setting, inner));
        deeper = rest;
        if !here.is_empty() {
            let inside = here
                .into_iter()
                .map(|setting| Setting { path: setting.path.get(1..).unwrap_or_default(), ..setting })
                .collect();
            apply_here(inner, inside)?;
        }
    }
    if let Some(setting) = deeper.first() {
        return Err(fail(format!("-X {}: there is no such section", setting.path.join("/"))));
    }
    section.items.extend(
        keys.into_iter().map(|(key, text)| {
            Item::Value(Value { key, text: text.into(), location: Location::CommandLine })
        }),
    );
    Ok(())
}

fn fits(setting: &Setting<'_>, section: &Section) -> bool {
    let step = setting.path.first().map(|step| step.to_lowercase());
    step.is_some() && (step == section.name || step.as_deref() == Some(&section.type_name))
}

fn fail(message: String) -> ConfigError {
    ConfigError::at(&Location::CommandLine, message)
}
