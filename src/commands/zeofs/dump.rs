//! `zeofs dump`: transactions and their records, in the order of the file.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use getopts::{Matches, Options};
use serde_json::{Value, json};

use super::selection::{self, OpenedFile, Selection};
use super::text::{file_line, oid_repr, shown, timestamp};
use crate::base::ids::{Oid, Tid};
use crate::base::untrusted::one_line;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::record::{class_key, class_text, plain};
use crate::inspect::show;
use crate::inspect::walk::{Damage, Ending, FoundRecord, FoundTxn, Part, RecordPart, Walk};
use crate::pickle::record::is_blob;
use crate::pickle::refs::references;
use crate::storage::{BlobDir, StorageError, TransactionMeta};

pub(super) const COMMAND: Subcommand = Subcommand { name: "dump", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

Transactions and their records, in the order of the file: when, by whom, and for
each record the object, its class and the length of its data. Damage is shown
where it is, and what follows it, too.

      --since TIME  only transactions from TIME on: 2026-11-28T03:13 in UTC,
                    7d, 12h, 30m or 90s ago, or a tid of 16 hexadecimal digits
      --until TIME  only transactions up to TIME
  -o, --oid OID     only records of this object (hexadecimal); may be repeated
  -c, --class NAME  only records of this class, or of a module or package; may
                    be repeated
  -r, --refs        the objects that each record refers to, too
  -b, --blobs DIR   the sizes of blobs, too, which are in this directory
      --json        a JSON object for each transaction, record and damage
      --help        print this

With -o or -c, transactions without such records are left out.
Exit status: 0 done; 1 FILE cannot be read; 2 the command line is wrong;
4 FILE is damaged.
";

fn options(options: &mut Options) {
    selection::options(options);
    options.optflag("r", "refs", "").optopt("b", "blobs", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let selection = Selection::of(matches)?;
    let file = OpenedFile::of(matches)?;
    let blobs = matches.opt_str("blobs").map(|dir| BlobDir::open(Path::new(&dir), true)).transpose()?;
    let is_json = matches.opt_present("json");
    if !is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    let mut dump = Dump {
        out,
        walk: Walk::new(&file.data),
        file: &file,
        selection,
        is_json,
        with_references: matches.opt_present("refs"),
        blobs,
        is_damaged: false,
    };
    let mut progress = Progress::on_terminal(&file.name, Some(file.data.end()), false);
    while let Some(part) = dump.walk.next_part()? {
        let is_behind = matches!(&part, Part::Transaction(txn) if txn.header.tid > dump.selection.until);
        match part {
            Part::Transaction(txn) if dump.selection.has_tid(txn.header.tid) => dump.transaction(&txn)?,
            Part::Transaction(_) => {}
            Part::Damage(damage) => dump.damage(&damage)?,
            Part::Ending(ending) => dump.ending(&ending)?,
        }
        if let Some(progress) = &mut progress {
            progress.show(dump.walk.pos());
        }
        if is_behind {
            break;
        }
    }
    if let Some(progress) = &mut progress {
        progress.end();
    }
    Ok(if dump.is_damaged { FINDINGS } else { 0 })
}

struct Dump<'a> {
    out: &'a mut dyn Write,
    walk: Walk<'a>,
    file: &'a OpenedFile,
    selection: Selection,
    is_json: bool,
    with_references: bool,
    blobs: Option<Arc<BlobDir>>,
    is_damaged: bool,
}

/// What is shown of a record.
struct RecordView {
    record: FoundRecord,
    /// The position of the data, if there is any.
    data_at: Option<u64>,
    class: Option<String>,
    len: usize,
    refs: Option<Result<Vec<Oid>, String>>,
    /// The length of the blob's file, or why there is none.
    blob: Option<Result<u64, String>>,
    /// Why the back-pointer leads nowhere.
    lost: Option<String>,
}

impl Dump<'_> {
    fn transaction(&mut self, txn: &FoundTxn) -> Result<(), Trouble> {
        let meta = self.walk.meta(txn)?;
        let mut is_shown = self.selection.has_all_records();
        if is_shown {
            self.head(txn, &meta)?;
        }
        if txn.header.status == b'u' {
            return Ok(());
        }
        let mut cursor = self.walk.records(txn);
        let mut data = Vec::new();
        while let Some(part) = self.walk.next_record(&mut cursor)? {
            let record = match part {
                RecordPart::Record(record) => record,
                RecordPart::Damage(damage) => {
                    if !std::mem::replace(&mut is_shown, true) {
                        self.head(txn, &meta)?;
                    }
                    self.damage(&damage)?;
                    continue;
                }
            };
            if !self.selection.has_oid(record.header.oid) {
                continue;
            }
            let Some(view) = self.view(record, &mut data)? else { continue };
            if !std::mem::replace(&mut is_shown, true) {
                self.head(txn, &meta)?;
            }
            self.record(txn.header.tid, &view)?;
        }
        Ok(())
    }

    /// `None` if the class is not a wanted one.
    fn view(&mut self, record: FoundRecord, data: &mut Vec<u8>) -> Result<Option<RecordView>, Trouble> {
        let FoundRecord { pos, header, back } = record;
        let mut lost = None;
        let mut apart = Vec::new();
        let (data_at, data) = if header.data_len > 0 {
            (Some(pos), self.walk.data(&record, &mut apart)?)
        } else {
            let found = self.file.data.data_of(pos, &header, back, data);
            let at = found.or_else(|error| match error {
                StorageError::Corrupt { pos, what, .. } => {
                    lost = Some(format!("at {pos}: {what}"));
                    Ok(None)
                }
                error => Err(error),
            })?;
            (at, data.as_slice())
        };
        let len = data.len();
        let data = plain(data).unwrap_or(Cow::Borrowed(data));
        let key = class_key(&data);
        if !self.selection.has_class(key.as_deref()) {
            return Ok(None);
        }
        self.is_damaged |= lost.is_some();
        let refs = (self.with_references && data_at.is_some()).then(|| {
            let mut oids = Vec::new();
            references(&data, &mut oids).map(|()| oids)
        });
        let blob = self.blobs.as_ref().filter(|_| is_blob(&data)).map(|blobs| {
            blobs.load(header.oid, header.tid).map(|blob| blob.len).map_err(|error| error.to_string())
        });
        let class = key.map(|key| class_text(&key));
        Ok(Some(RecordView { record, data_at, class, len, refs, blob, lost }))
    }

    fn head(&mut self, txn: &FoundTxn, meta: &TransactionMeta) -> io::Result<()> {
        let FoundTxn { pos, header, wrong_len } = txn;
        let extension = show::extension(&meta.extension);
        self.is_damaged |= wrong_len.is_some();
        if self.is_json {
            return writeln!(self.out, "{}", transaction_json(txn, meta, extension));
        }
        writeln!(self.out, "\n{}  {}  at {pos}, {} bytes", timestamp(header.tid), header.tid, header.len)?;
        let mut more = Vec::new();
        match header.status {
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
        if let Some(wrong) = wrong_len {
            more.push(format!("DAMAGED: {}", wrong.text()));
        }
        if more.is_empty() { Ok(()) } else { writeln!(self.out, "    {}", more.join(", ")) }
    }

    fn record(&mut self, tid: Tid, view: &RecordView) -> io::Result<()> {
        let FoundRecord { pos, header, .. } = view.record;
        if self.is_json {
            return writeln!(self.out, "{}", record_json(tid, view));
        }
        write!(self.out, "    {}  ", oid_repr(header.oid))?;
        match (&view.data_at, &view.lost) {
            (Some(at), _) => {
                let class = view.class.as_deref().unwrap_or("no class");
                write!(self.out, "{}  {} bytes", one_line(200, format_args!("{class}")), view.len)?;
                if *at != pos {
                    write!(self.out, ", those at {at}")?;
                }
            }
            (None, Some(why)) => write!(self.out, "DAMAGED: its data cannot be read, {why}")?,
            (None, None) => write!(self.out, "deleted, or its creation undone")?,
        }
        match &view.blob {
            Some(Ok(len)) => write!(self.out, ", a blob of {len} bytes")?,
            Some(Err(why)) => write!(self.out, ", a blob that cannot be read: {why}")?,
            None => {}
        }
        if header.tid != tid {
            write!(self.out, ", with the tid {}", header.tid)?;
        }
        writeln!(self.out)?;
        match &view.refs {
            None => Ok(()),
            Some(Err(why)) => writeln!(self.out, "        no references can be read: {why}"),
            Some(Ok(oids)) if oids.is_empty() => Ok(()),
            Some(Ok(oids)) => {
                write!(self.out, "        refers to")?;
                oids.iter().try_for_each(|oid| write!(self.out, " {}", oid_repr(*oid)))?;
                writeln!(self.out)
            }
        }
    }

    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.is_damaged = true;
        let Damage { pos, end, what } = damage;
        if self.is_json {
            return writeln!(self.out, "{}", json!({"kind": "damage", "pos": pos, "end": end, "what": what}));
        }
        writeln!(self.out, "\nDAMAGED from {pos} to {end}: {what}")
    }

    /// What a server is just writing is no damage.
    fn ending(&mut self, ending: &Ending) -> io::Result<()> {
        let is_damaged = self.file.is_ending_damage(ending);
        self.is_damaged |= is_damaged;
        let (pos, what) = (ending.pos, ending.kind.text());
        if self.is_json {
            let kind = if is_damaged { "damage" } else { "ending" };
            let end = self.file.data.end();
            return writeln!(self.out, "{}", json!({"kind": kind, "pos": pos, "end": end, "what": what}));
        }
        writeln!(self.out, "\n{}from {pos} to the end: {what}", if is_damaged { "DAMAGED " } else { "" })
    }
}

/// The fields of a transaction for programs.
pub(super) fn transaction_json(txn: &FoundTxn, meta: &TransactionMeta, extension: Value) -> Value {
    let FoundTxn { pos, header, wrong_len } = txn;
    let mut value = json!({
        "kind": "transaction",
        "tid": header.tid.to_string(),
        "time": header.tid.to_iso(),
        "pos": pos,
        "len": header.len,
        "status": char::from(header.status).to_string(),
        "user": show::text(&meta.user),
        "description": show::text(&meta.description),
        "extension": extension,
    });
    if let (Some(wrong), Some(fields)) = (wrong_len, value.as_object_mut()) {
        fields.insert("damage".into(), wrong.text().into());
    }
    value
}

fn record_json(tid: Tid, view: &RecordView) -> Value {
    let FoundRecord { pos, header, .. } = view.record;
    let mut value = json!({
        "kind": "record",
        "tid": tid.to_string(),
        "oid": header.oid.to_string(),
        "pos": pos,
        "class": view.class,
        "len": view.len,
        "data_pos": view.data_at,
    });
    let Some(fields) = value.as_object_mut() else { return value };
    if header.tid != tid {
        fields.insert("record_tid".into(), header.tid.to_string().into());
    }
    match &view.refs {
        Some(Ok(oids)) => {
            let oids = oids.iter().map(|oid| Value::from(oid.to_string())).collect();
            fields.insert("refs".into(), Value::Array(oids));
        }
        Some(Err(why)) => _ = fields.insert("refs_damage".into(), why.as_str().into()),
        None => {}
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
