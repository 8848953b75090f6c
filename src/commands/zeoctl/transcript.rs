//! Standard input, output and error of a process in the background, and of what it starts.
//!
//! The output comes through a pipe, and a thread appends it to the transcript. The file is opened for each piece, so a
//! transcript that was moved away is begun again. What cannot be written is lost: the program must not wait for it.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write, pipe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::event_log::EventLog;
use crate::base::level::ERROR;

const NULL: &str = "/dev/null";
const PIECE: usize = 64 << 10;
const STACK: usize = 128 << 10;

/// Upper bound on the wait for the last output. A process that the program has left behind may keep the pipe open.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The transcript, if the output is kept.
pub(super) struct Transcript(Option<Kept>);

struct Kept {
    path: PathBuf,
    /// Disconnected when all is copied.
    copying: Receiver<()>,
}

impl Transcript {
    /// Takes over the standard streams of this process.
    pub(super) fn begin(path: Option<&Path>, log: &Arc<EventLog>) -> io::Result<Transcript> {
        dup2_stdin(File::open(NULL)?)?;
        let path = path.filter(|path| *path != Path::new(NULL));
        let Some(path) = path else {
            forget_output()?;
            return Ok(Transcript(None));
        };
        let path = std::path::absolute(path)?;
        open(&path)?;
        let (reader, writer) = pipe()?;
        let (target, log) = (path.clone(), Arc::clone(log));
        let (is_copying, copying) = mpsc::channel();
        let copy = move || {
            copy(reader, &target, &log);
            drop(is_copying);
        };
        thread::Builder::new().name("transcript".into()).stack_size(STACK).spawn(copy)?;
        dup2_stdout(&writer)?;
        dup2_stderr(&writer)?;
        Ok(Transcript(Some(Kept { path, copying })))
    }

    /// Makes the file if it was moved away.
    pub(super) fn reopen(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |kept| open(&kept.path).map(drop))
    }

    /// Waits until the last output is in the file. This process has no output from here on.
    pub(super) fn finish(self) {
        if let Some(kept) = self.0
            && forget_output().is_ok()
        {
            // Nothing is ever sent.
            let _ = kept.copying.recv_timeout(LAST_WAIT);
        }
    }
}

fn forget_output() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open(NULL)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Copies until no process has the other end of the pipe; the standard error of this one is an end, too.
fn copy(mut reader: PipeReader, path: &Path, log: &EventLog) {
    let mut piece = vec![0; PIECE];
    let mut is_failing = false;
    loop {
        let len = match reader.read(&mut piece) {
            Ok(0) => return,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let written = open(path).and_then(|mut file| file.write_all(piece.get(..len).unwrap_or_default()));
        if let (Err(error), false) = (&written, is_failing) {
            let path = path.display();
            log.line(ERROR, format_args!("transcript {path}: {error}; output of the program is lost"));
        }
        is_failing = written.is_err();
    }
}
