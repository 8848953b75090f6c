//! What the operator asked for: configuration file and command line, merged into plain data.
//!
//! Nothing here opens a storage, a socket or a log; `--help`, `--check` and every error leave the
//! machine as it was. Values are checked: what reaches [`Config`] can be used as it stands.

mod assemble;
mod describe;
pub mod options;
pub mod schema;
pub mod zconfig;

use std::path::PathBuf;
use std::time::Duration;

use crate::base::address::Address;

pub use assemble::{Environment, Invocation, from_command_line};
pub use options::UsageError;
pub use zconfig::Location;

/// All that the server needs to know before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub zeo: ZeoConfig,
    /// In the order of the file; names are unique.
    pub storages: Vec<NamedStorage>,
    /// `None`: no `<eventlog>`; then INFO and above go to stderr in the default format.
    pub eventlog: Option<EventLogConfig>,
    /// `--test`: start, say "testing exit immediately", stop.
    pub exit_immediately: bool,
    /// What the operator should be told once the log is open (settings without effect).
    pub warnings: Vec<String>,
}

/// The `<zeo>` section and its command line overrides.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeoConfig {
    pub address: Address,
    pub read_only: bool,
    pub invalidation_queue_size: usize,
    pub invalidation_age: Option<Duration>,
    /// `None`: a transaction may hold its locks for ever.
    pub transaction_timeout: Option<Duration>,
    /// Already completed from `INSTANCE_HOME` where the configuration leaves it open.
    pub pid_filename: Option<PathBuf>,
    /// Speak msgpack (`M5`) instead of pickle: the `msgpack` key, or else a non-empty `ZEO_MSGPACK`.
    pub msgpack: bool,
    /// Where statistics are served as text.
    pub monitor_address: Option<Address>,
    /// `ZEO_SERVER_PROTOCOL`: the protocol to announce instead of the newest, as given.
    pub announced_protocol: Option<String>,
}

/// A storage and the name that clients ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedStorage {
    pub name: String,
    pub storage: StorageConfig,
}

/// The kinds of storage that can be served.
#[derive(Clone, Debug, PartialEq)]
pub enum StorageConfig {
    File(FileStorageConfig),
}

/// A `<filestorage>` section, or `-f`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileStorageConfig {
    pub path: PathBuf,
    /// Start empty, throwing away what is there.
    pub create: bool,
    pub read_only: bool,
    /// In bytes; `None`: as large as the disk allows.
    pub quota: Option<u64>,
    /// Whether packing removes what nothing refers to.
    pub pack_gc: bool,
    /// Whether packing leaves the former file as `.old`.
    pub pack_keep_old: bool,
    pub new_file_format: NewFileFormat,
    /// Where it was configured, for messages.
    pub location: Location,
}

/// The magic of a file that does not exist yet. Existing files keep theirs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NewFileFormat {
    /// As the first client to commit needs it: FS21 for Python 2, else FS30.
    #[default]
    Auto,
    /// Readable by Python 2.
    Fs21,
    /// Readable by Python 3.
    Fs30,
}

/// The `<eventlog>` section: the root logger.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLogConfig {
    /// Python's numbers: 50 critical, 40 error, 30 warning, 20 info, 15 blather, 10 debug, 5 trace, 1 all, 0 not set.
    pub level: i32,
    /// None means that nothing is written anywhere.
    pub handlers: Vec<HandlerConfig>,
}

/// One destination of log lines.
#[derive(Clone, Debug, PartialEq)]
pub enum HandlerConfig {
    LogFile(LogFileConfig),
    Syslog(SyslogConfig),
}

/// A `<logfile>` section.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFileConfig {
    pub target: LogTarget,
    /// 0: no limit beyond the logger's.
    pub level: i32,
    pub layout: LineLayout,
    pub rotation: Rotation,
    /// Open the file at the first line only.
    pub delay: bool,
    pub encoding: LogEncoding,
}

/// A `<syslog>` section.
#[derive(Clone, Debug, PartialEq)]
pub struct SyslogConfig {
    /// Lower case, one of the names that Python's SysLogHandler knows.
    pub facility: String,
    /// A TCP variant means UDP datagrams to that host and port.
    pub address: Address,
    /// 0: no limit beyond the logger's.
    pub level: i32,
    pub layout: LineLayout,
}

/// How a log line looks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LineLayout {
    /// Control characters already in place (`\n` is a line feed); checked against `style`: it names known fields only,
    /// unless `arbitrary_fields`.
    pub format: String,
    /// In strftime's language.
    pub dateformat: String,
    pub style: FormatStyle,
    /// Fields that a record lacks may be named.
    pub arbitrary_fields: bool,
}

/// The language of [`LineLayout::format`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FormatStyle {
    /// `%(message)s`
    #[default]
    Classic,
    /// `{message}`
    Format,
    /// `$message`, unknown names are errors
    Template,
    /// `$message`, unknown names stay as they are
    SafeTemplate,
}

/// Where a `<logfile>` writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogTarget {
    Path(PathBuf),
    Stdout,
    Stderr,
}

/// When a log file is moved aside for a new one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rotation {
    Never,
    /// At `max_size` bytes (0: only when asked to reopen), keeping `old_files`.
    Size {
        max_size: u64,
        old_files: u32,
    },
    /// At every `interval`th turn of `when`, keeping `old_files`.
    Time {
        when: RotateWhen,
        interval: u32,
        old_files: u32,
    },
}

/// The turns of time that Python's TimedRotatingFileHandler knows; local time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RotateWhen {
    Second,
    Minute,
    Hour,
    Day,
    Midnight,
    /// 0 is Monday.
    Weekday(u8),
}

/// How text becomes bytes in a log file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogEncoding {
    #[default]
    Utf8,
    Ascii,
    Latin1,
}
