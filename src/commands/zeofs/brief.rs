//! A transaction in a few lines, or as one JSON object: for `zeofs tail`.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use super::dump::transaction_json;
use super::text::{oid_repr, shown, timestamp};
use crate::base::ids::Oid;
use crate::base::untrusted::one_line;
use crate::commands::numbers::grouped;
use crate::commands::subcommand::Trouble;
use crate::inspect::data_file::DataFile;
use crate::inspect::record::class_of;
use crate::inspect::show;
use crate::inspect::walk::{FoundRecord, FoundTxn, RecordPart, Walk};
use crate::storage::StorageError;

/// Classes that are named of one transaction.
const CLASSES_MAX: usize = 4;

/// Prints a transaction. `objects_max`: objects that are named.
pub(super) fn show_transaction(
    out: &mut dyn Write,
    file: &DataFile,
    txn: &FoundTxn,
    is_json: bool,
    objects_max: usize,
) -> Result<(), Trouble> {
    let mut walk = Walk::from(file, txn.pos);
    let meta = walk.meta(txn)?;
    let extension = show::extension(&meta.extension);
    let content = Content::read(file, &mut walk, txn, objects_max)?;
    if is_json {
        let mut value = transaction_json(txn, &meta, extension);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("records".into(), content.records.into());
            fields.insert("classes".into(), content.classes.into_iter().collect());
            if objects_max > 0 {
                let object = |(oid, class, len): &(Oid, String, u64)| json!({"oid": oid.to_string(), "class": class, "len": len});
                fields.insert("objects".into(), content.objects.iter().map(object).collect());
            }
        }
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let header = txn.header;
    writeln!(out, "\n{}  {}  at {}, {} bytes", timestamp(header.tid), header.tid, txn.pos, header.len)?;
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
    if others > 0 && objects_max > 0 {
        writeln!(out, "        ... and {} more", grouped(others))?;
    }
    Ok(())
}

/// What is in a transaction.
struct Content {
    records: u64,
    /// Records of each class.
    classes: BTreeMap<String, u64>,
    /// The first ones: oid, class, bytes of the data.
    objects: Vec<(Oid, String, u64)>,
}

impl Content {
    fn read(
        file: &DataFile,
        walk: &mut Walk<'_>,
        txn: &FoundTxn,
        objects_max: usize,
    ) -> Result<Content, Trouble> {
        let mut content = Content { records: 0, classes: BTreeMap::new(), objects: Vec::new() };
        let mut cursor = walk.records(txn);
        let (mut apart, mut behind) = (Vec::new(), Vec::new());
        while let Some(part) = walk.next_record(&mut cursor)? {
            let RecordPart::Record(record) = part else { continue };
            content.records += 1;
            let FoundRecord { pos, header, back } = record;
            let class = match (header.data_len, record.is_gone()) {
                (0, true) => "deleted".into(),
                (0, false) => "undone".into(),
                _ => class_of(walk.data(&record, &mut apart)?),
            };
            if content.objects.len() < objects_max {
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
            *content.classes.entry(class).or_default() += 1;
        }
        Ok(content)
    }
}
