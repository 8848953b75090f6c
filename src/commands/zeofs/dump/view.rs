//! What is shown of a transaction and of a record, as text or as JSON, wherever they come from.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::selection::Selection;
use super::super::text::{oid_repr, shown, timestamp};
use crate::base::ids::{Oid, Tid};
use crate::base::untrusted::one_line;
use crate::inspect::record::{class_key, class_text, plain};
use crate::inspect::show;
use crate::inspect::walk::FoundTxn;
use crate::pickle::record::is_blob;
use crate::pickle::refs::references;
use crate::storage::{BlobDir, TransactionMeta};

/// Which records are shown, and what of them.
pub struct Choice {
    pub selection: Selection,
    pub with_references: bool,
    pub with_states: bool,
    pub blobs: Option<Arc<BlobDir>>,
}

/// A transaction.
pub struct TxnView<'a> {
    pub tid: Tid,
    pub status: u8,
    pub meta: &'a TransactionMeta,
    /// Where it is. `None`: in no file.
    pub found: Option<&'a FoundTxn>,
}

/// A record.
pub struct RecordView {
    pub oid: Oid,
    /// Usually the one of the transaction.
    pub tid: Tid,
    /// Where it is, and where its data is, if there is any. `None`: it is in no file.
    pub place: Option<(u64, Option<u64>)>,
    has_data: bool,
    class: Option<String>,
    len: usize,
    refs: Option<Result<Vec<Oid>, String>>,
    state: Option<Result<Value, String>>,
    /// The length of the blob's file, or why there is none.
    blob: Option<Result<u64, String>>,
    /// Why the back-pointer leads nowhere.
    pub lost: Option<String>,
}

impl Choice {
    /// What is shown of a record with this data. `None` if the class is not a wanted one.
    pub fn view(&self, oid: Oid, tid: Tid, data: Option<&[u8]>) -> Option<RecordView> {
        let has_data = data.is_some();
        let data = data.unwrap_or_default();
        let len = data.len();
        let data = plain(data).unwrap_or(Cow::Borrowed(data));
        let key = class_key(&data);
        if !self.selection.has_class(key.as_deref()) {
            return None;
        }
        let refs = (self.with_references && has_data).then(|| {
            let mut oids = Vec::new();
            references(&data, &mut oids).map(|()| oids)
        });
        let state = (self.with_states && has_data).then(|| show::state(&data));
        let blob = self
            .blobs
            .as_ref()
            .filter(|_| is_blob(&data))
            .map(|blobs| blobs.load(oid, tid).map(|blob| blob.len).map_err(|error| error.to_string()));
        let class = key.map(|key| class_text(&key));
        Some(RecordView { oid, tid, place: None, has_data, class, len, refs, state, blob, lost: None })
    }
}

/// Prints a transaction without its records.
pub fn print_head(out: &mut dyn Write, is_json: bool, txn: &TxnView<'_>) -> io::Result<()> {
    let TxnView { tid, status, meta, found } = txn;
    let extension = show::extension(&meta.extension);
    if is_json {
        return writeln!(out, "{}", transaction_json(txn, extension));
    }
    writeln!(out, "\n{}", head_line(txn))?;
    let mut more = Vec::new();
    match *status {
        b' ' => {}
        b'p' => more.push("packed".to_string()),
        b'u' => more.push("undone by an old program: it does not count".into()),
        other => more.push(format!("unknown status '{}'", [other].escape_ascii())),
    }
    for (name, text) in [("user", &meta.user), ("description", &meta.description)] {
        if !text.is_empty() {
            more.push(format!("{name} \"{}\"", shown(text)));
        }
    }
    if !meta.extension.is_empty() {
        more.push(format!("extension {}", one_line(1000, format_args!("{extension}"))));
    }
    if let Some(wrong) = found.and_then(|found| found.wrong_len) {
        more.push(format!("DAMAGED: {}", wrong.text()));
    }
    debug_assert!(found.is_none_or(|found| found.header.tid == *tid));
    if more.is_empty() { Ok(()) } else { writeln!(out, "    {}", more.join(", ")) }
}

/// Time, tid and place of a transaction.
pub fn head_line(txn: &TxnView<'_>) -> String {
    let place =
        txn.found.map_or_else(String::new, |found| format!("  at {}, {} bytes", found.pos, found.header.len));
    format!("{}  {}{place}", timestamp(txn.tid), txn.tid)
}

/// Prints a record of transaction `tid`.
pub fn print_record(out: &mut dyn Write, is_json: bool, tid: Tid, view: &RecordView) -> io::Result<()> {
    if is_json {
        return writeln!(out, "{}", record_json(tid, view));
    }
    write!(out, "    {}  ", oid_repr(view.oid))?;
    match &view.lost {
        None if view.has_data => {
            let class = view.class.as_deref().unwrap_or("no class");
            write!(out, "{}  {} bytes", one_line(200, format_args!("{class}")), view.len)?;
            if let Some((pos, Some(at))) = view.place
                && at != pos
            {
                write!(out, ", those at {at}")?;
            }
        }
        Some(why) => write!(out, "DAMAGED: its data cannot be read, {why}")?,
        None => write!(out, "deleted, or its creation undone")?,
    }
    match &view.blob {
        Some(Ok(len)) => write!(out, ", a blob of {len} bytes")?,
        Some(Err(why)) => write!(out, ", a blob that cannot be read: {why}")?,
        None => {}
    }
    if view.tid != tid {
        write!(out, ", with the tid {}", view.tid)?;
    }
    writeln!(out)?;
    match &view.refs {
        None => {}
        Some(Err(why)) => writeln!(out, "        no references can be read: {why}")?,
        Some(Ok(oids)) if oids.is_empty() => {}
        Some(Ok(oids)) => {
            write!(out, "        refers to")?;
            oids.iter().try_for_each(|oid| write!(out, " {}", oid_repr(*oid)))?;
            writeln!(out)?;
        }
    }
    view.state.as_ref().map_or(Ok(()), |state| print_state(out, state))
}

/// Prints the state of an object as indented JSON.
pub fn print_state(out: &mut dyn Write, state: &Result<Value, String>) -> io::Result<()> {
    match state {
        Err(why) => {
            writeln!(out, "        the state cannot be read: {}", one_line(500, format_args!("{why}")))
        }
        Ok(state) => {
            let lines = format!("{state:#}");
            lines
                .lines()
                .try_for_each(|line| writeln!(out, "        {}", one_line(2000, format_args!("{line}"))))
        }
    }
}

/// Adds the state of an object, or why there is none.
pub fn insert_state(fields: &mut Map<String, Value>, state: &Result<Value, String>) {
    match state {
        Ok(state) => fields.insert("state".into(), state.clone()),
        Err(why) => fields.insert("state_damage".into(), why.as_str().into()),
    };
}

/// The fields of a transaction for programs.
pub fn transaction_json(txn: &TxnView<'_>, extension: Value) -> Value {
    let TxnView { tid, status, meta, found } = txn;
    let mut value = json!({
        "kind": "transaction",
        "tid": tid.to_string(),
        "time": tid.to_iso(),
        "status": char::from(*status).to_string(),
        "user": show::text(&meta.user),
        "description": show::text(&meta.description),
        "extension": extension,
    });
    if let (Some(found), Some(fields)) = (found, value.as_object_mut()) {
        fields.insert("pos".into(), found.pos.into());
        fields.insert("len".into(), found.header.len.into());
        if let Some(wrong) = found.wrong_len {
            fields.insert("damage".into(), wrong.text().into());
        }
    }
    value
}

fn record_json(tid: Tid, view: &RecordView) -> Value {
    let mut value = json!({
        "kind": "record",
        "tid": tid.to_string(),
        "oid": view.oid.to_string(),
        "class": view.class,
        "len": view.len,
    });
    let Some(fields) = value.as_object_mut() else { return value };
    if let Some((pos, data_at)) = view.place {
        fields.insert("pos".into(), pos.into());
        fields.insert("data_pos".into(), data_at.into());
    }
    if view.tid != tid {
        fields.insert("record_tid".into(), view.tid.to_string().into());
    }
    match &view.refs {
        Some(Ok(oids)) => {
            let oids = oids.iter().map(|oid| Value::from(oid.to_string())).collect();
            fields.insert("refs".into(), Value::Array(oids));
        }
        Some(Err(why)) => _ = fields.insert("refs_damage".into(), why.as_str().into()),
        None => {}
    }
    if let Some(state) = &view.state {
        insert_state(fields, state);
    }
    match &view.blob {
        Some(Ok(len)) => _ = fields.insert("blob".into(), (*len).into()),
        Some(Err(why)) => _ = fields.insert("blob_damage".into(), why.as_str().into()),
        None => {}
    }
    if let Some(why) = &view.lost {
        fields.insert("damage".into(), why.as_str().into());
    }
    value
}
