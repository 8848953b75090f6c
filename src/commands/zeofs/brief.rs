//! A transaction in a few lines, or as one JSON object: for `zeofs tail`.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use super::dump::view::{TxnView, head_line, transaction_json};
use super::text::{oid_repr, shown};
use crate::base::ids::Oid;
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::commands::subcommand::Trouble;
use crate::inspect::data_file::DataFile;
use crate::inspect::record::class_of;
use crate::inspect::show;
use crate::inspect::walk::{FoundRecord, FoundTxn, RecordPart, Walk};
use crate::storage::{DataRecord, StorageError};

/// Classes that are named of one transaction.
const CLASSES_MAX: usize = 4;
/// Classes that are told apart in one transaction; records of further ones are counted together.
const CLASSES_TOLD_MAX: usize = 10_000;
/// Bytes of the name of a class that are kept.
const CLASS_LEN_MAX: usize = 1000;

/// Prints a transaction of a file. `objects_max`: objects that are named.
pub(super) fn show_transaction(
    out: &mut dyn Write,
    file: &DataFile,
    txn: &FoundTxn,
    is_json: bool,
    objects_max: usize,
) -> Result<(), Trouble> {
    let mut walk = Walk::from(file, txn.pos);
    let meta = walk.meta(txn)?;
    let content = Content::read(file, &mut walk, txn, objects_max)?;
    let view = TxnView { tid: txn.header.tid, status: txn.header.status, meta: &meta, found: Some(txn) };
    show(out, &view, content, is_json)
}

/// Prints a transaction.
pub(super) fn show(
    out: &mut dyn Write,
    txn: &TxnView<'_>,
    content: Content,
    is_json: bool,
) -> Result<(), Trouble> {
    let (meta, extension) = (txn.meta, show::extension(&txn.meta.extension));
    if is_json {
        let mut value = transaction_json(txn, extension);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("records".into(), content.records.into());
            fields.insert("classes".into(), content.classes.into_iter().collect());
            if content.objects_max > 0 {
                let object = |(oid, class, len): &(Oid, String, u64)| json!({"oid": oid.to_string(), "class": class, "len": len});
                fields.insert("objects".into(), content.objects.iter().map(object).collect());
            }
        }
        writeln!(out, "{value}")?;
        return Ok(());
    }
    writeln!(out, "\n{}", head_line(txn))?;
    for (name, text) in [("user", &meta.user), ("description", &meta.description)] {
        if !text.is_empty() {
            writeln!(out, "    {name} \"{}\"", shown(text))?;
        }
    }
    if !meta.extension.is_empty() {
        writeln!(out, "    extension {}", one_line(1000, format_args!("{extension}")))?;
    }
    let mut largest: Vec<(String, u64)> = content.classes.into_iter().collect();
    largest.sort_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
    let others = largest.len().saturating_sub(CLASSES_MAX);
    largest.truncate(CLASSES_MAX);
    let mut named: Vec<String> =
        largest.iter().map(|(class, count)| one_line(200, format_args!("{count} {class}"))).collect();
    if others > 0 {
        named.push(format!("{others} more classes"));
    }
    writeln!(out, "    records: {} ({})", content.records, named.join(", "))?;
    for (oid, class, len) in &content.objects {
        let class = one_line(200, format_args!("{class}"));
        writeln!(out, "        {}  {class}  {} bytes", oid_repr(*oid), grouped(*len))?;
    }
    let others = content.records.saturating_sub(content.objects.len() as u64);
    if others > 0 && content.objects_max > 0 {
        writeln!(out, "        ... and {} more", grouped(others))?;
    }
    Ok(())
}

/// What is in a transaction.
pub(super) struct Content {
    records: u64,
    /// Records of each class.
    classes: BTreeMap<String, u64>,
    /// The first ones: oid, class, bytes of the data.
    objects: Vec<(Oid, String, u64)>,
    objects_max: usize,
}

impl Content {
    /// Nothing yet. `objects_max`: objects that are named.
    pub(super) fn new(objects_max: usize) -> Content {
        Content { records: 0, classes: BTreeMap::new(), objects: Vec::new(), objects_max }
    }

    fn read(
        file: &DataFile,
        walk: &mut Walk<'_>,
        txn: &FoundTxn,
        objects_max: usize,
    ) -> Result<Content, Trouble> {
        let mut content = Content::new(objects_max);
        let mut cursor = walk.records(txn);
        let (mut apart, mut behind) = (Vec::new(), Vec::new());
        while let Some(part) = walk.next_record(&mut cursor)? {
            let RecordPart::Record(record) = part else { continue };
            let FoundRecord { pos, header, back } = record;
            let class = match (header.data_len, record.is_gone()) {
                (0, true) => "deleted".into(),
                (0, false) => "undone".into(),
                _ => class_of(walk.data(&record, &mut apart)?),
            };
            if content.names_one_more() {
                let object = match header.data_len {
                    // Of a record that was undone: what the object is now. Its data is checked by `zeofs test`.
                    0 => match file.data_of(pos, &header, back, &mut behind) {
                        Ok(Some(_)) => (header.oid, class_of(&behind), behind.len() as u64),
                        Ok(None) | Err(StorageError::Corrupt { .. }) => (header.oid, class.clone(), 0),
                        Err(error) => return Err(error.into()),
                    },
                    len => (header.oid, class.clone(), len),
                };
                content.objects.push(object);
            }
            content.count(class);
        }
        Ok(content)
    }

    /// Adds a record that a server has sent.
    pub(super) fn add(&mut self, record: &DataRecord) {
        let data = record.data.as_deref();
        let class = match (data, record.data_txn) {
            (None, _) => "deleted".into(),
            (Some(_), Some(_)) => "undone".into(),
            (Some(data), None) => class_of(data),
        };
        if self.names_one_more() {
            let named = data.map_or_else(|| class.clone(), class_of);
            self.objects.push((record.oid, cut(named), data.unwrap_or_default().len() as u64));
        }
        self.count(class);
    }

    fn names_one_more(&self) -> bool {
        self.objects.len() < self.objects_max
    }

    fn count(&mut self, class: String) {
        self.records += 1;
        let class = cut(class);
        let is_told = self.classes.len() < CLASSES_TOLD_MAX || self.classes.contains_key(&class);
        *self.classes.entry(if is_told { class } else { "(others)".into() }).or_default() += 1;
    }
}

fn cut(mut class: String) -> String {
    if class.len() > CLASS_LEN_MAX {
        let end = (0..=CLASS_LEN_MAX).rev().find(|end| class.is_char_boundary(*end));
        class.truncate(end.unwrap_or(0));
    }
    class
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Tid;

    #[test]
    fn a_transaction_of_any_length_takes_bounded_memory() {
        let mut content = Content::new(5);
        for number in 0..CLASSES_TOLD_MAX as u64 + 7 {
            let data = format!("cm{number}\n{}\n.N.", "\u{e9}".repeat(CLASS_LEN_MAX)).into_bytes();
            content.add(&DataRecord { oid: Oid(number), tid: Tid(1), data: Some(data), data_txn: None });
        }
        assert_eq!(content.records, CLASSES_TOLD_MAX as u64 + 7);
        assert_eq!((content.classes.len(), content.classes["(others)"]), (CLASSES_TOLD_MAX + 1, 7));
        assert!(content.classes.keys().all(|class| class.len() <= CLASS_LEN_MAX));
        assert!(
            content.objects.len() == 5
                && content.objects.iter().all(|(_, class, _)| class.len() <= CLASS_LEN_MAX)
        );
    }
}
