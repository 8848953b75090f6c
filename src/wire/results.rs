//! Results of rarely used calls: votes, histories, undo logs, iterations. Frequent ones are in [`super::answers`].

use super::answers::{Answer, AnswerError};
use super::value::Value;
use crate::base::ids::{Oid, Tid};

/// What the server did about conflicts when a transaction voted. Before Z5 the `serialnos` before the reply say it, and
/// this is empty.
#[derive(Debug, Default, PartialEq)]
pub struct VoteResult {
    /// Objects that the server merged, or that an undo changed. The client does not have their data.
    pub resolved: Vec<Oid>,
    /// Objects that the client is to merge: it stores them again and votes again.
    pub conflicts: Vec<UnresolvedObject>,
}

/// A conflict that the client is to resolve.
#[derive(Debug, PartialEq)]
pub struct UnresolvedObject {
    pub oid: Oid,
    /// The serial that is committed now.
    pub committed: Tid,
    /// The serial from which the transaction started.
    pub read: Tid,
    /// The record that the client stored.
    pub data: Vec<u8>,
}

/// One revision in an object's history, or one transaction of the undo log. Strings are as the transaction has them,
/// usually UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// The key `tid` of a history, `id` of an undo log: the name for undo.
    pub id: Vec<u8>,
    /// Seconds since 1970.
    pub time: f64,
    pub user_name: Vec<u8>,
    pub description: Vec<u8>,
    /// Bytes of data; `None` if the storage does not say.
    pub size: Option<u64>,
    /// All other keys, among them those of the transaction's extension.
    pub rest: Vec<(Value, Value)>,
}

/// A transaction of an iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct IteratedTransaction {
    pub tid: Tid,
    /// `b' '`, or `b'p'` if it was packed.
    pub status: u8,
    pub user: Vec<u8>,
    pub description: Vec<u8>,
    /// A dict.
    pub extension: Value,
}

/// A record of a transaction of an iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct IteratedRecord {
    pub oid: Oid,
    pub tid: Tid,
    /// `None` for an object that was un-created.
    pub data: Option<Vec<u8>>,
    /// The transaction that first stored the data, if it is not this one.
    pub data_txn: Option<Tid>,
}

/// An object of a walk through all objects.
#[derive(Clone, Debug, PartialEq)]
pub struct IteratedObject {
    pub oid: Oid,
    pub tid: Tid,
    pub data: Vec<u8>,
    /// The argument for the next step; `None`: this was the last object.
    pub next: Option<Oid>,
}

impl Answer<'_> {
    /// Of vote.
    pub fn vote(&self) -> Result<VoteResult, AnswerError> {
        let items = match self.value()? {
            Value::None => Vec::new(),
            value => list(value).ok_or_else(|| self.broken("the result of a vote"))?,
        };
        let mut result = VoteResult::default();
        for item in items {
            if matches!(item, Value::Dict(_)) {
                let conflict = unresolved(item).ok_or_else(|| self.broken("the result of a vote"))?;
                result.conflicts.push(conflict);
            } else {
                result.resolved.push(oid(&item).ok_or_else(|| self.broken("the result of a vote"))?);
            }
        }
        Ok(result)
    }

    /// Of new_oids.
    pub fn oids(&self) -> Result<Vec<Oid>, AnswerError> {
        let items = list(self.value()?);
        items.and_then(|items| items.iter().map(oid).collect()).ok_or_else(|| self.broken("a list of oids"))
    }

    /// Of history, newest first.
    pub fn history(&self) -> Result<Vec<LogEntry>, AnswerError> {
        self.log(b"tid")
    }

    /// Of undoLog and undoInfo, newest first.
    pub fn undo_log(&self) -> Result<Vec<LogEntry>, AnswerError> {
        self.log(b"id")
    }

    fn log(&self, id: &[u8]) -> Result<Vec<LogEntry>, AnswerError> {
        let items = list(self.value()?);
        items
            .and_then(|items| items.into_iter().map(|item| entry(item, id)).collect())
            .ok_or_else(|| self.broken("a list of transactions"))
    }

    /// Of iterator_next; `None` at the end.
    pub fn iterated_transaction(&self) -> Result<Option<IteratedTransaction>, AnswerError> {
        self.optional("a transaction", |[tid, status, user, description, extension]| {
            Some(IteratedTransaction {
                tid: tid_of(&tid)?,
                status: match bytes(status)?.as_slice() {
                    [status] => *status,
                    _ => return None,
                },
                user: bytes(user)?,
                description: bytes(description)?,
                extension,
            })
        })
    }

    /// Of iterator_record_next; `None` at the end.
    pub fn iterated_record(&self) -> Result<Option<IteratedRecord>, AnswerError> {
        self.optional("a record", |[oid_, tid, data, data_txn]| {
            Some(IteratedRecord {
                oid: oid(&oid_)?,
                tid: tid_of(&tid)?,
                data: optional(data, bytes)?,
                data_txn: optional(data_txn, |tid| tid_of(&tid))?,
            })
        })
    }

    /// Of record_iternext.
    pub fn iterated_object(&self) -> Result<IteratedObject, AnswerError> {
        let object = self.optional("an object", |[oid_, tid, data, next]| {
            Some(IteratedObject {
                oid: oid(&oid_)?,
                tid: tid_of(&tid)?,
                data: bytes(data)?,
                next: optional(next, |next| oid(&next))?,
            })
        })?;
        object.ok_or_else(|| self.broken("an object"))
    }

    /// A tuple of `N` values, or `None`.
    fn optional<const N: usize, T>(
        &self,
        what: &str,
        convert: impl FnOnce([Value; N]) -> Option<T>,
    ) -> Result<Option<T>, AnswerError> {
        match self.value()? {
            Value::None => Ok(None),
            value => {
                let items = list(value).and_then(|items| items.try_into().ok());
                items.and_then(convert).map(Some).ok_or_else(|| self.broken(what))
            }
        }
    }
}

fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::List(items) | Value::Tuple(items) => Some(items),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) | Value::Str(bytes) => Some(bytes),
        Value::Text(text) | Value::Unicode(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// `Some(None)` for Python's `None`.
fn optional<T>(value: Value, convert: impl FnOnce(Value) -> Option<T>) -> Option<Option<T>> {
    match value {
        Value::None => Some(None),
        value => convert(value).map(Some),
    }
}

fn id8(value: &Value) -> Option<[u8; 8]> {
    value.string()?.try_into().ok()
}

fn tid_of(value: &Value) -> Option<Tid> {
    id8(value).map(Tid::from_bytes)
}

/// An oid, perhaps in a pair with a serial or a version.
fn oid(value: &Value) -> Option<Oid> {
    match value {
        Value::Tuple(pair) | Value::List(pair) => match pair.as_slice() {
            [oid, _] => id8(oid).map(Oid::from_bytes),
            _ => None,
        },
        value => id8(value).map(Oid::from_bytes),
    }
}

fn unresolved(conflict: Value) -> Option<UnresolvedObject> {
    let (Value::Tuple(serials) | Value::List(serials)) = conflict.get("serials")? else { return None };
    let [committed, read] = serials.as_slice() else { return None };
    Some(UnresolvedObject {
        oid: oid(conflict.get("oid")?)?,
        committed: tid_of(committed)?,
        read: tid_of(read)?,
        data: conflict.get("data")?.string()?.to_vec(),
    })
}

fn entry(dict: Value, id_key: &[u8]) -> Option<LogEntry> {
    let Value::Dict(pairs) = dict else { return None };
    let (mut id, mut time, mut size) = (None, 0.0, None);
    let (mut user_name, mut description, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in pairs {
        match (key.string(), value) {
            (Some(key), value) if key == id_key && value.string().is_some() => id = bytes(value),
            (Some(b"time"), Value::Float(value)) => time = value,
            #[allow(clippy::cast_precision_loss)] // seconds since 1970
            (Some(b"time"), Value::Int(value)) => time = value as f64,
            (Some(b"size"), Value::Int(value)) => size = u64::try_from(value).ok(),
            (Some(b"user_name"), value) if value.string().is_some() => user_name = bytes(value)?,
            (Some(b"description"), value) if value.string().is_some() => description = bytes(value)?,
            // An extension may have replaced one of those above.
            (_, value) => rest.push((key, value)),
        }
    }
    Some(LogEntry { id: id.unwrap_or_default(), time, user_name, description, size, rest })
}
