//! `zeobackup list`

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::json;

use super::super::subcommand::{FINDINGS, Subcommand, Trouble};
use super::repository::{self, Opening, state};
use crate::backup::repository::error::BackupError;
use crate::backup::repository::manifest::Stay;
use crate::base::ids::Tid;
use crate::base::numbers::grouped;

pub(super) const COMMAND: Subcommand = Subcommand { name: "list", options, help: HELP, run };

const HELP: &str = "\
-r REPOSITORY [options]

The backups in a repository, the newest last: for each database the last
transaction, the size, the blobs, and, if it was packed, the earliest state that
can be restored from this backup.

  -r, --repository DIR    where backups are
      --json              a JSON object for each database of each backup
      --help              print this

Exit status: 0 done; 1 not done; 2 the command line is wrong; 4 a backup cannot
be read.
";

fn options(options: &mut Options) {
    repository::options(options);
    options.optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let opened = repository::open(matches, Opening::Read)?;
    let (is_json, mut status) = (matches.opt_present("json"), 0);
    for stamp in opened.repository.backups()? {
        let manifest = match opened.repository.manifest(&stamp) {
            Err(BackupError::Damaged(what)) => {
                eprintln!("Damaged: {what}");
                status = FINDINGS;
                continue;
            }
            manifest => manifest?,
        };
        for database in &manifest.databases {
            let count: u64 = database.segments.iter().map(|segment| segment.blobs.count).sum();
            let len: u64 = database.segments.iter().map(|segment| segment.blobs.len).sum();
            if is_json {
                let value = json!({
                    "backup": stamp.as_str(),
                    "database": database.name,
                    "until_next": stamp.stay() == Stay::UntilNext,
                    "path": database.path,
                    "last_tid": database.last_tid.to_string(),
                    "packed_tid": database.packed_tid.to_string(),
                    "bytes": database.len,
                    "segments": database.segments.len(),
                    "has_blobs": database.has_blobs,
                    "blobs": count,
                    "blob_bytes": len,
                    "damaged": database.damaged(),
                    "missing_blobs": database.missing_blobs(),
                });
                writeln!(out, "{value}")?;
                continue;
            }
            let blobs = match (database.has_blobs, count) {
                (_, 0) => String::new(),
                (true, count) => format!(", {} blobs of {} bytes", grouped(count), grouped(len)),
                (false, count) => format!(", without its {} blobs", grouped(count)),
            };
            let packed = match database.packed_tid {
                Tid::ZERO => String::new(),
                packed => format!(", packed up to {}", packed.to_text()),
            };
            let stay = if stamp.stay() == Stay::UntilNext { ", until the next" } else { "" };
            let (name, last) = (&database.name, state(database.last_tid));
            writeln!(out, "{stamp}  {name}  {last}, {} bytes{blobs}{packed}{stay}", grouped(database.len))?;
        }
    }
    Ok(status)
}
