//! Names with values: `%define`, and `$name`, `${name}`, `$(ENVIRONMENT)` and `$$` in values.

use std::collections::HashMap;

use super::is_space;

/// The names defined so far. One set for a file and all that it includes.
#[derive(Default)]
pub struct Definitions {
    values: HashMap<String, String>,
}

impl Definitions {
    /// Executes `%define NAME VALUE`; `argument` is the text after the word.
    pub fn define(&mut self, argument: &str, environment: Environment<'_>) -> Result<(), String> {
        let end = argument.find(is_space).unwrap_or(argument.len());
        let (written, rest) = argument.split_at(end);
        let name = written.to_lowercase();
        let raw = rest.trim_start_matches(is_space);
        // A repetition with the same value is allowed. As in ZConfig, the old value after substitution is compared with
        // the new text before it.
        if self.values.get(&name).is_some_and(|value| value != raw) {
            return Err(format!("'{name}' is already defined with another value"));
        }
        if name_len(&name) != name.len() || name.is_empty() {
            return Err(format!(
                "'{name}' cannot be defined: names consist of letters, digits and underscores"
            ));
        }
        let value = self.replace(raw, environment)?;
        self.values.insert(name, value);
        Ok(())
    }

    /// Replaces all references in the text. References in the values are not replaced.
    pub fn replace(&self, text: &str, environment: Environment<'_>) -> Result<String, String> {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            result.push_str(before);
            let reference = Reference::read(after)?;
            rest = reference.rest;
            match reference.kind {
                ReferenceKind::Dollar => result.push('$'),
                ReferenceKind::Name(name) => {
                    let value = self.values.get(&name.to_lowercase());
                    result.push_str(value.ok_or_else(|| format!("'{name}' is not defined"))?);
                }
                ReferenceKind::Environment(name) => {
                    let value = environment(name);
                    result.push_str(&value.ok_or_else(|| {
                        format!("environment variable '{name}' is not set, and $({name}) needs it")
                    })?);
                }
            }
        }
        result.push_str(rest);
        Ok(result)
    }
}

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The part after a dollar sign.
struct Reference<'a> {
    kind: ReferenceKind<'a>,
    /// The text after the reference.
    rest: &'a str,
}

enum ReferenceKind<'a> {
    Dollar,
    Name(&'a str),
    Environment(&'a str),
}

impl<'a> Reference<'a> {
    fn read(text: &'a str) -> Result<Reference<'a>, String> {
        if let Some(rest) = text.strip_prefix('$') {
            Ok(Reference { kind: ReferenceKind::Dollar, rest })
        } else if let Some(text) = text.strip_prefix('{') {
            let (name, rest) = enclosed(text, "${", '}')?;
            Ok(Reference { kind: ReferenceKind::Name(name), rest })
        } else if let Some(text) = text.strip_prefix('(') {
            let (name, rest) = enclosed(text, "$(", ')')?;
            Ok(Reference { kind: ReferenceKind::Environment(name), rest })
        } else {
            let (name, rest) = text.split_at(name_len(text));
            if name.is_empty() {
                return Err("'$' is not followed by a name; write '$$' for a dollar sign".into());
            }
            Ok(Reference { kind: ReferenceKind::Name(name), rest })
        }
    }
}

fn enclosed<'a>(text: &'a str, open: &str, close: char) -> Result<(&'a str, &'a str), String> {
    let (name, rest) = text.split_at(name_len(text));
    if name.is_empty() {
        return Err(format!("'{open}' is not followed by a name"));
    }
    let rest = rest.strip_prefix(close).ok_or_else(|| format!("'{open}{name}' lacks its '{close}'"))?;
    Ok((name, rest))
}

/// Length in bytes of the name at the start of the text.
fn name_len(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8100".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn check(defines: &[&str], text: &str, expected: Result<&str, &str>) {
        let mut definitions = Definitions::default();
        for define in defines {
            definitions.define(define, &environment).unwrap();
        }
        let got = definitions.replace(text, &environment);
        match expected {
            Ok(expected) => assert_eq!(got.as_deref(), Ok(expected), "{text}"),
            Err(part) => assert!(got.clone().unwrap_err().contains(part), "{text}: {got:?}"),
        }
    }

    #[test]
    fn replaces() {
        let defines = ["Instance /var/zeo", "log $instance/log", "nothing", "price $$5"];
        check(&defines, "plain", Ok("plain"));
        check(&defines, "$INSTANCE/x", Ok("/var/zeo/x"));
        check(&defines, "${instance}x${log}", Ok("/var/zeox/var/zeo/log"));
        check(&defines, "[$nothing]", Ok("[]"));
        check(&defines, "$price", Ok("$5"));
        check(&defines, "$$instance$$", Ok("$instance$"));
        check(&defines, "$(PORT)$(EMPTY)", Ok("8100"));
        check(&defines, "$instance.log", Ok("/var/zeo.log"));
        check(&defines, "$missing", Err("'missing' is not defined"));
        check(&defines, "$(port)", Err("'port' is not set"));
        check(&defines, "100$", Err("followed by a name"));
        check(&defines, "$1", Err("followed by a name"));
        check(&defines, "${", Err("not followed"));
        check(&defines, "${log", Err("lacks its '}'"));
        check(&defines, "$(PORT", Err("lacks its ')'"));
        check(&defines, "$é", Err("followed by a name"));
    }

    #[test]
    fn defines_once() {
        let mut definitions = Definitions::default();
        let mut define = |text: &str| definitions.define(text, &environment).is_ok();
        assert!(define("a 1"));
        assert!(define("A 1"));
        assert!(!define("a 2"));
        assert!(!define("a"));
        assert!(define("b $a"));
        assert!(!define("b $a"), "the stored value is compared with the text before substitution");
        assert!(define("b 1"));
        assert!(!define("1x y"));
        assert!(!define("x-y z"));
        assert!(!define("c $missing"));
        assert!(define("c \u{3000} spaced  out"));
    }
}
