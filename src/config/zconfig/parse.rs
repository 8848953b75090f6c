//! Parses text into a tree of sections.
//!
//! Line by line: comment, `<section name>`, `</section>`, `<section/>`, `%directive`, `key value`. The matcher checks
//! sections and keys. Only includes recurse, and their depth is limited, so no text can exhaust the stack; a limit on
//! the bytes read keeps includes from multiplying.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::define::Definitions;
use super::error::ConfigError;
use super::tree::{Item, Location, Section, Value};
use super::{include, is_space, quoted};

/// Upper bound on the nesting of includes.
const INCLUDE_DEPTH_MAX: usize = 64;
/// Upper bound on the files that are read, counting repetitions.
const INCLUDE_COUNT_MAX: usize = 10_000;
/// Upper bound on the bytes that are read in total.
const READ_LEN_MAX: usize = 256 << 20;
/// Upper bound on the nesting of sections, over all includes.
const SECTION_DEPTH_MAX: usize = 100;

/// What a configuration may use from outside.
pub trait Surroundings {
    /// The value of an environment variable, for `$(NAME)`.
    fn environment(&self, name: &str) -> Option<String>;
    /// The content of a file, for `%include`.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// `%import PACKAGE`: fails if the sections of that package are not known.
    fn import(&self, package: &str) -> Result<(), String>;
}

/// Reads the file of `-C`, and all files that it includes, into a section without a type.
pub fn load(reference: &str, surroundings: &dyn Surroundings) -> Result<Section, ConfigError> {
    load_path(include::top_level(reference).map_err(ConfigError::nowhere)?, surroundings)
}

/// The same for a path.
pub fn load_path(path: PathBuf, surroundings: &dyn Surroundings) -> Result<Section, ConfigError> {
    let mut parser = Parser {
        surroundings,
        definitions: Definitions::default(),
        including: Vec::new(),
        include_count: 0,
        read_len: 0,
        section_depth: 0,
    };
    let start = Location::File { path: shown(&path), line: 1 };
    let mut root = Section::new("", None, start);
    root.end = parser.file(path, None, &mut root)?;
    Ok(root)
}

struct Parser<'a> {
    surroundings: &'a dyn Surroundings,
    definitions: Definitions,
    /// The files being read, outermost first.
    including: Vec<PathBuf>,
    include_count: usize,
    read_len: usize,
    section_depth: usize,
}

impl Parser<'_> {
    /// Reads a file into a section; returns its last line. `included_at`: the line with the include.
    fn file(
        &mut self,
        path: PathBuf,
        included_at: Option<&Location>,
        base: &mut Section,
    ) -> Result<Location, ConfigError> {
        let text = self.read(&path, included_at)?;
        let path_shown = shown(&path);
        if text.starts_with('\u{feff}') {
            let first = Location::File { path: path_shown, line: 1 };
            let message = "the file begins with a byte order mark; save it as UTF-8 without one";
            return Err(ConfigError::at(&first, message));
        }
        self.including.push(path);
        let mut open: Vec<Section> = Vec::new();
        let mut location = Location::File { path: path_shown.clone(), line: 1 };
        for (number, line) in text.lines().enumerate() {
            let line_number = u32::try_from(number + 1).unwrap_or(u32::MAX);
            location = Location::File { path: path_shown.clone(), line: line_number };
            self.line(line.trim_matches(is_space), &location, base, &mut open)?;
        }
        if let Some(section) = open.last() {
            return Err(ConfigError::at(&section.start, format!("<{}> is not closed", section.type_name)));
        }
        self.including.pop();
        Ok(location)
    }

    fn read(&mut self, path: &Path, included_at: Option<&Location>) -> Result<String, ConfigError> {
        let fail =
            |message: String| ConfigError { location: included_at.cloned(), message, suggestion: None };
        if self.including.iter().any(|outer| outer == path) {
            return Err(fail(format!("{} includes itself", path.display())));
        }
        if self.including.len() > INCLUDE_DEPTH_MAX {
            return Err(fail(format!("includes are nested deeper than {INCLUDE_DEPTH_MAX}")));
        }
        self.include_count += 1;
        if self.include_count > INCLUDE_COUNT_MAX {
            return Err(fail(format!("more than {INCLUDE_COUNT_MAX} files are included")));
        }
        let bytes = self
            .surroundings
            .read(path)
            .map_err(|error| fail(format!("cannot read {}: {error}", path.display())))?;
        self.read_len += bytes.len();
        if self.read_len > READ_LEN_MAX {
            return Err(fail(format!("the configuration is larger than {READ_LEN_MAX} bytes")));
        }
        String::from_utf8(bytes).map_err(|error| {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            let location =
                Location::File { path: shown(path), line: u32::try_from(line).unwrap_or(u32::MAX) };
            ConfigError::at(&location, "not UTF-8 text")
        })
    }

    fn line(
        &mut self,
        line: &str,
        location: &Location,
        base: &mut Section,
        open: &mut Vec<Section>,
    ) -> Result<(), ConfigError> {
        if line.is_empty() || line.starts_with('#') {
            Ok(())
        } else if let Some(rest) = line.strip_prefix("</") {
            self.end_section(rest, location, base, open)
        } else if let Some(rest) = line.strip_prefix('<') {
            self.start_section(rest, location, base, open)
        } else if let Some(rest) = line.strip_prefix('%') {
            self.directive(rest, location, open.last_mut().unwrap_or(base))
        } else {
            self.key_value(line, location, open.last_mut().unwrap_or(base))
        }
    }

    fn start_section(
        &mut self,
        rest: &str,
        location: &Location,
        base: &mut Section,
        open: &mut Vec<Section>,
    ) -> Result<(), ConfigError> {
        let header = rest.strip_suffix('>').ok_or_else(|| {
            ConfigError::at(location, format!("{} does not end with '>'", quoted(&format!("<{rest}"))))
        })?;
        let (header, is_empty) = match header.strip_suffix('/') {
            Some(header) => (header, true),
            None => (header, false),
        };
        let (type_name, name) = section_header(header.trim_end_matches(is_space)).ok_or_else(|| {
            ConfigError::at(
                location,
                format!(
                    "malformed section header {}; expected <type> or <type name>",
                    quoted(&format!("<{rest}"))
                ),
            )
        })?;
        let section =
            Section::new(&type_name.to_lowercase(), name.map(str::to_lowercase).as_deref(), location.clone());
        if is_empty {
            open.last_mut().unwrap_or(base).items.push(Item::Section(section));
            return Ok(());
        }
        self.section_depth += 1;
        if self.section_depth > SECTION_DEPTH_MAX {
            return Err(ConfigError::at(location, format!("sections nest deeper than {SECTION_DEPTH_MAX}")));
        }
        open.push(section);
        Ok(())
    }

    fn end_section(
        &mut self,
        rest: &str,
        location: &Location,
        base: &mut Section,
        open: &mut Vec<Section>,
    ) -> Result<(), ConfigError> {
        let type_name = rest.strip_suffix('>').ok_or_else(|| {
            ConfigError::at(location, format!("{} does not end with '>'", quoted(&format!("</{rest}"))))
        })?;
        let type_name = type_name.trim_end_matches(is_space).to_lowercase();
        let mut section =
            open.pop().ok_or_else(|| ConfigError::at(location, format!("</{type_name}> closes nothing")))?;
        if section.type_name != type_name {
            return Err(ConfigError::at(
                location,
                format!(
                    "</{type_name}> where </{}> is expected (opened at {})",
                    section.type_name, section.start
                ),
            ));
        }
        section.end = location.clone();
        self.section_depth -= 1;
        open.last_mut().unwrap_or(base).items.push(Item::Section(section));
        Ok(())
    }

    fn key_value(&self, line: &str, location: &Location, section: &mut Section) -> Result<(), ConfigError> {
        let (key, text) = split_key(line).ok_or_else(|| {
            ConfigError::at(location, format!("{} is neither a key with a value nor a section", quoted(line)))
        })?;
        let text = self.replace(text, location)?;
        section.items.push(Item::Value(Value { key: key.into(), text, location: location.clone() }));
        Ok(())
    }

    fn directive(
        &mut self,
        rest: &str,
        location: &Location,
        section: &mut Section,
    ) -> Result<(), ConfigError> {
        let fail = |message: String| ConfigError::at(location, message);
        let (name, argument) =
            split_key(rest).ok_or_else(|| fail("'%' is not followed by define, include or import".into()))?;
        if !matches!(name, "define" | "include" | "import") {
            return Err(fail(format!(
                "unknown directive '%{name}'; there are %define, %include and %import"
            )));
        }
        if argument.is_empty() {
            return Err(fail(format!("%{name} lacks its argument")));
        }
        match name {
            "define" => {
                let surroundings = self.surroundings;
                self.definitions.define(argument, &|name| surroundings.environment(name)).map_err(fail)
            }
            "import" => {
                let package = self.replace(argument, location)?;
                self.surroundings.import(&package).map_err(fail)
            }
            _ => {
                let reference = self.replace(argument, location)?;
                let base = self.including.last().map(PathBuf::as_path).unwrap_or(Path::new(""));
                let path = include::relative_to(base, &reference).map_err(fail)?;
                self.file(path, Some(location), section).map(drop)
            }
        }
    }

    fn replace(&self, text: &str, location: &Location) -> Result<String, ConfigError> {
        self.definitions
            .replace(text, &|name| self.surroundings.environment(name))
            .map_err(|message| ConfigError::at(location, message))
    }
}

/// The key, up to white space or a parenthesis, and the rest.
fn split_key(line: &str) -> Option<(&str, &str)> {
    let end = line.find(ends_word).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    (!key.is_empty()).then_some((key, rest.trim_start_matches(is_space)))
}

/// `type` or `type name`.
fn section_header(text: &str) -> Option<(&str, Option<&str>)> {
    let (type_name, rest) = split_key(text)?;
    if rest.is_empty() {
        return Some((type_name, None));
    }
    let separated = text[type_name.len()..].starts_with(is_space);
    (separated && !rest.contains(ends_word)).then_some((type_name, Some(rest)))
}

fn ends_word(c: char) -> bool {
    is_space(c) || c == '(' || c == ')'
}

fn shown(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

#[cfg(test)]
mod tests;
