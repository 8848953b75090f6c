//! The log of the daemon manager: `<eventlog>` of `<runner>`, or else the server's.
//!
//! A file is opened for each line, of which there are few. So the manager writes to the file of this name even if the
//! server has rotated it, and does not rotate it itself.

use std::fmt;

use crate::logging::{Destination, LogSetup, Rotation, write_once};

/// Python's root logger.
const LOGGER: &str = "root";

pub(super) struct EventLog(LogSetup);

impl EventLog {
    pub(super) fn new(mut setup: LogSetup) -> EventLog {
        for handler in &mut setup.handlers {
            if let Destination::File(file) = &mut handler.destination {
                file.rotation = Rotation::Never;
            }
        }
        EventLog(setup)
    }

    pub(super) fn line(&self, level: u8, message: fmt::Arguments<'_>) {
        if let Err(error) = write_once(&self.0, LOGGER, level, message) {
            eprintln!("{message}\n({error})");
        }
    }
}
