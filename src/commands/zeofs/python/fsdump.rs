//! `fsdump FILE`: a line for each record, two for each transaction.

use std::io::Write;

use super::super::selection::OpenedFile;
use super::super::text::{quoted, timestamp};
use super::iterator::PythonIterator;
use super::tool::Tool;
use crate::commands::subcommand::Trouble;
use crate::inspect::record::{class_key, class_text};
use crate::storage::file::FileFormat;

pub(super) const TOOL: Tool = Tool { name: "fsdump", usage: "FILE", main };

fn main(out: &mut dyn Write, arguments: &[String]) -> Result<u8, Trouble> {
    // As in Python, further arguments are ignored.
    let [name, ..] = arguments else { return Err(Trouble::Usage("no file is given".into())) };
    let file = OpenedFile::open(name)?;
    let is_python2 = file.data.format() == FileFormat::FS21;
    let b = if is_python2 { "" } else { "b" };
    let mut transactions = PythonIterator::new(&file);
    let (mut number, mut data) = (0_u64, Vec::new());
    while let Some(mut txn) = transactions.next_transaction()? {
        let (header, time) = (txn.header, timestamp(txn.header.tid));
        // ZODB 4 does not print the size.
        let size = if is_python2 { String::new() } else { format!(" size={}", header.len) };
        writeln!(out, "Trans #{number:05} tid={}{size} time={time} offset={}", header.tid, txn.pos)?;
        let (user, description) = (quoted(&txn.meta.user), quoted(&txn.meta.description));
        let status = quoted(&[header.status]);
        writeln!(out, "    status={status} user={b}{user} description={b}{description}")?;
        let mut record_number = 0_u64;
        while let Some(record) = transactions.next_record(&mut txn, &mut data)? {
            let oid = record.header.oid;
            write!(out, "  data #{record_number:05} oid={oid}")?;
            if record.has_data {
                let class = class_key(&data).map_or_else(|| ".".into(), |key| class_text(&key));
                write!(out, " size={} class={class}", data.len())?;
            } else {
                write!(out, " class=undo or abort of object creation")?;
            }
            if let Some(tid) = record.data_txn {
                write!(out, " bp={tid}")?;
            }
            writeln!(out)?;
            record_number += 1;
        }
        number += 1;
    }
    Ok(0)
}
