//! The command of a `<backup>`: a process that takes a backup from its standard input.
//!
//! Writing to it and waiting for it end when the server stops, and when nothing happens for too long; then the command
//! is ended, with all that it has started. Its standard error is read beside that, up to what is reported.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::base::clock::Stopwatch;
use crate::base::supervisor;
use crate::base::untrusted::one_line;
use crate::server::stop_signal::StopSignal;

/// Interval of the looks at the signal to stop, and at the process.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Time that it has to end by itself when it is asked to.
const GRACE: Duration = Duration::from_secs(2);
/// Longest wait for a process that was killed: a file system that does not answer can hold it.
const KILLED_WAIT: Duration = Duration::from_secs(5);
/// What is kept of the standard error: its end.
const TAIL_LEN: usize = 2000;
/// Lines of it that are reported, and their bytes.
const LINES_MAX: usize = 5;
const REPORT_LEN_MAX: usize = 600;

/// Why a command was ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    /// The server stops.
    Stopped,
    /// It has taken nothing for too long.
    TimedOut,
}

/// How a command has ended.
pub(super) enum Ending {
    /// Its exit status, or the signal that has ended it.
    Ended(ExitStatus),
    /// The server stops.
    Stopped,
    /// It did nothing for too long, or its end cannot be known.
    GivenUp(String),
}

/// A running command. What is written to it is its standard input.
pub(super) struct RunningCommand<'a> {
    child: Child,
    input: Option<ChildStdin>,
    errors: Option<ChildStderr>,
    tail: Vec<u8>,
    /// Since it has taken something.
    since: Stopwatch,
    timeout: Duration,
    stop: &'a StopSignal,
    over: Option<Over>,
}

impl<'a> RunningCommand<'a> {
    /// Starts a command with `/bin/sh`. Of the server's files it has none: `std` opens all of them for this process
    /// alone, and gives a process its signals back.
    pub(super) fn start(
        text: &str,
        timeout: Duration,
        stop: &'a StopSignal,
    ) -> io::Result<RunningCommand<'a>> {
        let mut child = supervisor::keep_from(&mut Command::new("/bin/sh"))
            .args(["-c", text])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (input, errors) = (child.stdin.take(), child.stderr.take());
        let running = RunningCommand {
            child,
            input,
            errors,
            tail: Vec::new(),
            since: Stopwatch::start(),
            timeout,
            stop,
            over: None,
        };
        // Of the pipes only the ends of this process.
        running.input.iter().try_for_each(|input| ioctl_fionbio(input, true))?;
        running.errors.iter().try_for_each(|errors| ioctl_fionbio(errors, true))?;
        Ok(running)
    }

    /// Ends its input, and waits for its end.
    pub(super) fn end(&mut self) -> Ending {
        self.input = None;
        self.since = Stopwatch::start();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    self.read_errors();
                    return Ending::Ended(status);
                }
                Ok(None) => {}
                Err(error) => return Ending::GivenUp(format!("it cannot be waited for: {error}")),
            }
            match self.over() {
                Some(over) => return self.kill(over),
                None => self.wait_for_something(),
            }
        }
    }

    /// The last lines of its standard error, as one.
    pub(super) fn last_lines(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.len().saturating_sub(LINES_MAX);
        one_line(REPORT_LEN_MAX, format_args!("{}", lines.get(last..).unwrap_or_default().join("; ")))
    }

    /// Whether it was ended, or its input was, because the server stops.
    pub(super) fn is_stopped(&self) -> bool {
        self.over == Some(Over::Stopped)
    }

    /// Whether it has to end.
    fn over(&mut self) -> Option<Over> {
        if self.over.is_none() && self.stop.is_stopped() {
            self.over = Some(Over::Stopped);
        }
        if self.over.is_none() && self.since.passed() >= self.timeout {
            self.over = Some(Over::TimedOut);
        }
        self.over
    }

    /// Waits until it takes something or says something, or for [`STEP`].
    fn wait_for_something(&mut self) {
        let mut fds = Vec::new();
        fds.extend(self.errors.as_ref().map(|errors| PollFd::new(errors, PollFlags::IN)));
        fds.extend(self.input.as_ref().map(|input| PollFd::new(input, PollFlags::OUT)));
        // An error is found by the next read or write.
        let _ = poll(&mut fds, Some(&STEP));
        self.read_errors();
    }

    /// Reads what there is of its standard error, at most a step's.
    fn read_errors(&mut self) {
        let mut chunk = [0; 4096];
        for _ in 0..16 {
            let Some(errors) = &mut self.errors else { return };
            match errors.read(&mut chunk) {
                Ok(len) if len > 0 => {
                    self.tail.extend_from_slice(chunk.get(..len).unwrap_or_default());
                    let surplus = self.tail.len().saturating_sub(TAIL_LEN);
                    self.tail.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.errors = None,
            }
        }
    }

    /// Ends it and what it has started: it is asked to end, and then killed.
    fn kill(&mut self, over: Over) -> Ending {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Errors mean that there is no process any more. As long as its end was not waited for, the number is its
            // own.
            let _ = kill_process_group(pid, Signal::TERM);
            let asked = Stopwatch::start();
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            while asked.passed() < GRACE && matches!(waitid(WaitId::Pid(pid), look), Ok(None)) {
                pause();
            }
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let killed = Stopwatch::start();
        while killed.passed() < KILLED_WAIT && matches!(self.child.try_wait(), Ok(None)) {
            pause();
        }
        self.read_errors();
        match over {
            Over::Stopped => Ending::Stopped,
            Over::TimedOut => Ending::GivenUp(format!(
                "it took nothing for {} s, or did not end, and was killed",
                self.timeout.as_secs()
            )),
        }
    }
}

/// A child that ends wakes no condition variable.
fn pause() {
    // An interruption ends it early.
    let _ = poll(&mut [], Some(&STEP));
}

impl Write for RunningCommand<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.over() {
                Some(Over::Stopped) => return Err(io::Error::other("the server stops")),
                Some(Over::TimedOut) => return Err(ErrorKind::TimedOut.into()),
                None => {}
            }
            let Some(input) = &mut self.input else { return Err(ErrorKind::BrokenPipe.into()) };
            match input.write(bytes) {
                Ok(len) => {
                    self.since = Stopwatch::start();
                    return Ok(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait_for_something(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A command that was not waited for is ended.
impl Drop for RunningCommand<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill(Over::Stopped);
        }
    }
}
