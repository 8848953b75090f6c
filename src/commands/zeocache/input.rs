//! A trace as input: a file, compressed or not, or the standard input, with the progress on a terminal.

use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;
use std::{cell::Cell, path::Path};

use flate2::read::MultiGzDecoder;

use crate::client::cache::trace::{TraceItem, TraceReader};

use crate::commands::progress::Progress;
use crate::commands::subcommand::Trouble;

/// The first bytes of a compressed file.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
/// Records between two looks at the time.
const RECORDS_PER_LOOK: u32 = 10_000;

/// A trace that is read from front to back.
pub(super) struct TraceInput {
    name: String,
    reader: TraceReader<Box<dyn Read>>,
    progress: Option<Progress>,
    /// Bytes of the file that were read.
    done: Rc<Cell<u64>>,
    records: u32,
    /// The error that ended the trace early.
    error: Option<io::Error>,
}

impl TraceInput {
    /// Opens the file; `-` is the standard input. `is_quiet`: the command prints nothing while it reads, so a terminal
    /// may show the progress.
    pub(super) fn open(name: &str, is_quiet: bool) -> Result<TraceInput, Trouble> {
        let failed = |error: io::Error| Trouble::Failed(format!("cannot read {name}: {error}"));
        let done = Rc::new(Cell::new(0));
        let (file, total): (Box<dyn Read>, _) = if name == "-" {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(Path::new(name)).map_err(failed)?;
            let total = file.metadata().map_err(failed)?.len();
            (Box::new(file), Some(total))
        };
        let mut file = Counted { file, done: done.clone() };
        let mut start = Vec::new();
        file.by_ref().take(GZIP.len() as u64).read_to_end(&mut start).map_err(failed)?;
        let is_compressed = start == GZIP;
        let whole = io::Cursor::new(start).chain(file);
        let input: Box<dyn Read> =
            if is_compressed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        Ok(TraceInput {
            name: name.into(),
            reader: TraceReader::new(input),
            progress: Progress::on_terminal(name, total, is_quiet),
            done,
            records: 0,
            error: None,
        })
    }

    /// The next record or damage; `None` at the end, or where the file can be read no further.
    pub(super) fn next_item(&mut self) -> Option<TraceItem> {
        self.records += 1;
        if self.records.is_multiple_of(RECORDS_PER_LOOK)
            && let Some(progress) = &mut self.progress
        {
            progress.show(self.done.get());
        }
        let item = self.reader.next_item().unwrap_or_else(|error| {
            self.error = Some(error);
            None
        });
        if item.is_none()
            && let Some(progress) = &mut self.progress
        {
            progress.end();
        }
        item
    }

    /// Bytes of the trace, uncompressed, up to the last record; after the end, all.
    pub(super) fn pos(&self) -> u64 {
        self.reader.pos()
    }

    /// Fails if the trace ended because it could not be read further.
    pub(super) fn finish(self) -> Result<(), Trouble> {
        match self.error {
            None => Ok(()),
            Some(error) => {
                let what = format!("{}: cannot read on: {error}; the rest is left out", self.name);
                Err(Trouble::Failed(what))
            }
        }
    }
}

/// Counts the bytes that are read from a file.
struct Counted {
    file: Box<dyn Read>,
    done: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(out)?;
        self.done.set(self.done.get() + len as u64);
        Ok(len)
    }
}
