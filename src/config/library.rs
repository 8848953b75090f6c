//! The options of a client from a configuration in ZConfig's language, for programs that use the client as a library.

use std::cell::RefCell;
use std::io;
use std::path::Path;

use super::assemble;
use super::schema::client;
use super::zconfig::matcher::{self, SectionType};
use super::zconfig::{self, ConfigError, Location, Section, Surroundings};
use crate::client::options::{ClientOptions, ConfigurationError};

/// Logger for settings without effect.
const LOG: &str = "ZEO.ClientStorage";
/// What errors call the text.
const TEXT: &str = "text";

impl ClientOptions {
    /// The options of the one `<zeoclient>` or `<clientstorage>` in a text, which is that section alone, or a file of
    /// an application that has it: a `zodb.conf`, or a `zope.conf`. Other sections, their keys and `%import` are not
    /// checked.
    ///
    /// Errors have the line in the text, which they call `text`. A file of an `%include` is found from the current
    /// directory.
    pub fn from_zconfig(text: &str) -> Result<ClientOptions, ConfigurationError> {
        options_of(text).map_err(|error| {
            let line = match &error.location {
                Some(Location::File { path, line }) if **path == *TEXT => Some(*line),
                _ => None,
            };
            ConfigurationError::new(line, error.to_string())
        })
    }
}

fn options_of(text: &str) -> Result<ClientOptions, ConfigError> {
    let root = zconfig::load(TEXT, &Text(RefCell::new(Some(text.into()))))?;
    let mut found = Vec::new();
    find(&root, &mut found);
    match found[..] {
        [] => Err(ConfigError::nowhere("there is neither a <zeoclient> nor a <clientstorage> in it")),
        [(section, section_type)] => {
            matcher::check_alone(section, section_type)?;
            let client = client::client_storage(section)?;
            client.warnings.iter().for_each(|warning| log::warn!(target: LOG, "{warning}"));
            Ok(client.options)
        }
        [(first, _), (second, _), ..] => Err(ConfigError::at(
            &second.start,
            format!("<{}> is the second client (first at {}): give one only", second.type_name, first.start),
        )),
    }
}

/// The sections of clients, at any depth.
fn find<'a>(section: &'a Section, found: &mut Vec<(&'a Section, &'static SectionType)>) {
    for inner in section.sections() {
        match [&client::ZEOCLIENT, &client::CLIENTSTORAGE]
            .into_iter()
            .find(|known| known.name == inner.type_name)
        {
            Some(known) => found.push((inner, known)),
            None => find(inner, found),
        }
    }
}

/// A text that is read first, and the files that it includes.
struct Text(RefCell<Option<Vec<u8>>>);

impl Surroundings for Text {
    fn environment(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.0.borrow_mut().take() {
            Some(text) => Ok(text),
            None => assemble::read_file(path),
        }
    }

    fn import(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
