//! A log beside the process's own.
use std::path::Path;

use runzeo::internal::logging::{
    self, Destination, Encoding, FileSetup, HandlerSetup, Layout, LogHandle, LogSetup, Rotation,
};

/// A handler that writes bare messages.
pub fn handler(destination: Destination) -> HandlerSetup {
    let layout = Layout { format: "%(message)s".to_string(), ..Layout::default() };
    HandlerSetup { level: 0, layout, destination, encoding: Encoding::Utf8 }
}

pub fn file(path: &Path, rotation: Rotation) -> Destination {
    Destination::File(FileSetup { path: path.to_path_buf(), rotation, delay: false })
}

pub fn setup(handler: HandlerSetup) -> LogSetup {
    LogSetup { level: 1, handlers: vec![handler], configured: true }
}

/// A log beside the process's own.
pub struct Log {
    pub handle: LogHandle,
    logger: Box<dyn log::Log>,
}

impl Log {
    pub fn open(destination: Destination) -> Log {
        let (dispatch, handle) = logging::build(&setup(handler(destination))).unwrap();
        Log { handle, logger: dispatch.into_log().1 }
    }

    pub fn info(&self, message: &str) {
        let mut record = log::Record::builder();
        self.logger
            .log(&record.level(log::Level::Info).target("test").args(format_args!("{message}")).build());
    }
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
