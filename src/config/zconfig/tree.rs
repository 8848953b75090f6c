//! Sections and keys as written, each with its file and line.

use std::fmt;
use std::sync::Arc;

/// A line of a configuration file, the command line, or an environment variable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Location {
    /// An option of the command line.
    CommandLine,
    /// The environment variable of this name.
    Environment(Arc<str>),
    /// A line of a file.
    File {
        /// The path as the operator wrote it, or as an `%include` leads to it.
        path: Arc<str>,
        /// Counted from 1.
        line: u32,
    },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::CommandLine => f.write_str("command line"),
            Location::Environment(name) => write!(f, "environment variable {name}"),
            Location::File { path, line } => write!(f, "{path}:{line}"),
        }
    }
}

/// A section, or the whole file (a section without a type).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Section {
    /// In lower case.
    pub type_name: String,
    /// In lower case.
    pub name: Option<String>,
    pub items: Vec<Item>,
    pub start: Location,
    pub end: Location,
}

/// The items of a section, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item {
    Value(Value),
    Section(Section),
}

/// A key and its text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Value {
    /// As written.
    pub key: String,
    /// After substitution.
    pub text: String,
    pub location: Location,
}

impl Section {
    pub fn new(type_name: &str, name: Option<&str>, start: Location) -> Section {
        Section {
            type_name: type_name.into(),
            name: name.map(String::from),
            items: Vec::new(),
            end: start.clone(),
            start,
        }
    }

    /// The section's first line, for messages.
    pub fn shown(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("<{}{name}>", self.type_name)
    }

    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.items.iter().filter_map(|item| match item {
            Item::Section(section) => Some(section),
            Item::Value(_) => None,
        })
    }

    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.items.iter().filter_map(|item| match item {
            Item::Value(value) => Some(value),
            Item::Section(_) => None,
        })
    }

    /// Replaces all values of a key by this one.
    pub fn set(&mut self, value: Value) {
        self.items
            .retain(|item| !matches!(item, Item::Value(other) if other.key.eq_ignore_ascii_case(&value.key)));
        self.items.push(Item::Value(value));
    }

    /// The value of a key that occurs at most once.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values().find(|value| value.key.eq_ignore_ascii_case(key))
    }
}
