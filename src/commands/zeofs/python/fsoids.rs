//! `fsoids [-f OIDFILE] FILE OID...`: all revisions of objects, and references from and to them.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use getopts::{Options, ParsingStyle};

use super::super::selection::OpenedFile;
use super::super::text::{oid_repr, quoted, timestamp};
use super::iterator::{PythonIterator, PythonRecord, PythonTxn};
use super::tool::Tool;
use crate::base::ids::{Oid, Tid};
use crate::commands::subcommand::Trouble;
use crate::inspect::record::{class_key, class_text};
use crate::pickle::refs::references;
use crate::storage::file::FileFormat;

pub(super) const TOOL: Tool = Tool { name: "fsoids", usage: "[-f OIDFILE] FILE [OID]...", main };

const NOT_SEEN: &str = "this oid was not defined (no data record for it found)";

fn main(out: &mut dyn Write, arguments: &[String]) -> Result<u8, Trouble> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree).optmulti("f", "", "", "");
    let matches = options.parse(arguments).map_err(|problem| Trouble::Usage(problem.to_string()))?;
    let Some((name, oids)) = matches.free.split_first() else {
        return Err(Trouble::Usage("Must specify a FileStorage".into()));
    };
    let mut revisions = BTreeMap::new();
    for text in oids {
        revisions.insert(integer(text)?, 0);
    }
    if let Some(path) = matches.opt_strs("f").last() {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Trouble::Failed(format!("cannot read {path}: {error}")))?;
        for line in text.lines() {
            revisions.insert(integer(line)?, 0);
        }
    }
    if revisions.is_empty() {
        return Err(Trouble::Usage("no oids specified".into()));
    }
    let file = OpenedFile::open(name)?;
    let mut tracer = Tracer { revisions, ..Tracer::default() };
    tracer.run(&file)?;
    tracer.report(out, file.data.format())?;
    Ok(0)
}

/// An integer in any of Python's notations.
fn integer(text: &str) -> Result<Oid, Trouble> {
    let (digits, radix) = match text.trim().to_ascii_lowercase() {
        text if text.starts_with("0x") => (text[2..].to_string(), 16),
        text if text.starts_with("0o") => (text[2..].to_string(), 8),
        text if text.starts_with("0b") => (text[2..].to_string(), 2),
        text => (text, 10),
    };
    u64::from_str_radix(&digits, radix)
        .map(Oid)
        .map_err(|_| Trouble::Usage(format!("'{text}' is not an object id, such as 26 or 0x1a")))
}

/// The transaction of a message.
struct Info {
    user: Vec<u8>,
    description: Vec<u8>,
    pos: u64,
}

#[derive(Default)]
struct Tracer {
    /// Of each wanted object the number of its revisions.
    revisions: BTreeMap<Oid, u64>,
    /// Classes of wanted objects.
    names: HashMap<Oid, String>,
    /// Classes of these and of objects beside them.
    other_names: HashMap<Oid, String>,
    /// `None`: a message about no transaction.
    messages: Vec<(Oid, Option<Tid>, String)>,
    transactions: HashMap<Tid, Info>,
}

impl Tracer {
    fn run(&mut self, file: &OpenedFile) -> Result<(), Trouble> {
        let mut transactions = PythonIterator::new(file);
        let mut data = Vec::new();
        while let Some(mut txn) = transactions.next_transaction()? {
            let before = self.messages.len();
            let first = txn.pos;
            // Of records with data, for the classes of objects beside the wanted ones.
            let mut places = HashMap::new();
            while let Some(record) = transactions.next_record(&mut txn, &mut data)? {
                if record.has_data {
                    places.insert(record.header.oid, record.pos);
                }
                self.revision(&record, &data);
            }
            txn.pos = first;
            while let Some(record) = transactions.next_record(&mut txn, &mut data)? {
                if record.has_data {
                    self.references(file, &record, &data, &places)?;
                }
            }
            if self.messages.len() > before {
                let PythonTxn { header, meta, tpos, .. } = txn;
                let info = Info { user: meta.user, description: meta.description, pos: tpos };
                self.transactions.insert(header.tid, info);
            }
        }
        Ok(())
    }

    fn message(&mut self, oid: Oid, tid: Tid, text: String) {
        self.messages.push((oid, Some(tid), text));
    }

    /// The record of a wanted object.
    fn revision(&mut self, record: &PythonRecord, data: &[u8]) {
        let (oid, tid, pos) = (record.header.oid, record.header.tid, record.pos);
        let Some(count) = self.revisions.get_mut(&oid) else { return };
        if !record.has_data {
            return self.message(oid, tid, format!("creation undo at {pos}"));
        }
        *count += 1;
        let class = class(data);
        self.names.insert(oid, class.clone());
        self.other_names.insert(oid, class.clone());
        self.message(oid, tid, format!("new revision {class} at {pos}"));
    }

    /// References from and to wanted objects.
    fn references(
        &mut self,
        file: &OpenedFile,
        record: &PythonRecord,
        data: &[u8],
        places: &HashMap<Oid, u64>,
    ) -> Result<(), Trouble> {
        let (oid, tid, pos) = (record.header.oid, record.header.tid, record.pos);
        let mut oids = Vec::new();
        references(data, &mut oids).map_err(|what| {
            Trouble::Failed(format!("{}: object 0x{oid} at {pos} cannot be read: {what}", file.name))
        })?;
        let is_wanted = self.revisions.contains_key(&oid);
        for to in oids {
            if self.revisions.contains_key(&to) {
                let class = self.other_names.entry(oid).or_insert_with(|| class(data)).clone();
                self.message(to, tid, format!("referenced by {} {class} at {pos}", oid_repr(oid)));
            }
            if is_wanted {
                let class = match (self.other_names.get(&to), places.get(&to)) {
                    (Some(name), _) => name.clone(),
                    (None, None) => "<unknown>".into(),
                    (None, Some(at)) => {
                        let name = class_at(file, *at)?;
                        self.other_names.insert(to, name.clone());
                        name
                    }
                };
                self.message(oid, tid, format!("references {} {class} at {pos}", oid_repr(to)));
            }
        }
        Ok(())
    }

    fn report(&mut self, out: &mut dyn Write, format: FileFormat) -> Result<(), Trouble> {
        for oid in self.revisions.keys().filter(|oid| !self.names.contains_key(oid)) {
            self.messages.push((*oid, None, NOT_SEEN.into()));
        }
        self.messages.sort();
        let b = if format == FileFormat::FS30 { "b" } else { "" };
        let mut current: Option<(Oid, Option<Tid>)> = None;
        for (oid, tid, message) in &self.messages {
            if current.is_none_or(|(current, _)| current != *oid) {
                let revisions = self.revisions.get(oid).copied().unwrap_or(0);
                let plural = if revisions == 1 { "" } else { "s" };
                let name = self.names.get(oid).map_or("<unknown>", String::as_str);
                writeln!(out, "oid {} {name} {revisions} revision{plural}", oid_repr(*oid))?;
                current = Some((*oid, None));
            }
            let Some(tid) = tid else {
                writeln!(out, "    {message}")?;
                continue;
            };
            if current != Some((*oid, Some(*tid))) {
                current = Some((*oid, Some(*tid)));
                let Some(Info { user, description, pos }) = self.transactions.get(tid) else {
                    let what =
                        format!("object 0x{oid} has a record with the tid {tid}, which is no transaction's");
                    return Err(Trouble::Failed(what));
                };
                writeln!(out, "    tid {} offset={pos} {}", oid_repr(Oid(tid.0)), timestamp(*tid))?;
                writeln!(out, "        tid user={b}{}", quoted(&shortened(user)))?;
                writeln!(out, "        tid description={b}{}", quoted(&shortened(description)))?;
            }
            writeln!(out, "        {message}")?;
        }
        Ok(())
    }
}

fn class(data: &[u8]) -> String {
    class_key(data).map_or_else(|| ".".into(), |key| class_text(&key))
}

/// The class of the record at `pos`.
fn class_at(file: &OpenedFile, pos: u64) -> Result<String, Trouble> {
    let record = file.data.log().read_record(pos, None)?;
    let mut data = Vec::new();
    file.data.data_of(pos, &record.header, record.back, &mut data)?;
    Ok(class(&data))
}

/// Python's `shorten`, which keeps 22 and 28 bytes of a text of more than 50.
fn shortened(text: &[u8]) -> Vec<u8> {
    match (text.get(..22), text.len().checked_sub(28).and_then(|from| text.get(from..))) {
        (Some(start), Some(end)) if text.len() > 50 => [start, b" ... ", end].concat(),
        _ => text.to_vec(),
    }
}
