//! What can go wrong on a connection: an error that the server reports, an answer of another form than expected, and
//! the end of the connection.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::str;

use postgres_protocol::message::backend::ErrorFields;

use crate::base::untrusted::one_line;

/// Upper bound on the bytes of each text of a server's error that are kept.
const TEXT_LEN_MAX: usize = 8 << 10;
/// Upper bound on the bytes of an error in the log.
pub(super) const SHOWN_LEN_MAX: usize = 2 << 10;

/// An SQLSTATE: five digits or capital letters.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// `None`: the text is no SQLSTATE.
    pub fn parse(code: &[u8]) -> Option<SqlState> {
        let code = <[u8; 5]>::try_from(code).ok()?;
        code.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()).then_some(SqlState(code))
    }

    /// The five characters, such as `40001`.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Default for SqlState {
    /// `XX000`, `internal_error`, for what a server reports without a code.
    fn default() -> SqlState {
        SqlState(*b"XX000")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error or a notice of the server. `Display` is one line, safe for a log. In a box, because most results are none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerError(Box<ErrorReport>);

impl Deref for ServerError {
    type Target = ErrorReport;

    fn deref(&self) -> &ErrorReport {
        &self.0
    }
}

/// What the server reports.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ErrorReport {
    /// `ERROR`, `FATAL`, `PANIC`, or of a notice `WARNING`, `NOTICE` and so on; not translated.
    pub severity: String,
    pub code: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// What the server was doing, such as the lines of a function.
    pub context: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub constraint: Option<String>,
    /// The function of the server's source that reported it.
    pub routine: Option<String>,
}

impl ServerError {
    /// Reads the fields of a message. `None`: they are not formed as they must be.
    pub fn parse(mut fields: ErrorFields<'_>) -> Option<ServerError> {
        use fallible_iterator::FallibleIterator as _;

        let mut error = ErrorReport::default();
        let mut translated = String::new();
        while let Some(field) = fields.next().ok()? {
            let value = text(field.value_bytes());
            match field.type_() {
                b'V' => error.severity = value,
                b'S' => translated = value,
                b'C' => error.code = SqlState::parse(field.value_bytes()).unwrap_or_default(),
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'W' => error.context = Some(value),
                b's' => error.schema = Some(value),
                b't' => error.table = Some(value),
                b'n' => error.constraint = Some(value),
                b'R' => error.routine = Some(value),
                // Positions in the statement, and fields of later versions.
                _ => {}
            }
        }
        if error.severity.is_empty() {
            error.severity = translated;
        }
        Some(ServerError(Box::new(error)))
    }

    /// An error of the client, in the form of the server's.
    pub(super) fn own(code: &[u8; 5], message: impl Into<String>) -> ServerError {
        let severity = "ERROR".into();
        let report = ErrorReport {
            severity,
            code: SqlState(*code),
            message: message.into(),
            ..ErrorReport::default()
        };
        ServerError(Box::new(report))
    }

    /// The connection ends with this error.
    pub fn is_fatal(&self) -> bool {
        self.severity == "FATAL" || self.severity == "PANIC"
    }
}

/// The server's bytes as text, cut to a length that fits in memory and in a message.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.get(..TEXT_LEN_MAX).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{} {}: {}", self.severity, self.code, self.message);
        for (name, part) in [("detail", &self.detail), ("hint", &self.hint), ("context", &self.context)] {
            if let Some(part) = part {
                line += &format!("; {name}: {part}");
            }
        }
        let line = line.replace('\n', " ");
        f.write_str(&one_line(SHOWN_LEN_MAX, format_args!("{line}")))
    }
}

impl std::error::Error for ServerError {}

/// The connection is broken, and cannot be used any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lost {
    pub reason: String,
    /// The error with which the server ended the connection, if it gave one.
    pub code: Option<SqlState>,
}

impl Lost {
    /// The reason may have text of the server in it: it is made one line, safe for a log.
    pub fn new(reason: impl fmt::Display) -> Lost {
        Lost { reason: one_line(SHOWN_LEN_MAX, format_args!("{reason}")), code: None }
    }

    /// The server ended the connection with an error.
    pub fn by_server(error: &ServerError) -> Lost {
        Lost { reason: error.to_string(), code: Some(error.code) }
    }

    /// The server has sent what the protocol does not allow here.
    pub fn protocol(what: impl fmt::Display) -> Lost {
        Lost::new(format_args!("the server does not keep to the protocol: {what}"))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection to PostgreSQL is lost: {}", self.reason)
    }
}

impl std::error::Error for Lost {}

/// The error of a socket that ends the connection.
pub(super) fn broken(error: &io::Error) -> Lost {
    match error.kind() {
        io::ErrorKind::TimedOut => Lost::new("the server did not answer in time"),
        _ => Lost::new(error.to_string()),
    }
}

/// A row has not the form that the statement's caller expects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Malformed {
    /// Number of the column, from 0.
    pub column: usize,
    pub why: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL's answer: column {}: {}", self.column, self.why)
    }
}

impl std::error::Error for Malformed {}
