//! `<runner>`: settings of zdaemon, which may start the server from the same file.
//!
//! Checked as in Python's runzeo, and otherwise ignored.

use super::eventlog;
use crate::config::zconfig::datatypes::Datatype;
use crate::config::zconfig::matcher::{Child, Content, SectionType, key, required_key};

pub static RUNNER: SectionType = SectionType {
    name: "runner",
    content: Content::Checked(&[
        Child::Slot {
            what: "<eventlog> section",
            types: &[&eventlog::EVENTLOG, &eventlog::LOGGER],
            required: false,
            multiple: false,
        },
        required_key("program", Datatype::StringList),
        key("python", Datatype::ExistingPath),
        key("zdrun", Datatype::ExistingPath),
        key("socket-name", Datatype::ExistingParentDirpath),
        key("daemon", Datatype::Boolean),
        key("directory", Datatype::ExistingParentDirectory),
        key("backoff-limit", Datatype::Integer),
        key("forever", Datatype::Boolean),
        key("exit-codes", Datatype::IntegerList),
        key("start-test-program", Datatype::StringList),
        key("start-timeout", Datatype::Integer),
        key("stop-timeout", Datatype::Integer),
        key("user", Datatype::Any),
        key("umask", Datatype::Octal),
        key("hang-around", Datatype::Boolean),
        key("default-to-interactive", Datatype::Boolean),
        key("logfile", Datatype::ExistingDirpath),
        key("transcript", Datatype::ExistingDirpath),
        key("prompt", Datatype::Any),
    ]),
};
