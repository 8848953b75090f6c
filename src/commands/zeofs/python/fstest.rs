//! `fstest [-v[v]] FILE`: the first thing that is wrong with the structure.

use std::io::Write;

use getopts::{Options, ParsingStyle};

use super::super::text::quoted;
use super::tool::Tool;
use crate::base::ids::Tid;
use crate::commands::subcommand::Trouble;
use crate::inspect::data_file::DataFile;
use crate::storage::file::FileFormat;
use crate::storage::file::format::{
    DATA_HEADER_LEN, DataHeader, MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader,
};
use crate::storage::file::log::be_u64;
use crate::storage::file::window::Window;
use crate::storage::{Refusal, StorageError};

pub(super) const TOOL: Tool = Tool { name: "fstest", usage: "[-v] [-v] FILE", main };

/// Bytes of the first read.
const FIRST_LEN: usize = 64 << 10;

fn main(out: &mut dyn Write, arguments: &[String]) -> Result<u8, Trouble> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree).optflagmulti("v", "", "");
    let matches = options.parse(arguments).map_err(|problem| Trouble::Usage(problem.to_string()))?;
    let [name] = matches.free.as_slice() else { return Err(Trouble::Usage("expected one argument".into())) };
    match check(out, name, matches.opt_count("v")) {
        Err(Flaw::Format(message)) => {
            // What was printed so far, before the reason.
            out.flush()?;
            eprintln!("{message}");
            Ok(1)
        }
        Err(Flaw::Trouble(trouble)) => Err(trouble),
        Ok(()) => Ok(0),
    }
}

/// Why the check ends early.
enum Flaw {
    /// In Python's words.
    Format(String),
    Trouble(Trouble),
}

impl<E: Into<Trouble>> From<E> for Flaw {
    fn from(error: E) -> Flaw {
        Flaw::Trouble(error.into())
    }
}

fn check(out: &mut dyn Write, name: &str, verbose: usize) -> Result<(), Flaw> {
    let data = match DataFile::open(name.as_ref()) {
        Err(StorageError::Refused { what: Refusal::FileFormat, .. }) => {
            let is_empty = std::fs::metadata(name).is_ok_and(|meta| meta.len() == 0);
            let message = if is_empty { "empty file" } else { "invalid file header" };
            return Err(Flaw::Format(message.into()));
        }
        other => other?,
    };
    let window = Window::new(data.log().file(), data.end(), FIRST_LEN);
    let mut test = FsTest { out, name, verbose, data: &data, window, number: 0 };
    let (mut pos, mut tid) = (MAGIC_LEN, Tid::ZERO);
    while let Some((next, found)) = test.transaction(pos, tid)? {
        if verbose >= 1 {
            writeln!(test.out, "{pos:10}: transaction tid 0x{found} #{} ", test.number)?;
        }
        test.number += 1;
        (pos, tid) = (next, found);
    }
    if verbose >= 1 {
        write!(test.out, "no errors detected")?;
    }
    Ok(())
}

struct FsTest<'a> {
    out: &'a mut dyn Write,
    name: &'a str,
    verbose: usize,
    data: &'a DataFile,
    window: Window<'a>,
    /// Of the next transaction.
    number: u64,
}

impl FsTest<'_> {
    fn flaw<T>(&self, what: &str) -> Result<T, Flaw> {
        Err(Flaw::Format(format!("{} {what}", self.name)))
    }

    fn bytes(&mut self, pos: u64, want: usize) -> Result<&[u8], Flaw> {
        Ok(self.window.get(pos, want).map_err(self.data.log().io("reading", pos))?)
    }

    /// Checks the transaction at `pos`. The position of the next one, and the tid.
    fn transaction(&mut self, pos: u64, before: Tid) -> Result<Option<(u64, Tid)>, Flaw> {
        let head = self.bytes(pos, TXN_HEADER_LEN)?;
        if head.is_empty() {
            return Ok(None);
        }
        let Some(header) = head.first_chunk().map(TxnHeader::decode) else {
            return self.flaw(&format!("truncated at {pos}"));
        };
        let TxnHeader { tid, len, status, .. } = header;
        if tid <= before {
            return self.flaw(&format!("time-stamp reduction at {pos}: 0x{tid} <= 0x{before}"));
        }
        if pos.saturating_add(len).saturating_add(TRAILER_LEN as u64) > self.data.end() {
            return self.flaw(&format!("truncated possibly because of damaged records at {pos}"));
        }
        if status == b'c' {
            return self.flaw(&format!("checkpoint flag was not cleared at {pos}"));
        }
        if !header.status_is_known() {
            let b = if self.data.format() == FileFormat::FS30 { "b" } else { "" };
            return self.flaw(&format!("has invalid status '{b}{}' at {pos}", quoted(&[status])));
        }
        if header.head_len() > len {
            return self.flaw(&format!("has an invalid transaction header at {pos}"));
        }
        let tend = pos + len;
        let mut at = pos;
        if status != b'u' {
            at = pos + header.head_len();
            let mut number = 0_u64;
            while at < tend {
                let record = self.record(at, pos)?;
                let next = at.saturating_add(record.record_len()).saturating_add(version_len(&record));
                if next > tend {
                    let what = "has data records that extend beyond the transaction record; end at";
                    return self.flaw(&format!("{what} {next}"));
                }
                if self.verbose >= 2 {
                    writeln!(self.out, "{at:10}: object oid 0x{} #{number}", record.oid)?;
                }
                (at, number) = (next, number + 1);
            }
        }
        if be_u64(self.bytes(tend, TRAILER_LEN)?) != Some(len) {
            let what = "has inconsistent transaction length for undone transaction at";
            return self.flaw(&format!("{what} {at}"));
        }
        Ok(Some((tend + TRAILER_LEN as u64, tid)))
    }

    fn record(&mut self, pos: u64, tpos: u64) -> Result<DataHeader, Flaw> {
        let Some(record) = self.bytes(pos, DATA_HEADER_LEN)?.first_chunk().map(DataHeader::decode) else {
            return self.flaw(&format!("truncated at {pos}"));
        };
        if record.tloc != tpos {
            let what = "data record exceeds transaction record at";
            return self.flaw(&format!("{what} {pos}: tloc {} != tpos {tpos}", record.tloc));
        }
        Ok(record)
    }
}

/// Bytes of the fields that a record in a version has in addition.
fn version_len(record: &DataHeader) -> u64 {
    if record.version_len == 0 { 0 } else { 16 + u64::from(record.version_len) }
}
