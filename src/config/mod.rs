//! What the operator asked for: configuration file and command line, merged into plain data.
//!
//! Nothing here opens a storage, a socket or a log; `--help`, `--check` and every error leave the
//! machine as it was. Values are checked: what reaches [`Config`] can be used as it stands.

mod assemble;
mod describe;
mod files;
pub mod options;
pub mod schema;
mod storage;
pub mod zconfig;

use std::path::PathBuf;
use std::time::Duration;

use crate::base::address::Address;
use crate::conflict::HelperOptions;
use crate::server::limits::Limits;

pub use assemble::{Environment, Invocation, authentication_of, from_command_line};

pub use options::UsageError;
#[cfg(feature = "test-storages")]
pub use storage::TestStorage;
pub use storage::{
    BeforeStorageConfig, BeforeTime, BlobStorageConfig, DemoStorageConfig, FileStorageConfig, NewFileFormat,
    StorageConfig, ZlibStorageConfig,
};
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
    /// Clients that can, ZEO 5 and later, merge conflicting states themselves.
    pub client_conflict_resolution: bool,
    /// Helper processes that merge conflicting states with the application's classes.
    pub conflict_resolver: Option<HelperOptions>,
    /// Speak msgpack (`M5`) instead of pickle: the `msgpack` key, or else a non-empty `ZEO_MSGPACK`.
    pub msgpack: bool,
    /// Where statistics are served as text.
    pub monitor_address: Option<Address>,
    /// `None`: everybody may connect.
    pub authentication: Option<AuthenticationConfig>,
    /// `None`: no TLS.
    pub ssl: Option<SslConfig>,
    /// The mode of the Unix socket; `None`: what the umask leaves.
    pub socket_mode: Option<u32>,
    pub limits: Limits,
    /// `ZEO_SERVER_PROTOCOL`: the protocol to announce instead of the newest, as given.
    pub announced_protocol: Option<String>,
}

/// `authentication-protocol` and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthenticationConfig {
    /// Whether there is such a protocol is found out when the server starts.
    pub protocol: String,
    pub database: PathBuf,
    pub realm: Option<String>,
    /// Where the protocol was configured, for messages.
    pub location: Location,
}

/// The `<ssl>` section.
#[derive(Clone, Debug, PartialEq)]
pub struct SslConfig {
    pub certificate: PathBuf,
    /// `None`: the key is in the file of the certificate.
    pub key: Option<PathBuf>,
    pub password: Option<KeyPassword>,
    pub clients: ClientCertificates,
    /// Where the section begins, for messages.
    pub location: Location,
}

/// Where the password of the key comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyPassword {
    /// The first line of a file.
    File(PathBuf),
    /// What a function of upstream's tests would return.
    #[cfg(feature = "test-storages")]
    Text(String),
}

/// `authenticate`
#[derive(Clone, Debug, PartialEq)]
pub enum ClientCertificates {
    /// A file or a directory.
    Listed(PathBuf),
    /// From any authority that the machine trusts.
    Signed,
}

/// A storage and the name that clients ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedStorage {
    pub name: String,
    pub storage: StorageConfig,
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
