//! `fsrefs [-v] FILE`: references of current objects to objects that are not there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use getopts::{Options, ParsingStyle};

use super::super::selection::OpenedFile;
use super::super::text::{oid_repr, timestamp};
use super::tool::Tool;
use crate::base::ids::Oid;
use crate::commands::subcommand::Trouble;
use crate::inspect::objects::{Newest, NotThere, RecordWalk};
use crate::inspect::record::{class_key, class_text};
use crate::pickle::refs::references;
use crate::storage::file::FileFormat;

pub(super) const TOOL: Tool = Tool { name: "fsrefs", usage: "[-v] FILE", main };

fn main(out: &mut dyn Write, arguments: &[String]) -> Result<u8, Trouble> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree).optflagmulti("v", "", "");
    let matches = options.parse(arguments).map_err(|problem| Trouble::Usage(problem.to_string()))?;
    let [name] = matches.free.as_slice() else { return Err(Trouble::Usage("give one file".into())) };
    let file = OpenedFile::open(name)?;
    let newest = Newest::read(&file.data, &mut |_| {})?;
    // ZODB 4 goes through the objects by oid, ZODB 6 in the order of the file.
    let by_oid = file.data.format() == FileFormat::FS21;
    let mut later: BTreeMap<Oid, String> = BTreeMap::new();
    let mut records = RecordWalk::new(&file.data);
    let mut oids = Vec::new();
    while let Some((_, record)) = records.next_record()? {
        if !newest.is_current(&record) {
            continue;
        }
        oids.clear();
        let data = records.data(&record)?;
        if let Err(what) = references(data, &mut oids) {
            let (oid, pos) = (record.header.oid, record.pos);
            return Err(Trouble::Failed(format!("{name}: object 0x{oid} at {pos} cannot be read: {what}")));
        }
        let missing: Vec<_> = oids.iter().filter_map(|oid| Some((*oid, newest.not_there(*oid)?))).collect();
        if missing.is_empty() {
            continue;
        }
        let class = class_key(data).map_or_else(|| ".".into(), |key| class_text(&key));
        let text = report(record.header.oid, record.header.tid.0, &class, &missing);
        if by_oid {
            later.insert(record.header.oid, text);
        } else {
            out.write_all(text.as_bytes())?;
        }
    }
    later.values().try_for_each(|text| out.write_all(text.as_bytes()))?;
    Ok(0)
}

fn report(oid: Oid, tid: u64, class: &str, missing: &[(Oid, NotThere)]) -> String {
    let time = timestamp(crate::base::ids::Tid(tid));
    let plural = if missing.len() > 1 { "s" } else { "" };
    let mut text = format!(
        "oid {:#x} {class}\nlast updated: {time}, tid={tid:#x}\nrefers to invalid object{plural}:\n",
        oid.0
    );
    for (oid, reason) in missing {
        let reason = match reason {
            NotThere::Missing => "missing",
            NotThere::Gone => "object creation was undone",
            NotThere::Unreadable => "failed to load",
        };
        // Writing to a text does not fail.
        _ = writeln!(text, "\toid {} {reason}: '<unknown>'", oid_repr(*oid));
    }
    text.push('\n');
    text
}
