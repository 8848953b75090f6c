//! `zeofs tail --follow`: transactions as they come, until a signal ends the program or nothing reads its output.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use serde_json::json;

use super::brief::show_transaction;
use super::selection::OpenedFile;
use super::text::{file_line, timestamp};
use crate::base::ids::Tid;
use crate::base::untrusted::one_line;
use crate::commands::subcommand::Trouble;
use crate::inspect::data_file::DataFile;
use crate::inspect::follow::{Follow, News, Replaced};
use crate::process::signals::stop_flag;

/// Interval of looks at the file.
const INTERVAL: Duration = Duration::from_millis(200);
/// Objects that are named of one transaction.
const OBJECTS_MAX: usize = 20;
/// The same in JSON.
const OBJECTS_JSON_MAX: usize = 10_000;

/// Objects that are named of one transaction.
pub(super) fn objects_max(is_json: bool) -> usize {
    if is_json { OBJECTS_JSON_MAX } else { OBJECTS_MAX }
}

/// Prints the newest transactions, at most `count`, then those that come.
pub(super) fn follow(out: &mut dyn Write, name: &str, count: usize, is_json: bool) -> Result<u8, Trouble> {
    ended(go_on(out, name, count, is_json))
}

/// The exit status.
pub(super) fn ended(result: Result<(), Trouble>) -> Result<u8, Trouble> {
    match result {
        // As `tail -f Data.fs | head` ends.
        Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        result => result.map(|()| 0),
    }
}

fn go_on(out: &mut dyn Write, name: &str, count: usize, is_json: bool) -> Result<(), Trouble> {
    let stop = stop_flag()?;
    if !is_json {
        writeln!(out, "{}", file_line(&OpenedFile::open(name)?))?;
    }
    let (mut follow, newest) = Follow::open(Path::new(name), count)?;
    let objects_max = objects_max(is_json);
    for txn in newest {
        show_transaction(out, follow.file(), &txn, is_json, objects_max)?;
    }
    out.flush()?;
    while !stop.load(Ordering::Relaxed) {
        follow.look(&mut |file, news| {
            match news {
                News::Transaction(txn) => show_transaction(out, file, &txn, is_json, objects_max)?,
                other => show_other(out, name, file, &other, is_json)?,
            }
            out.flush()?;
            // A long file that was restored is not read to its end.
            if stop.load(Ordering::Relaxed) {
                Err(Trouble::Output(io::ErrorKind::BrokenPipe.into()))
            } else {
                Ok(())
            }
        })?;
        if !wait()? {
            break;
        }
    }
    Ok(())
}

/// Waits until the next look. Returns whether something reads the output.
pub(super) fn wait() -> Result<bool, Trouble> {
    let stdout = io::stdout();
    let mut output = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
    let interval = Timespec::try_from(INTERVAL).map_err(|_| io::Error::from(Errno::INVAL))?;
    match poll(&mut output, Some(&interval)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(io::Error::from(errno).into()),
    }
    let [output] = output;
    Ok(!output.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

fn show_other(
    out: &mut dyn Write,
    name: &str,
    file: &DataFile,
    news: &News,
    is_json: bool,
) -> Result<(), Trouble> {
    match news {
        News::Transaction(_) => {}
        News::Damage(damage) => {
            let (pos, end, what) = (damage.pos, damage.end, &damage.what);
            match is_json {
                true => writeln!(out, "{}", json!({"kind": "damage", "pos": pos, "end": end, "what": what}))?,
                false => writeln!(
                    out,
                    "\nDAMAGED from {pos} to {end}: {}",
                    one_line(1000, format_args!("{what}"))
                )?,
            }
        }
        News::Replaced(Replaced { last, found, is_restored }) => {
            if is_json {
                let kind = if *is_restored { "restored" } else { "replaced" };
                let (last, found) = (last.to_string(), found.to_string());
                let value = json!({"kind": kind, "last": last, "found": found, "len": file.end()});
                writeln!(out, "{value}")?;
                return Ok(());
            }
            match is_restored {
                true => writeln!(out, "\n{}", restored(name, *last, *found))?,
                false => writeln!(
                    out,
                    "\n{name} is a new file, as after a pack; going on behind {}",
                    named(*found)
                )?,
            }
        }
    }
    Ok(())
}

/// A transaction in words.
pub(super) fn named(tid: Tid) -> String {
    match tid {
        Tid::ZERO => "none".into(),
        tid => format!("{} {tid}", timestamp(tid)),
    }
}

/// That a database does not have the last transaction that was shown.
pub(super) fn restored(name: &str, last: Tid, found: Tid) -> String {
    format!(
        "{name} was RESTORED: transaction {} is not in it\n    the last one before: {}",
        named(last),
        named(found)
    )
}
