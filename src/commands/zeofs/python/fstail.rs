//! `fstail [-n N] FILE`: the newest transactions, with the hash of their records.

use std::io::Write;

use getopts::{Options, ParsingStyle};
use sha1::{Digest, Sha1};

use super::super::selection::OpenedFile;
use super::super::text::{quoted, timestamp};
use super::tool::Tool;
use crate::commands::subcommand::Trouble;
use crate::storage::file::FileFormat;
use crate::storage::file::backwards::Backwards;

pub(super) const TOOL: Tool = Tool { name: "fstail", usage: "[-n N] FILE", main };

/// Bytes that are read at once for the hash.
const CHUNK: u64 = 256 << 10;

fn main(out: &mut dyn Write, arguments: &[String]) -> Result<u8, Trouble> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree).optmulti("n", "", "", "");
    let matches = options.parse(arguments).map_err(|problem| Trouble::Usage(problem.to_string()))?;
    let count: i64 = matches.opt_strs("n").last().map_or(Ok(10), |text| {
        text.trim()
            .parse()
            .map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of transactions")))
    })?;
    let [name] = matches.free.as_slice() else { return Err(Trouble::Usage("give one file".into())) };
    let file = OpenedFile::open(name)?;
    let repr = |text: &[u8]| match (text.is_empty(), file.data.format()) {
        (false, FileFormat::FS30) => format!("b{}", quoted(text)),
        _ => quoted(text),
    };
    let log = file.data.log();
    let mut transactions = Backwards::new(log, log.end());
    let mut buffer = Vec::new();
    for _ in 0..count {
        let Some((pos, header)) = transactions.next_txn()? else { break };
        let meta = transactions.meta(&header)?;
        let (mut at, tend) = (pos + header.head_len(), pos + header.len);
        let mut hash = Sha1::new();
        while at < tend {
            let len = (tend - at).min(CHUNK);
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            log.read_exact(&mut buffer, at)?;
            hash.update(&buffer);
            at += len;
        }
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "{}: hash={hash}", timestamp(header.tid))?;
        let (user, description) = (repr(&meta.user), repr(&meta.description));
        let (len, head_len) = (header.len, header.head_len());
        writeln!(out, "user={user} description={description} length={len} offset={pos} (+{head_len})\n")?;
    }
    Ok(0)
}
