//! What the tests of logging share: a log of their own, and child processes for what concerns a whole process.
#![allow(dead_code)] // no test uses all of it

use std::path::Path;
use std::process::{Command, Stdio};

use runzeo::logging::{
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

const CHILD: &str = "RUNZEO_TEST_CHILD";

/// Whether this is the process that [`child`] started.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// This test program again, with this test only, where `is_child()` is true.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(CHILD, "yes").env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
