//! `zeocache dump` and `zeocache check`: what is in a cache file, and whether clients would use it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use getopts::{Matches, Options};
use serde_json::json;

use crate::base::ids::{Oid, Tid};
use crate::client::cache::inspect::{
    self, BlockContent, CacheVerdict, InspectedBlock, blocks, own_verdict, zeo_verdict,
};

use crate::base::numbers::grouped;
use crate::commands::holder::holder;
use crate::commands::subcommand::{Subcommand, Trouble, file_argument};

pub(super) const DUMP: Subcommand =
    Subcommand { name: "dump", options: dump_options, help: DUMP_HELP, run: dump };

pub(super) const CHECK: Subcommand =
    Subcommand { name: "check", options: |_| {}, help: CHECK_HELP, run: check };

const DUMP_HELP: &str = "\
[options] FILE

Lists the blocks of a client's cache file, in the order of the file, and sums
them up. FILE is not changed, and may be in use.

  -t, --totals      only the sums
  -o, --oid OID     only the revisions of this object (hexadecimal)
      --json        a JSON object for each block, then one with the sums
      --help        print this

Columns: POS where the block begins, LEN its length, STATUS current, former,
free, cut (the end of the file cuts it: it counts as free) or damaged; OID,
START the transaction that wrote the revision, END the one that wrote the next,
DATA the length of the data.
Exit status: 0 done; 1 FILE is damaged, no cache file, or cannot be read;
2 the command line is wrong.
";

const CHECK_HELP: &str = "\
FILE

Says what clients do with a cache file when they open it: this program, and
ZEO's own client (from ZODB 3.9 to ZEO 6.2). FILE is not changed, and no lock
is taken. A client that has it open is named; what it writes in this moment may
look like damage.

Clients that drop a file rename it to FILE.bad, or remove it if there is one,
and begin with an empty cache. This program checks more than ZEO's client, which
finds some damage only when it loads the object. It also reads FILE.sums, which
says whether the computer has stopped while the file was in use.
Whether the contents are those of a certain database, the check cannot know.

  --help            print this

Exit status: 0 both use the file; 1 one does not, or FILE cannot be read;
2 the command line is wrong.
";

fn dump_options(options: &mut Options) {
    options.optflag("t", "totals", "").optopt("o", "oid", "", "").optflag("", "json", "");
}

/// A cache file that is open.
struct OpenFile<'a> {
    name: &'a str,
    file: File,
    len: u64,
    /// The process that uses it.
    holder: Option<u32>,
}

impl OpenFile<'_> {
    fn open(name: &str) -> Result<OpenFile<'_>, Trouble> {
        let path = Path::new(name);
        let file = File::open(path).map_err(|error| unreadable(name, &error))?;
        let len = file.metadata().map_err(|error| unreadable(name, &error))?.len();
        Ok(OpenFile { name, file, len, holder: holder(path) })
    }

    fn last_tid(&self) -> Result<Tid, Trouble> {
        let tid = inspect::last_tid(&self.file).map_err(|error| unreadable(self.name, &error))?;
        tid.ok_or_else(|| Trouble::Failed(format!("{} is no cache file", self.name)))
    }
}

fn unreadable(name: &str, error: &io::Error) -> Trouble {
    Trouble::Failed(format!("cannot read {name}: {error}"))
}

/// Number and bytes of blocks of one status.
#[derive(Clone, Copy, Debug, Default)]
struct BlockSum {
    count: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct BlockSums {
    current: BlockSum,
    former: BlockSum,
    free: BlockSum,
    damaged: BlockSum,
}

impl BlockSums {
    fn add(&mut self, block: &InspectedBlock) {
        let sum = match &block.content {
            BlockContent::Revision { end: None, .. } => &mut self.current,
            BlockContent::Revision { .. } => &mut self.former,
            BlockContent::Free | BlockContent::Cut => &mut self.free,
            BlockContent::Damaged(_) => &mut self.damaged,
        };
        sum.count += 1;
        sum.bytes += block.len;
    }

    fn named(&self) -> [(&'static str, BlockSum); 4] {
        [("current", self.current), ("former", self.former), ("free", self.free), ("damaged", self.damaged)]
    }
}

fn status(content: &BlockContent) -> &'static str {
    match content {
        BlockContent::Revision { end: None, .. } => "current",
        BlockContent::Revision { .. } => "former",
        BlockContent::Free => "free",
        BlockContent::Cut => "cut",
        BlockContent::Damaged(_) => "damaged",
    }
}

fn dump(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let oid = match matches.opt_str("oid") {
        None => None,
        Some(text) => {
            let digits = text.strip_prefix("0x").unwrap_or(&text);
            let oid = u64::from_str_radix(digits, 16).map(Oid);
            Some(oid.map_err(|_| Trouble::Usage(format!("-o: '{text}' is not an object id")))?)
        }
    };
    let (is_json, is_short) = (matches.opt_present("json"), matches.opt_present("totals"));
    let cache = OpenFile::open(file_argument(matches)?)?;
    let last_tid = cache.last_tid()?;
    if let Some(pid) = cache.holder {
        eprintln!("{} is in use by process {pid} and changes while it is read", cache.name);
    }
    if !is_json {
        writeln!(out, "{}: {} bytes, last tid {}", cache.name, grouped(cache.len), tid_and_time(last_tid))?;
        if !is_short {
            writeln!(
                out,
                "\n{:>12} {:>10} {:<8} {:<16} {:<16} {:<16} {:>10}",
                "POS", "LEN", "STATUS", "OID", "START", "END", "DATA"
            )?;
        }
    }
    let mut sums = BlockSums::default();
    for block in blocks(&cache.file, cache.len) {
        let block = block.map_err(|error| unreadable(cache.name, &error))?;
        sums.add(&block);
        let is_wanted = match (&block.content, oid) {
            (_, None) => true,
            (BlockContent::Revision { oid, .. }, Some(wanted)) => *oid == wanted,
            _ => false,
        };
        if is_wanted && !is_short {
            if is_json { json_line(out, &block)? } else { line(out, &block)? }
        }
    }
    if is_json {
        json_sums(out, &cache, last_tid, &sums)?
    } else {
        sum_lines(out, &sums)?
    }
    Ok(u8::from(sums.damaged.count > 0))
}

fn line(out: &mut dyn Write, block: &InspectedBlock) -> io::Result<()> {
    let InspectedBlock { pos, len, content } = block;
    let status = status(content);
    match content {
        BlockContent::Revision { oid, start, end, data_len } => {
            let end = end.map_or_else(|| "-".to_string(), |end| end.to_string());
            writeln!(out, "{pos:>12} {len:>10} {status:<8} {oid} {start} {end:<16} {data_len:>10}")
        }
        BlockContent::Damaged(what) => writeln!(out, "{pos:>12} {len:>10} {status:<8} {what}"),
        BlockContent::Free | BlockContent::Cut => writeln!(out, "{pos:>12} {len:>10} {status}"),
    }
}

fn json_line(out: &mut dyn Write, block: &InspectedBlock) -> io::Result<()> {
    let InspectedBlock { pos, len, content } = block;
    let mut value = json!({"pos": pos, "len": len, "status": status(content)});
    match content {
        BlockContent::Revision { oid, start, end, data_len } => {
            value["oid"] = oid.to_string().into();
            value["start"] = start.to_string().into();
            value["end"] = end.map(|end| end.to_string()).into();
            value["data"] = (*data_len).into();
        }
        BlockContent::Damaged(what) => value["reason"] = what.as_str().into(),
        BlockContent::Free | BlockContent::Cut => {}
    }
    writeln!(out, "{value}")
}

fn sum_lines(out: &mut dyn Write, sums: &BlockSums) -> io::Result<()> {
    writeln!(out, "\n{:<8} {:>12} {:>16}", "STATUS", "BLOCKS", "BYTES")?;
    for (name, sum) in sums.named() {
        if sum.count > 0 || name != "damaged" {
            writeln!(out, "{name:<8} {:>12} {:>16}", grouped(sum.count), grouped(sum.bytes))?;
        }
    }
    Ok(())
}

fn json_sums(out: &mut dyn Write, cache: &OpenFile<'_>, last_tid: Tid, sums: &BlockSums) -> io::Result<()> {
    let mut value = json!({"size": cache.len, "last_tid": last_tid.to_string(), "in_use_by": cache.holder});
    for (name, BlockSum { count, bytes }) in sums.named() {
        value[name] = json!({"blocks": count, "bytes": bytes});
    }
    writeln!(out, "{value}")
}

fn tid_and_time(tid: Tid) -> String {
    if tid == Tid::ZERO { "none".into() } else { format!("{tid} ({} UTC)", tid.to_text()) }
}

fn check(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let cache = OpenFile::open(file_argument(matches)?)?;
    let failed = |error: io::Error| unreadable(cache.name, &error);
    write!(out, "{}: {} bytes", cache.name, grouped(cache.len))?;
    match inspect::last_tid(&cache.file).map_err(failed)? {
        Some(tid) => writeln!(out, ", last tid {}", tid_and_time(tid))?,
        None => writeln!(out)?,
    }
    if let Some(pid) = cache.holder {
        writeln!(out, "in use by process {pid}: what that writes now may look like damage")?;
    }
    let mut code = 0;
    for (client, verdict) in [
        ("this program", own_verdict(Path::new(cache.name), &cache.file, cache.len).map_err(failed)?),
        ("ZEO's client", zeo_verdict(&cache.file, cache.len).map_err(failed)?),
    ] {
        let text = match verdict {
            CacheVerdict::Used { mended: 0, .. } => "uses the file as it is".into(),
            CacheVerdict::Used { mended, first } => format!(
                "uses the file, and marks {mended} blocks as free, the first at {}",
                first.unwrap_or_default()
            ),
            CacheVerdict::UsedInPart => {
                "uses the revisions that have their checksum in FILE.sums, because the computer \
                                         stopped while the file was in use"
                    .into()
            }
            CacheVerdict::Dropped(why) => {
                code = 1;
                format!("drops the file: {why}")
            }
            CacheVerdict::Hangs(why) => {
                code = 1;
                format!("does not start: {why}")
            }
        };
        writeln!(out, "{client}: {text}")?;
    }
    Ok(code)
}
