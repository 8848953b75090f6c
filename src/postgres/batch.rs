//! What is sent in one write: executions of prepared statements, in groups that are database transactions.
//!
//! A batch is encoded as it is filled, and does not depend on a connection: the name of a statement on the server
//! follows from its text. So a batch can be run again, and on another connection.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use super::value::{Type, Value};

/// Upper bound on the values of one execution. The server refuses messages of a gigabyte and more.
const VALUES_LEN_MAX: usize = (1 << 30) - (64 << 10);
/// Format of parameters and of results.
const BINARY: i16 = 1;

/// An SQL statement that is prepared on its first use on a connection. A constant.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Statement {
    pub sql: &'static str,
    /// Types of its parameters.
    pub types: &'static [Type],
}

/// The name of a prepared statement: a hash of its text and types.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StatementName(u64);

impl Statement {
    pub fn name(&self) -> StatementName {
        // Its keys are fixed, so the name is the same on each connection.
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        StatementName(hasher.finish())
    }
}

impl fmt::Display for StatementName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:016x}", self.0)
    }
}

/// The values of one execution are more than the server takes in one message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TooLarge {
    pub len: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.len;
        write!(f, "{len} bytes of parameters; PostgreSQL takes at most {VALUES_LEN_MAX} in one call")
    }
}

impl std::error::Error for TooLarge {}

/// Executions of statements. What stands between two [`Batch::sync`] is a group: one database transaction, unless
/// statements begin and end one. After an error the rest of its group is skipped; the next group runs.
#[derive(Debug, Default)]
pub struct Batch {
    /// The messages.
    pub(super) bytes: BytesMut,
    /// Each statement once, with its name.
    pub(super) statements: Vec<(Statement, StatementName)>,
    /// The groups that are complete.
    pub(super) groups: Vec<Group>,
    /// Executions since the last sync.
    open: Group,
}

/// What stands between two syncs.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Where its messages end.
    pub end: usize,
    /// The statements that it executes, as positions in the batch's list.
    pub executes: Vec<usize>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds an execution. After an error the batch is as it was before.
    pub fn execute(&mut self, statement: &Statement, values: &[Value<'_>]) -> Result<(), TooLarge> {
        debug_assert_eq!(statement.types.len(), values.len(), "{}", statement.sql);
        debug_assert!(
            statement.types.iter().zip(values).all(|(of, value)| value.type_of().is_none_or(|is| is == *of)),
            "{values:?} are not of the types of {statement:?}"
        );
        check_len(values)?;
        let at = self.remember(statement);
        bind("", &self.statements[at].1.to_string(), values, &mut self.bytes);
        frontend::execute("", 0, &mut self.bytes).expect("a name without a zero byte");
        self.open.executes.push(at);
        Ok(())
    }

    /// Ends a group. Without executions since the last sync nothing is added.
    pub fn sync(&mut self) {
        if !self.open.executes.is_empty() {
            frontend::sync(&mut self.bytes);
            self.open.end = self.bytes.len();
            self.groups.push(std::mem::take(&mut self.open));
        }
    }

    /// Number of groups, and so of answers.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Removes everything; keeps memory for the next content.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.statements.clear();
        self.groups.clear();
        self.open = Group::default();
    }

    /// Whether executions were added after the last sync: they would not be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.open.executes.is_empty()
    }

    /// The bytes of a group.
    pub(super) fn group_bytes(&self, group: usize) -> &[u8] {
        let start = group.checked_sub(1).map_or(0, |before| self.groups[before].end);
        &self.bytes[start..self.groups[group].end]
    }

    /// The statement's position in the list.
    fn remember(&mut self, statement: &Statement) -> usize {
        let known = |(of, _): &(Statement, StatementName)| of == statement;
        if let Some(at) = self.statements.iter().position(known) {
            return at;
        }
        self.statements.push((*statement, statement.name()));
        self.statements.len() - 1
    }
}

/// Whether the values fit into one message.
pub(super) fn check_len(values: &[Value<'_>]) -> Result<(), TooLarge> {
    let len = values.iter().map(|value| value.len_max() + 4).sum();
    if len > VALUES_LEN_MAX { Err(TooLarge { len }) } else { Ok(()) }
}

/// Appends the message that gives a prepared statement its values. Parameters and results are binary.
pub(super) fn bind(portal: &str, statement: &str, values: &[Value<'_>], out: &mut BytesMut) {
    let len: usize = values.iter().map(|value| value.len_max() + 4).sum();
    out.reserve(len + 64);
    let put = |value: &Value<'_>, out: &mut BytesMut| {
        value.put(out);
        Ok(if matches!(value, Value::Null) { IsNull::Yes } else { IsNull::No })
    };
    // One format stands for all.
    let bound = frontend::bind(portal, statement, [BINARY], values, put, [BINARY], out);
    assert!(bound.is_ok(), "a name without a zero byte, and values of bounded lengths");
}

/// Appends the message that prepares a statement.
pub(super) fn parse(statement: &Statement, name: StatementName, out: &mut BytesMut) {
    let types = statement.types.iter().map(|one| one.oid());
    frontend::parse(&name.to_string(), statement.sql, types, out).expect("a constant without a zero byte");
}
