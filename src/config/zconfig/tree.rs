//! Sections and keys as written, each with its file and line.

use std::fmt;
use std::sync::Arc;

/// A line of a configuration file, or the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Location {
    /// An option of the command line.
    CommandLine,
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

    /// The value of a key that occurs at most once.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values().find(|value| value.key.eq_ignore_ascii_case(key))
    }
}
