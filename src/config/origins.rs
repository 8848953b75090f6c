//! Where a value comes from, if not from the configuration file: for `--check`.

use std::path::Path;

use super::zconfig::{Location, Section};

/// A line for each key that is set outside of the configuration file: in a file of `directory`, by the environment, or
/// on the command line. The value is left out, as it may be a password.
pub fn outside(root: &Section, directory: Option<&Path>) -> Vec<String> {
    let mut lines = Vec::new();
    collect(root, directory, &mut lines);
    lines
}

fn collect(section: &Section, directory: Option<&Path>, lines: &mut Vec<String>) {
    for value in section.values() {
        let is_outside = match &value.location {
            Location::CommandLine | Location::Environment(_) => true,
            Location::File { path, .. } => {
                directory.is_some_and(|directory| Path::new(&**path).starts_with(directory))
            }
        };
        if is_outside {
            let key = value.key.to_lowercase();
            lines.push(format!("{key} of {}: {}", section.shown(), value.location));
        }
    }
    section.sections().for_each(|inner| collect(inner, directory, lines));
}
