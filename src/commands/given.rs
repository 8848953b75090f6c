//! What a server was started with: its command line, from which its configuration can be read again.

use std::ffi::OsString;

use crate::commands::Extensions;
use crate::config::{AuthenticationConfig, Invocation, UsageError, environment, from_command_line};

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
    pub(super) fn read(&self) -> Result<Invocation, UsageError> {
        let storages = &self.extensions.storages;
        let invocation =
            from_command_line(storages, &self.program, &self.arguments, &|name| std::env::var(name).ok())?;
        self.check_protocol(&invocation)?;
        self.check_environment(invocation)
    }

    fn usage(&self, message: String) -> UsageError {
        UsageError { program: self.program.clone(), message }
    }

    /// Checks the name of the authentication protocol. An unknown one is a usage error, as an unknown option is.
    fn check_protocol(&self, invocation: &Invocation) -> Result<(), UsageError> {
        if let Invocation::Serve(config) | Invocation::Check(config) = invocation
            && let Some(AuthenticationConfig { protocol, location, .. }) = &config.zeo.authentication
            && let Err(message) = self.extensions.protocols.get(protocol)
        {
            return Err(self.usage(format!("{location}: {message}")));
        }
        Ok(())
    }

    /// Adds warnings about variables that look like settings.
    fn check_environment(&self, mut invocation: Invocation) -> Result<Invocation, UsageError> {
        if let Invocation::Serve(config) | Invocation::Check(config) = &mut invocation {
            let warnings = environment::check(std::env::vars_os());
            config.warnings.extend(warnings.map_err(|message| self.usage(message))?);
        }
        Ok(invocation)
    }
}
