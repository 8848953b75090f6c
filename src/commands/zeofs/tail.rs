//! `zeofs tail`: the newest transactions, the newest first.

use std::collections::BTreeMap;
use std::io::Write;

use getopts::{Matches, Options};

use super::dump::transaction_json;
use super::selection::OpenedFile;
use super::text::{file_line, shown, timestamp};
use crate::base::untrusted::one_line;
use crate::commands::subcommand::{Subcommand, Trouble};
use crate::inspect::record::class_of;
use crate::inspect::show;
use crate::inspect::tail::newest;
use crate::inspect::walk::{FoundTxn, RecordPart, Walk};

pub(super) const COMMAND: Subcommand = Subcommand { name: "tail", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

The newest transactions, the newest first: when, where in the file, by whom, and
how many records of which classes.

  -n, --count N     so many transactions (default: 10)
      --json        a JSON object for each transaction
      --help        print this

To see the file as it was before a transaction, copy it up to the position that
is printed here:  head -c POSITION Data.fs >Earlier.fs
Exit status: 0 done; 1 FILE cannot be read; 2 the command line is wrong.
";

/// Classes that are named of one transaction.
const CLASSES_MAX: usize = 4;

fn options(options: &mut Options) {
    options.optopt("n", "count", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let count = matches.opt_str("count").map_or(Ok(10), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of transactions")))
    })?;
    let file = OpenedFile::of(matches)?;
    let is_json = matches.opt_present("json");
    if !is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    for txn in newest(&file.data, count)? {
        let mut walk = Walk::from(&file.data, txn.pos);
        let meta = walk.meta(&txn)?;
        let extension = show::extension(&meta.extension);
        let (records, classes) = content(&mut walk, &txn)?;
        if is_json {
            let mut value = transaction_json(&txn, &meta, extension);
            if let Some(fields) = value.as_object_mut() {
                fields.insert("records".into(), records.into());
                fields.insert("classes".into(), classes.into_iter().collect());
            }
            writeln!(out, "{value}")?;
            continue;
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
        let mut largest: Vec<(String, u64)> = classes.into_iter().collect();
        largest.sort_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
        let others = largest.len().saturating_sub(CLASSES_MAX);
        largest.truncate(CLASSES_MAX);
        let mut named: Vec<String> =
            largest.iter().map(|(class, count)| one_line(200, format_args!("{count} {class}"))).collect();
        if others > 0 {
            named.push(format!("{others} more classes"));
        }
        writeln!(out, "    records: {records} ({})", named.join(", "))?;
    }
    Ok(0)
}

/// The number of records, and of those of each class.
fn content(walk: &mut Walk<'_>, txn: &FoundTxn) -> Result<(u64, BTreeMap<String, u64>), Trouble> {
    let (mut records, mut classes) = (0, BTreeMap::new());
    let mut cursor = walk.records(txn);
    let mut apart = Vec::new();
    while let Some(part) = walk.next_record(&mut cursor)? {
        let RecordPart::Record(record) = part else { continue };
        records += 1;
        let class = match (record.header.data_len, record.is_gone()) {
            (0, true) => "deleted".into(),
            (0, false) => "undone".into(),
            _ => class_of(walk.data(&record, &mut apart)?),
        };
        *classes.entry(class).or_default() += 1;
    }
    Ok((records, classes))
}
