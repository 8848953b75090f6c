//! `zeofs copy`: all transactions of one storage in another one, with their tids.
//!
//! - `ends`: the two storages
//! - `agree`: whether the target has the past of the source
//! - `transfer`: transactions, records and blobs

mod agree;
mod ends;
mod transfer;

use std::io::Write;
use std::path::PathBuf;

use getopts::{Matches, Options};
use serde_json::json;

use super::served::names::{self, Names};
use super::text::{oid_repr, timestamp};
use crate::base::ids::Tid;
use crate::base::numbers::grouped;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use agree::agree;
use ends::End;
use transfer::{Copied, Transfer};

pub(super) const COMMAND: Subcommand = Subcommand { name: "copy", options, help: HELP, run };

const HELP: &str = "\
[options] FROM TO

Copies all transactions, with their tids, users, descriptions, extensions and
blobs. If TO has some of them already, the rest is copied: it can be interrupted
and run again. FROM may be in use; it is only read.

FROM and TO are Data.fs files, servers (zeo://HOST:PORT?storage=NAME,
zeo:///PATH), or with -C names of storages.

  -C, --configure FILE  a configuration of runzeo, with these storages
      --blob-dir DIR    of FROM, if it is a file
      --to-blob-dir DIR of TO, if it is a file
      --json            a JSON object
      --help            print this

TO may be a file, with or without compression, a database, or another server
(without blobs). If it has a transaction that FROM does not have, or another one
of the same tid, nothing is copied, except for what packs have taken out.
Exit status: 0 done; 1 failed, and what was copied is there; 2 the command line
is wrong; 4 done, but for blobs whose file FROM does not have.
";

fn options(options: &mut Options) {
    names::options(options);
    options.optopt("", "blob-dir", "", "").optopt("", "to-blob-dir", "", "");
    options.optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let [from, to] = matches.free.as_slice() else {
        return Err(Trouble::Usage("give a storage to copy from, and one to copy to".into()));
    };
    let dir = |name: &str| matches.opt_str(name).map(PathBuf::from);
    let names = Names::of(matches)?;
    let from = End::source(&names, from, dir("blob-dir"))?;
    let to = End::target(&names, to, dir("to-blob-dir"))?;
    let result = copy(&from, &to);
    // Also after an error: what was copied stays, and the close makes it durable.
    let closed = to.close().and(from.close());
    let (before, copied) = result?;
    closed?;
    print(out, &from, &to, before, &copied, matches.opt_present("json"))?;
    Ok(if copied.missing > 0 { FINDINGS } else { 0 })
}

/// Returns the last transaction that the target had, and what was copied.
fn copy(from: &End, to: &End) -> Result<(Tid, Copied), Trouble> {
    let mut progress = Progress::on_terminal(&format!("{} to {}", from.name, to.name), None, true);
    let mut at = |count: u64, what: &str| {
        if let Some(progress) = &mut progress {
            progress.show_count(count, what);
        }
    };
    let last = to.storage.last_transaction();
    if last != Tid::ZERO {
        agree(from, to, last, &mut |count| at(count, "transactions compared"))?;
    }
    let mut transfer = Transfer::new(from, to, last)?;
    let ended = loop {
        match transfer.step() {
            Ok(true) => at(transfer.copied.transactions, "transactions copied"),
            Ok(false) => break Ok(()),
            Err(trouble) => break Err(trouble),
        }
    };
    // Also after an error: what came before it stays.
    let completed = transfer.complete();
    ended?;
    let copied = completed?;
    if let Some(progress) = &mut progress {
        progress.end();
    }
    Ok((last, copied))
}

fn print(
    out: &mut dyn Write,
    from: &End,
    to: &End,
    before: Tid,
    copied: &Copied,
    is_json: bool,
) -> Result<(), Trouble> {
    let Copied { transactions, records, blobs, missing, missing_named, last } = copied;
    let tid = |tid: Tid| (tid != Tid::ZERO).then(|| tid.to_string());
    if is_json {
        let named: Vec<_> = missing_named
            .iter()
            .map(|(oid, tid)| json!({"oid": oid.to_string(), "tid": tid.to_string()}))
            .collect();
        let value = json!({
            "kind": "copied",
            "behind": tid(before),
            "transactions": transactions,
            "records": records,
            "blobs": blobs,
            "missing_blobs": missing,
            "missing": named,
            "last": last.unwrap_or(before).to_string(),
        });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    if before != Tid::ZERO {
        writeln!(out, "{} has the past of {} up to {} {before}", to.name, from.name, timestamp(before))?;
    }
    let [transactions, records, blobs] = [*transactions, *records, *blobs].map(grouped);
    writeln!(out, "copied: {transactions} transactions, {records} records, {blobs} blobs")?;
    for (oid, tid) in missing_named {
        writeln!(out, "MISSING: the file of the blob {} of the transaction {tid}", oid_repr(*oid))?;
    }
    if *missing > missing_named.len() as u64 {
        writeln!(out, "... and {} more", grouped(*missing - missing_named.len() as u64))?;
    }
    Ok(())
}
