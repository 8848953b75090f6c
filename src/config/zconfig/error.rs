//! Errors of a configuration: file and line, what is wrong, and a name that may have been meant.

use std::fmt;

use super::tree::Location;

/// One error; the first one found ends the reading.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// `None`: the error is of no line, as for a file that cannot be read.
    pub location: Option<Location>,
    pub message: String,
    /// A name that exists and looks like the one that does not.
    pub suggestion: Option<String>,
}

impl ConfigError {
    pub fn at(location: &Location, message: impl Into<String>) -> ConfigError {
        ConfigError { location: Some(location.clone()), message: message.into(), suggestion: None }
    }

    pub fn nowhere(message: impl Into<String>) -> ConfigError {
        ConfigError { location: None, message: message.into(), suggestion: None }
    }

    pub fn suggesting(mut self, suggestion: Option<&str>) -> ConfigError {
        self.suggestion = suggestion.map(String::from);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, ", did you mean '{suggestion}'?")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
