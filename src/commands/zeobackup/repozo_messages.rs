//! What repozo prints under `-v`: the lines of ZODB 6's repozo, and a few of our own for what only this program does.

use crate::backup::repozo::progress::{Listener, Progress};

/// Prints to the standard error.
pub struct Messages {
    program: String,
    verbose: bool,
}

impl Messages {
    pub fn new(program: &str, verbose: bool) -> Messages {
        Messages { program: program.to_string(), verbose }
    }
}

impl Listener for Messages {
    fn report(&self, progress: Progress<'_>) {
        match progress {
            Progress::Warning { what } => eprintln!("{}: warning: {what}", self.program),
            // Not only under -v: the operator has to know where the former file is, and what takes room.
            Progress::SetAside { path } => {
                eprintln!("{}: the file that was there is now {}", self.program, path.display());
            }
            _ if self.verbose => text(progress).iter().for_each(|line| eprintln!("{line}")),
            _ => {}
        }
    }

    fn wants_sums(&self) -> bool {
        self.verbose
    }
}

/// The lines of a report.
fn text(progress: Progress<'_>) -> Vec<String> {
    let line = match progress {
        Progress::Looking { when } => format!("looking for files between last full backup and {when}..."),
        Progress::Found { when, files } => {
            let first = format!("files needed to recover state as of {when}:");
            let files = files.iter().map(|path| format!("\t{}", path.display()));
            return std::iter::once(first).chain(files).collect();
        }
        Progress::FoundNothing => "no files found".into(),
        Progress::DoingFull => "doing a full backup".into(),
        Progress::Shrunk => "file shrunk, possibly because of a pack (full backup)".into(),
        Progress::Changed => "file changed, possibly because of a pack (full backup)".into(),
        Progress::LastBackup { file, sum } => {
            return vec![
                format!("last incremental file: {file}"),
                format!("last incremental checksum: {sum}"),
            ];
        }
        Progress::SourceRange { start, end, sum } => {
            format!("source checksum range: [{start}..{end}], sum: {sum}")
        }
        Progress::RepositoryState { len, sum } => format!("repository state: {len} bytes, md5: {sum}"),
        Progress::SourceState { len, sum } => format!("current state   : {len} bytes, md5: {sum}"),
        Progress::BackedUpState { len, sum } => format!("backed up state : {len} bytes, md5: {sum}"),
        Progress::NoChanges => "No changes, nothing to do".into(),
        Progress::DoingDelta { start } => format!("doing incremental, starting at: {start}"),
        Progress::WritingIndex => "writing index".into(),
        Progress::WritingFull { len, path } => {
            format!("writing full backup: {len} bytes to {}", path.display())
        }
        Progress::WritingDelta { len, path } => {
            format!("writing incremental: {len} bytes to {}", path.display())
        }
        Progress::Removing { name } => format!("removing old backup file {name} (and .dat / .index)"),
        Progress::Recovering { to: None } => "Recovering file to stdout".into(),
        Progress::Recovering { to: Some(path) } => format!("Recovering file to {}", path.display()),
        Progress::RecoveredChunk { path, len, sum } => {
            format!("Recovered chunk {} : {len} bytes, md5: {sum}", path.display())
        }
        Progress::RecoveredTotal { len } => format!("Recovered a total of {len} bytes"),
        Progress::Recovered { len, sum } => format!("Recovered {len} bytes, md5: {sum}"),
        Progress::RestoringIndex { from, to } => {
            format!("Restoring index file {} to {}", from.display(), to.display())
        }
        Progress::NoIndex { path } => format!("No index file to restore: {}", path.display()),
        Progress::Verifying { path } => format!("Verifying {}", path.display()),
        Progress::Mended { what } => format!("mended: {what}"),
        Progress::Warning { what } => what.into(),
        Progress::SetAside { path } => path.display().to_string(),
    };
    vec![line]
}
