//! Checks a tree against the tables of a schema: unknown, missing, repeated and invalid items.
//!
//! A schema is plain data: section types with their keys and allowed inner sections. As in ZConfig, the order of the
//! children matters: a section's name must not be the name of a key before the section's slot.
//!
//! A key also has its default and the Python servers that know it. Both are for the documents, which tests compare with
//! the schema (`tests/config/documents.rs`); another test there compares the default with the behaviour without the
//! key.

use std::collections::HashMap;
use std::fmt;

use super::datatypes::{Datatype, basic_key};
use super::error::ConfigError;
use super::suggest::nearest;
use super::tree::{Item, Location, Section, Value};

/// A kind of section.
#[derive(Debug)]
pub struct SectionType {
    /// Lower case; empty for the file itself.
    pub name: &'static str,
    /// What may be in it.
    pub content: Content,
}

/// What a section of a type may contain.
#[derive(Debug)]
pub enum Content {
    /// These keys and sections.
    Checked(&'static [Child]),
    /// The same, of a section that Python's servers do not have. It may have the name of a section of another type.
    Own(&'static [Child]),
    /// Not checked here: the reader of the section refuses it.
    Opaque,
}

/// What a section may contain.
#[derive(Clone, Copy, Debug)]
pub enum Child {
    /// A key.
    Key {
        /// Lower case.
        name: &'static str,
        /// What its text must be.
        datatype: Datatype,
        /// Whether it must be there.
        required: bool,
        /// Whether it may be there more than once.
        multiple: bool,
        /// A text with the same effect as leaving the key out. `None` if there is no such text.
        default: Option<&'static str>,
        /// The servers of Python that have it.
        known: KnownTo,
    },
    /// Sections of any of the types, with any name or none.
    Slot {
        /// For the message if it is missing: "there is no ...".
        what: &'static str,
        /// The types of the sections.
        types: &'static [&'static SectionType],
        /// Whether there must be one.
        required: bool,
        /// Whether there may be more than one.
        multiple: bool,
    },
}

/// Which of Python's servers know a key, from ZODB 3.8 on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KnownTo {
    /// All of them.
    Always,
    /// From this version on.
    Since(&'static str),
    /// Up to this version, inclusive.
    Until(&'static str),
    /// From the first version to the second, inclusive.
    Between(&'static str, &'static str),
    /// None of them: the key belongs to this server.
    Own,
}

impl fmt::Display for KnownTo {
    /// The text in the tables of the documents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KnownTo::Always => f.write_str("all"),
            KnownTo::Since(first) => write!(f, "from {first}"),
            KnownTo::Until(last) => write!(f, "to {last}"),
            KnownTo::Between(first, last) => write!(f, "{first} to {last}"),
            KnownTo::Own => f.write_str("none"),
        }
    }
}

pub const fn key(name: &'static str, datatype: Datatype) -> Child {
    Child::Key { name, datatype, required: false, multiple: false, default: None, known: KnownTo::Always }
}

pub const fn required_key(name: &'static str, datatype: Datatype) -> Child {
    Child::Key { name, datatype, required: true, multiple: false, default: None, known: KnownTo::Always }
}

/// A key that may be there several times.
pub const fn multikey(name: &'static str, datatype: Datatype) -> Child {
    Child::Key { name, datatype, required: false, multiple: true, default: None, known: KnownTo::Always }
}

/// A key that must be there, and may be there several times.
pub const fn required_multikey(name: &'static str, datatype: Datatype) -> Child {
    Child::Key { name, datatype, required: true, multiple: true, default: None, known: KnownTo::Always }
}

impl SectionType {
    /// The keys and sections that may be in it; none if they are not checked here.
    pub fn children(&self) -> &'static [Child] {
        match self.content {
            Content::Checked(children) | Content::Own(children) => children,
            Content::Opaque => &[],
        }
    }

    /// The names that one of its names must differ from: those of the sections of its type, or those of all others.
    fn name_space(&self) -> &'static str {
        match self.content {
            Content::Own(_) => self.name,
            Content::Checked(_) | Content::Opaque => "",
        }
    }

    /// The names of the keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.children().iter().filter_map(|child| match child {
            Child::Key { name, .. } => Some(*name),
            Child::Slot { .. } => None,
        })
    }

    /// Which of Python's servers know a key of this name; `None` if there is no such key.
    pub fn known(&self, key: &str) -> Option<KnownTo> {
        self.children().iter().find_map(|child| match child {
            Child::Key { name, known, .. } if name.eq_ignore_ascii_case(key) => Some(*known),
            _ => None,
        })
    }

    /// The type of this name that may be in a section of this type, and whether several sections of it may.
    pub fn inner_type(&self, type_name: &str, added: &AddedTypes) -> Option<(&'static SectionType, bool)> {
        self.children().iter().find_map(|child| match child {
            Child::Key { .. } => None,
            Child::Slot { types, multiple, .. } => {
                let mut types = types.iter().chain(added.of_slot(types));
                types.find(|slot| slot.name == type_name).map(|slot| (*slot, *multiple))
            }
        })
    }

    fn slot_types(&self) -> impl Iterator<Item = &'static SectionType> {
        self.children()
            .iter()
            .flat_map(|child| match child {
                Child::Key { .. } => [].as_slice(),
                Child::Slot { types, .. } => *types,
            })
            .copied()
    }

    /// The place of the type, for messages. Empty for the file itself.
    fn place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in <{}>", self.name) }
    }

    /// The section types inside this one, at any depth.
    pub fn inner_types(&'static self) -> Vec<&'static SectionType> {
        // Storages may contain storages.
        let mut seen: Vec<&SectionType> = Vec::new();
        let mut todo = vec![self];
        while let Some(section_type) = todo.pop() {
            for slot in section_type.slot_types() {
                if !seen.iter().any(|known| std::ptr::eq(*known, slot)) {
                    seen.push(slot);
                    todo.push(slot);
                }
            }
        }
        seen
    }
}

/// Section types that a program adds to those of a schema.
#[derive(Clone, Debug, Default)]
pub struct AddedTypes {
    /// The added types.
    pub types: Vec<&'static SectionType>,
    /// They may stand wherever sections of this type may.
    pub beside: &'static str,
}

impl AddedTypes {
    /// The types that are added to a slot for `types`.
    fn of_slot(&self, types: &'static [&'static SectionType]) -> &[&'static SectionType] {
        if types.iter().any(|slot| slot.name == self.beside) { &self.types } else { &[] }
    }
}

/// A schema with what is added to it.
struct Schema<'a> {
    /// The section type of the whole file.
    file: &'static SectionType,
    added: &'a AddedTypes,
}

impl Schema<'_> {
    /// Whether there are sections of this name anywhere.
    fn knows(&self, name: &str) -> bool {
        self.file.inner_types().iter().chain(&self.added.types).any(|known| known.name == name)
    }
}

/// Checks a file against the section type of the whole file.
pub fn check(root: &Section, file: &'static SectionType, added: &AddedTypes) -> Result<(), ConfigError> {
    check_section(root, file, &Schema { file, added })
}

/// Checks a section that stands alone, and everything in it.
pub fn check_alone(section: &Section, section_type: &'static SectionType) -> Result<(), ConfigError> {
    let added = AddedTypes::default();
    check_section(section, section_type, &Schema { file: section_type, added: &added })
}

/// Checks the keys that are in a section; none needs to be there.
pub fn check_values(section: &Section, section_type: &SectionType) -> Result<(), ConfigError> {
    section.values().try_for_each(|value| check_value(value, section_type).map(drop))
}

/// Checks a section and everything in it.
fn check_section(
    section: &Section,
    section_type: &'static SectionType,
    schema: &Schema<'_>,
) -> Result<(), ConfigError> {
    let (Content::Checked(children) | Content::Own(children)) = section_type.content else { return Ok(()) };
    // The first place of each child of the type.
    let mut seen: Vec<Option<&Location>> = vec![None; children.len()];
    let mut names: HashMap<(&str, &str), &Location> = HashMap::new();
    for item in &section.items {
        let (index, location) = match item {
            Item::Value(value) => (check_value(value, section_type)?, &value.location),
            Item::Section(inner) => {
                let (index, inner_type) = find_slot(inner, section_type, schema)?;
                check_section(inner, inner_type, schema)?;
                if let Some(name) = &inner.name
                    && let Some(first) = names.insert((inner_type.name_space(), name), &inner.start)
                {
                    return Err(ConfigError::at(
                        &inner.start,
                        format!("the section name '{name}' is already in use ({first})"),
                    ));
                }
                (index, &inner.start)
            }
        };
        let (Some(first), Some(child)) = (seen.get_mut(index), children.get(index)) else { continue };
        match first {
            None => *first = Some(location),
            Some(_) if child.multiple() => {}
            Some(first) => {
                let what = match item {
                    Item::Value(value) => format!("'{}'", value.key),
                    Item::Section(inner) => format!("<{}>", inner.type_name),
                };
                return Err(ConfigError::at(
                    location,
                    format!("{what} is given twice{} (first at {first})", section_type.place()),
                ));
            }
        }
    }
    let missing = children.iter().zip(&seen).find(|(child, seen)| child.required() && seen.is_none());
    match missing {
        None => Ok(()),
        Some((Child::Key { name, .. }, _)) => Err(ConfigError::at(
            &section.start,
            format!("<{}> lacks the required key '{name}'", section_type.name),
        )),
        Some((Child::Slot { what, .. }, _)) => {
            Err(ConfigError::at(&section.end, format!("there is no {what}, and one is required")))
        }
    }
}

impl Child {
    /// This key with a default.
    pub const fn default(self, text: &'static str) -> Child {
        match self {
            Child::Key { name, datatype, required, multiple, known, .. } => {
                Child::Key { name, datatype, required, multiple, default: Some(text), known }
            }
            slot => slot,
        }
    }

    /// This key, known to these Python servers.
    pub const fn known(self, known: KnownTo) -> Child {
        match self {
            Child::Key { name, datatype, required, multiple, default, .. } => {
                Child::Key { name, datatype, required, multiple, default, known }
            }
            slot => slot,
        }
    }

    fn multiple(&self) -> bool {
        let (Child::Key { multiple, .. } | Child::Slot { multiple, .. }) = self;
        *multiple
    }

    fn required(&self) -> bool {
        let (Child::Key { required, .. } | Child::Slot { required, .. }) = self;
        *required
    }
}

/// Checks a key and its text; returns the index of the type's child.
fn check_value(value: &Value, section_type: &SectionType) -> Result<usize, ConfigError> {
    let fail = |message: String| ConfigError::at(&value.location, message);
    let wanted = basic_key(&value.key).map_err(fail)?;
    let found = section_type.children().iter().enumerate().find_map(|(index, child)| match child {
        Child::Key { name, datatype, .. } if *name == wanted => Some((index, *datatype)),
        _ => None,
    });
    let Some((index, datatype)) = found else {
        let error = match section_type.name {
            "" => fail(format!("the key '{}' stands outside of all sections", value.key)),
            _ => fail(format!("unknown key '{}'{}", value.key, section_type.place())),
        };
        return Err(error.suggesting(nearest(&wanted, section_type.keys())));
    };
    datatype.check(&value.text).map_err(|reason| fail(format!("{}: {reason}", value.key)))?;
    Ok(index)
}

/// The slot for a section, and the section's type.
fn find_slot(
    inner: &Section,
    section_type: &'static SectionType,
    schema: &Schema<'_>,
) -> Result<(usize, &'static SectionType), ConfigError> {
    let fail = |message: String| ConfigError::at(&inner.start, message);
    if matches!(inner.name.as_deref(), Some("*" | "+")) {
        return Err(fail(format!(
            "'{}' cannot be the name of a section",
            inner.name.as_deref().unwrap_or_default()
        )));
    }
    for (index, child) in section_type.children().iter().enumerate() {
        match child {
            Child::Key { name, .. } if inner.name.as_deref() == Some(name) => {
                return Err(fail(format!(
                    "a section{} cannot be named '{name}': that is a key",
                    section_type.place()
                )));
            }
            Child::Key { .. } => {}
            Child::Slot { types, .. } => {
                let mut types = types.iter().chain(schema.added.of_slot(types));
                if let Some(inner_type) = types.find(|slot| slot.name == inner.type_name) {
                    return Ok((index, inner_type));
                }
            }
        }
    }
    let name = &inner.type_name;
    if schema.knows(name) {
        return Err(fail(match section_type.name {
            "" => format!("<{name}> cannot stand outside of all sections"),
            outer => format!("<{name}> cannot stand in <{outer}>"),
        }));
    }
    let error = fail(format!("unknown section <{name}>{}", section_type.place()));
    let added = section_type.children().iter().flat_map(|child| match child {
        Child::Key { .. } => &[],
        Child::Slot { types, .. } => schema.added.of_slot(types),
    });
    let names = section_type.slot_types().chain(added.copied()).map(|slot| slot.name);
    Err(error.suggesting(nearest(name, names)))
}

impl Section {
    /// The value of a key, converted.
    pub fn get<T>(
        &self,
        key: &str,
        convert: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.value(key)
            .map(|value| {
                convert(&value.text)
                    .map_err(|reason| ConfigError::at(&value.location, format!("{}: {reason}", value.key)))
            })
            .transpose()
    }
}
