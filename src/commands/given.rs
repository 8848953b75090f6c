//! What a server was started with: its command line, from which its configuration can be read again.

use std::ffi::OsString;

use crate::commands::Extensions;
use crate::config::{AuthenticationConfig, Config, Reading, UsageError, environment};

/// The command line of a server, and what its program adds.
pub(super) struct Given {
    pub extensions: Extensions,
    /// The name of the program as called.
    pub program: String,
    /// Without the name.
    pub arguments: Vec<OsString>,
}

impl Given {
    /// Reads the configuration, as it is now.
    pub(super) fn read(&self) -> Result<Reading, UsageError> {
        let environment = |name: &str| std::env::var(name).ok();
        let storages = &self.extensions.storages;
        let mut reading = Reading::from_command_line(storages, &self.program, &self.arguments, &environment)?;
        if let Reading::Config { config, .. } = &mut reading {
            self.check_protocol(config)?;
            self.check_environment(config)?;
        }
        Ok(reading)
    }

    fn usage(&self, message: String) -> UsageError {
        UsageError { program: self.program.clone(), message }
    }

    /// Checks the name of the authentication protocol. An unknown one is a usage error, as an unknown option is.
    fn check_protocol(&self, config: &Config) -> Result<(), UsageError> {
        if let Some(AuthenticationConfig { protocol, location, .. }) = &config.zeo.authentication
            && let Err(message) = self.extensions.protocols.get(protocol)
        {
            return Err(self.usage(format!("{location}: {message}")));
        }
        Ok(())
    }

    /// Adds warnings about variables that look like settings.
    fn check_environment(&self, config: &mut Config) -> Result<(), UsageError> {
        let warnings = environment::check(std::env::vars_os());
        config.warnings.extend(warnings.map_err(|message| self.usage(message))?);
        Ok(())
    }
}
