//! `fsrecover [-f] [-v LEVEL] [-p] [-P SECONDS] INPUT OUTPUT`: a copy without what is damaged.
//!
//! It makes the copy that `zeofs recover` makes. Of a whole file, the output is Python's too; for damage it has its own
//! lines, because Python's tool does not end, or drops all that follows, for some damage.

use std::io::Write;
use std::path::Path;

use getopts::{Options, ParsingStyle};

use super::super::new_file::NewFile;
use super::super::selection::OpenedFile;
use super::super::text::timestamp;
use super::tool::Tool;
use crate::base::clock::since_1970;
use crate::base::ids::Tid;
use crate::commands::subcommand::Trouble;
use crate::inspect::recover::{RecoverOptions, Recovery, Step};
use crate::pickle::refs::references;
use crate::storage::file::{FileFormat, FileStorage, FileStorageOptions};
use crate::storage::{Pack, PackProgress, PackRequest, Storage};

pub(super) const TOOL: Tool =
    Tool { name: "fsrecover", usage: "[-f] [-v LEVEL] [-p] [-P SECONDS] INPUT OUTPUT", main };

/// Steps of the progress.
const STEPS: u64 = 20;

fn main(out: &mut dyn Write, arguments: &[String]) -> Result<u8, Trouble> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree);
    options
        .optflagmulti("f", "", "")
        .optmulti("v", "", "", "")
        .optflagmulti("p", "", "")
        .optmulti("P", "", "", "");
    let matches = options.parse(arguments).map_err(|problem| Trouble::Usage(problem.to_string()))?;
    let [name, new_name] = matches.free.as_slice() else {
        return Err(Trouble::Usage("two positional arguments required".into()));
    };
    let number = |option: &str| match matches.opt_strs(option).last() {
        None => Ok(None),
        Some(text) => match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(Trouble::Usage(format!("-{option}: '{text}' is not a number"))),
        },
    };
    let verbose = number("v")?.unwrap_or(0.0);
    let pack = number("P")?.map(|seconds| since_1970().as_secs_f64() - seconds);
    writeln!(out, "Recovering {name} into {new_name}")?;
    let file = OpenedFile::open(name)?;
    let new_file = NewFile::create(new_name, name, matches.opt_present("f"))?;
    let options = RecoverOptions {
        to: Tid(u64::MAX),
        partial: matches.opt_present("p"),
        now: Tid::now(),
        is_in_use: file.holder.is_some(),
    };
    let mut recovery = Recovery::new(&file.data, new_file.media()?, format!("writing {new_name}"), options)?;
    let is_python2 = file.data.format() == FileFormat::FS21;
    let mut progress = Steps { shown: 0, end: file.data.end(), is_python2 };
    let mut undone = 0;
    while let Some(step) = recovery.next_step()? {
        match step {
            Step::Copied { tid, next, mended } => {
                if verbose >= 1.0 {
                    write!(out, "begin {next} {} ", timestamp(tid))?;
                }
                if verbose >= 2.0 {
                    writeln!(out)?;
                    for (oid, len) in recovery.copied() {
                        let len = len.map_or_else(|| "bp".into(), |len| len.to_string());
                        writeln!(out, "{:7} {len}", oid.0)?;
                    }
                }
                for what in mended {
                    writeln!(out, "\nmended: {what}")?;
                }
                if verbose >= 1.0 {
                    writeln!(out, "finish")?;
                } else {
                    progress.show(out, next)?;
                }
            }
            Step::Lost(lost) => writeln!(out, "\nerror at {}, up to {}: {}", lost.pos, lost.end, lost.what)?,
            Step::Undone { len } => undone += len,
            Step::Unfinished { .. } | Step::Later => {}
        }
    }
    // It may be longer, if data replaces back-pointers.
    let removed = i128::from(file.data.end()) - i128::from(undone) - i128::from(recovery.len());
    new_file.finish()?;
    writeln!(out, "\n{removed} bytes removed during recovery")?;
    if undone > 0 {
        writeln!(out, "{undone} bytes of undone transaction data were skipped")?;
    }
    if let Some(time) = pack {
        writeln!(out, "Packing ...")?;
        let storage = FileStorage::open(FileStorageOptions::new(Path::new(new_name)))?;
        let progress = PackProgress::default();
        let request =
            PackRequest { time, gc: None, references: &references, progress: &progress, removals: None };
        storage.pack(&request)?;
        storage.close()?;
    }
    Ok(0)
}

/// Python's progress: dots and numbers.
struct Steps {
    shown: u64,
    end: u64,
    is_python2: bool,
}

impl Steps {
    fn show(&mut self, out: &mut dyn Write, pos: u64) -> Result<(), Trouble> {
        let done = u128::from(pos) * u128::from(STEPS);
        let end = u128::from(self.end.max(1));
        // Python 2 divides without fraction.
        let done = if self.is_python2 { done / end } else { done.div_ceil(end) };
        while done > u128::from(self.shown) {
            self.shown += 1;
            match (self.shown % 2, self.shown / 2 % 10, self.is_python2) {
                (1, _, _) => write!(out, ". ")?,
                (_, number, true) => write!(out, "{number} ")?,
                (_, number, false) => write!(out, "{number}.0 ")?,
            }
        }
        Ok(())
    }
}
