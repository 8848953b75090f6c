//! `zeofs dump`: transactions and their records, in the order of the file.
//!
//! - `view`: what is shown of them
//! - `of_server`: those of a server

mod of_server;
pub(super) mod view;

use std::io::{self, Write};
use std::path::Path;

use getopts::{Matches, Options};
use serde_json::json;

use super::selection::{self, OpenedFile, Selection};
use super::served::connection::Client;
use super::served::names::{self, Subject};
use super::text::file_line;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::walk::{Damage, Ending, FoundRecord, FoundTxn, Part, RecordPart, Walk};
use crate::storage::{BlobDir, StorageError, TransactionMeta};
use view::{Choice, RecordView, TxnView, print_head, print_record};

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
  -s, --state       the state of each object, too, as data, cut if it is large
  -b, --blobs DIR   the sizes of blobs, too, which are in this directory
  -C, --configure CONF  FILE is a storage of this configuration
      --json        a JSON object for each transaction, record and damage
      --help        print this

With -o or -c, transactions without such records are left out. FILE may be a
server, zeo://HOST:PORT?storage=NAME, or with -C the name of a <zeoclient>.
Exit status: 0 done; 1 FILE cannot be read; 2 the command line is wrong;
4 FILE is damaged.
";

fn options(options: &mut Options) {
    selection::options(options);
    names::options(options);
    options
        .optflag("r", "refs", "")
        .optflag("s", "state", "")
        .optopt("b", "blobs", "", "")
        .optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let selection = Selection::of(matches)?;
    let source = names::source(matches)?;
    let blobs = matches.opt_str("blobs").map(|dir| BlobDir::open(Path::new(&dir), true)).transpose()?;
    let (with_references, with_states) = (matches.opt_present("refs"), matches.opt_present("state"));
    let choice = Choice { selection, with_references, with_states, blobs };
    let is_json = matches.opt_present("json");
    let file = match source {
        Subject::File(name) => OpenedFile::open(&name)?,
        Subject::Served { name, options } => {
            let client = Client::open(&name, &options, true)?;
            return of_server::dump(out, &client.require_served()?, &choice, is_json).map(|()| 0);
        }
    };
    if !is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    let mut dump = Dump { out, walk: Walk::new(&file.data), file: &file, choice, is_json, is_damaged: false };
    let mut progress = Progress::on_terminal(&file.name, Some(file.data.end()), false);
    while let Some(part) = dump.walk.next_part()? {
        let until = dump.choice.selection.until;
        let is_behind = matches!(&part, Part::Transaction(txn) if txn.header.tid > until);
        match part {
            Part::Transaction(txn) if dump.choice.selection.has_tid(txn.header.tid) => {
                dump.transaction(&txn)?;
            }
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
    choice: Choice,
    is_json: bool,
    is_damaged: bool,
}

impl Dump<'_> {
    fn transaction(&mut self, txn: &FoundTxn) -> Result<(), Trouble> {
        let meta = self.walk.meta(txn)?;
        let mut is_shown = self.choice.selection.has_all_records();
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
            if !self.choice.selection.has_oid(record.header.oid) {
                continue;
            }
            let Some(view) = self.view(record, &mut data)? else { continue };
            if !std::mem::replace(&mut is_shown, true) {
                self.head(txn, &meta)?;
            }
            print_record(self.out, self.is_json, txn.header.tid, &view)?;
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
        let Some(mut view) = self.choice.view(header.oid, header.tid, data_at.map(|_| data)) else {
            return Ok(None);
        };
        self.is_damaged |= lost.is_some();
        (view.place, view.lost) = (Some((pos, data_at)), lost);
        Ok(Some(view))
    }

    fn head(&mut self, txn: &FoundTxn, meta: &TransactionMeta) -> io::Result<()> {
        self.is_damaged |= txn.wrong_len.is_some();
        let FoundTxn { header, .. } = txn;
        let view = TxnView { tid: header.tid, status: header.status, meta, found: Some(txn) };
        print_head(self.out, self.is_json, &view)
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
