//! Errors of a configuration: file and line, what is wrong, and perhaps a suggestion.

use std::fmt;

use super::tree::Location;

/// One error; reading ends with the first one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// `None` if the error belongs to no line, as for a file that cannot be read.
    pub location: Option<Location>,
    pub message: String,
    /// An existing name that is similar to the unknown one.
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
