//! What the audit log has of a commit. Gathered before the vote, which takes the transaction's data.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::base::ids::Tid;
use crate::base::timestamp::iso_utc;
use crate::base::untrusted::Untrusted;
use crate::storage::staged::{Op, OpKind};
use crate::storage::{Staged, class_name};

/// Objects that are named.
const OBJECTS_MAX: usize = 20;
/// Records up to this length, in bytes, are read for the names of their classes.
const RECORD_MAX: u64 = 1 << 20;

/// What is known of a transaction.
#[derive(Clone, Debug)]
pub struct CommitFacts {
    /// Escaped, as the description.
    user: String,
    description: String,
    began: SystemTime,
    bytes: u64,
    /// All operations but checks.
    changes: usize,
    objects: Vec<Value>,
    undone: Vec<String>,
}

impl CommitFacts {
    /// Of a transaction that is about to be voted, and began at some time.
    pub fn of(staged: &Staged, began: SystemTime) -> CommitFacts {
        let is_change = |op: &&Op| !matches!(op.kind, OpKind::CheckCurrent { .. } | OpKind::Undo { .. });
        let text = |bytes: &[u8]| Untrusted(&String::from_utf8_lossy(bytes)).to_string();
        let undone = staged.ops().iter().filter_map(|op| match op.kind {
            OpKind::Undo { tid } => Some(tid.to_string()),
            _ => None,
        });
        CommitFacts {
            user: text(&staged.meta.user),
            description: text(&staged.meta.description),
            began,
            bytes: staged.payload_len(),
            changes: staged.ops().iter().filter(is_change).count(),
            objects: staged
                .ops()
                .iter()
                .filter(is_change)
                .take(OBJECTS_MAX)
                .map(|op| object(staged, op))
                .collect(),
            undone: undone.take(OBJECTS_MAX).collect(),
        }
    }

    /// Adds them to a line.
    pub fn add_to(self, facts: &mut Map<String, Value>, tid: Tid) {
        facts.insert("tid".into(), tid.to_string().into());
        facts.insert("user".into(), self.user.into());
        facts.insert("description".into(), self.description.into());
        facts.insert("began".into(), iso_utc(self.began).into());
        facts.insert("bytes".into(), self.bytes.into());
        facts.insert("changes".into(), self.changes.into());
        facts.insert("objects".into(), self.objects.into());
        if !self.undone.is_empty() {
            facts.insert("undone".into(), self.undone.into());
        }
    }
}

fn object(staged: &Staged, op: &Op) -> Value {
    let record = (op.len <= RECORD_MAX).then(|| staged.payload(op).ok()).flatten();
    let class = record.and_then(|record| class_name(&record)).map(|class| class.to_string());
    let action = match op.kind {
        OpKind::Delete { .. } => "delete",
        OpKind::Restore { .. } => "restore",
        _ => "store",
    };
    json!({ "oid": format!("{:#x}", op.oid.0), "class": class, "action": action })
}
