//! One helper process: a Python that merges states with the application's classes, see `helper.py`.
//!
//! The server and the process exchange messages over a socket, which is the process's standard input. Lines on its
//! standard output and error are logged. The process can delay a caller by at most the caller's time limit.

use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::message::{self, AnswerKind, HelperAnswer};
use crate::base::clock::{IoDeadline, TimeSource};
use crate::base::log_rate::LogRate;
use crate::base::memory;
use crate::base::supervisor;
use crate::base::sync::{Mutex, rank};
use crate::conflict::{HelperOptions, LOG, ThreeStates};
use crate::log_at;

/// The program of the process, sent over its standard input to keep the command line short.
const SOURCE: [&str; 3] = [include_str!("names.py"), include_str!("unpickler.py"), include_str!("helper.py")];
/// Reads the program up to a zero byte. Only `-c` is used: interpreters made by buildout have no other option.
const BOOTSTRAP: &str = "# merges conflicting states of objects for runzeo
import os
s = b''
while s[-1:] != b'\\0':
    part = os.read(0, 65536) or os._exit(0)
    s += part
exec(compile(s[:-1], 'runzeo-conflict-resolver', 'exec'))
";
/// Memory limit of a helper.
const MEMORY_MAX: u64 = 1 << 30;
/// Limits on the output of a helper in the log: bytes of a line, and lines in a period.
const LINE_LEN_MAX: u64 = 2000;
const LINES_MAX: u32 = 200;
const LINES_PERIOD: Duration = Duration::from_secs(60);
const LOG_STACK: usize = 128 << 10;

/// A running helper that has no request.
pub struct Helper {
    pub process: Arc<Process>,
    /// Versions of Python and ZODB.
    pub versions: String,
}

/// A merge's result from a helper that stays usable.
pub struct Outcome {
    pub result: Result<Vec<u8>, String>,
    /// The helper has grown too large and should be replaced.
    pub retire: bool,
}

/// A child process and the processes that it started.
pub struct Process {
    pub pid: u32,
    channel: UnixStream,
    /// `None` after [`Process::kill`]: the process id may belong to another process then.
    child: Mutex<Option<Child>, rank::HelperChild>,
}

impl Process {
    /// Whether [`Process::kill`] has not been called yet.
    pub fn is_running(&self) -> bool {
        self.child.lock().is_some()
    }

    /// Ends it and the wait for its answer, without waiting for its end: [`Process::kill`] has to follow.
    pub fn interrupt(&self) {
        let child = self.child.lock();
        if child.is_some() {
            self.signal();
        }
        drop(child);
        // Processes that it started may hold the other end. An error means that the process has ended.
        let _ = self.channel.shutdown(Shutdown::Both);
    }

    fn signal(&self) {
        if let Some(group) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw) {
            // An error means that the process group is empty.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    /// Ends it, unless it has ended by itself; returns how it ended.
    pub fn kill(&self) -> String {
        let child = self.child.lock().take();
        let Some(mut child) = child else { return "stopped".into() };
        self.signal();
        match child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => format!("cannot be waited for: {error}"),
        }
    }
}

impl Helper {
    /// Starts a helper and waits until it is ready. The calling thread must live as long as the helper: Linux ends the
    /// helper together with that thread. `started` is called with the process before the wait.
    pub fn start(
        settings: &HelperOptions,
        time_limit: Duration,
        clock: &TimeSource,
        started: impl FnOnce(&Arc<Process>),
    ) -> Result<Helper, String> {
        let cannot = |error: io::Error| format!("cannot be started: {error}");
        let (channel, theirs) = UnixStream::pair().map_err(cannot)?;
        let (lines, out) = io::pipe().map_err(cannot)?;
        let mut command = Command::new(&settings.interpreter);
        if let Some(user) = &settings.user {
            give_up_rights().map_err(|error| {
                let name = &user.name;
                format!(
                    "cannot run as {name}: {error}; the server needs to be root, or CAP_SETUID and CAP_SETGID"
                )
            })?;
            command.uid(user.uid).gid(user.gid);
        }
        let child = supervisor::keep_from(&mut command)
            .args(["-c", BOOTSTRAP])
            .stdin(OwnedFd::from(theirs))
            .stdout(out.try_clone().map_err(cannot)?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        // Also drops the server's copy of the helper's end of the socket; the helper must hold the only one.
        drop(command);
        let pid = child.id();
        let process = Arc::new(Process { pid, channel, child: Mutex::new(Some(child)) });
        started(&process);
        if let Err(error) = log_lines(lines, pid, clock.clone()) {
            process.kill();
            return Err(cannot(error));
        }
        let mut helper = Helper { process, versions: String::new() };
        // Identifiers of Python: they contain no quotes.
        let constants = format!(
            "LOG_LEVEL = {}\nMEMORY_MAX = {MEMORY_MAX}\nALLOWED = '{}'\n",
            log_level(),
            settings.allowed.join(" ")
        );
        let [names, unpickler, main] = SOURCE.map(str::as_bytes);
        let deadline = IoDeadline::after(time_limit);
        let hello = helper
            .send(&[constants.as_bytes(), names, unpickler, main, b"\0"], deadline)
            .and_then(|()| helper.answer(deadline));
        let error = match hello {
            Ok((HelperAnswer { kind: AnswerKind::Ready, .. }, versions)) => {
                helper.versions = String::from_utf8_lossy(&versions).into_owned();
                return Ok(helper);
            }
            Ok((HelperAnswer { kind: AnswerKind::Failed, .. }, why)) => {
                String::from_utf8_lossy(&why).into_owned()
            }
            Ok(_) => "is not a Python that can run a helper: its first answer cannot be understood".into(),
            Err(error) => {
                let ending = helper.process.kill();
                return Err(format!("{} ({ending})", describe(&error, time_limit)));
            }
        };
        helper.process.kill();
        Err(error)
    }

    /// Whether it has ended since its last request: it was killed, or the system was short of memory.
    pub fn has_ended(&self) -> bool {
        let channel = &self.process.channel;
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = channel.set_nonblocking(true).and_then(|()| SockRef::from(channel).peek(&mut byte));
        let blocking = channel.set_nonblocking(false);
        match peeked {
            Ok(len) => len == 0 || blocking.is_err(),
            Err(error) => error.kind() != ErrorKind::WouldBlock || blocking.is_err(),
        }
    }

    /// Merges within the time limit. After an error the helper must not be used again; its process may still run.
    pub fn resolve(&mut self, states: &ThreeStates<'_>, time_limit: Duration) -> Result<Outcome, String> {
        let deadline = IoDeadline::after(time_limit);
        let answer = message::request(states).and_then(|head| {
            self.send(&[&head, states.old, states.committed, states.new], deadline)?;
            self.answer(deadline)
        });
        let (answer, body) = match answer {
            Ok(answer) => answer,
            // The keeper waits for the process: this thread holds locks.
            Err(_) if states.cancel.is_cancelled() => return Err("was interrupted".into()),
            Err(error) => {
                let ending = self.process.kill();
                return Err(format!("{} ({ending})", describe(&error, time_limit)));
            }
        };
        let result = match answer.kind {
            AnswerKind::Resolved => Ok(body),
            AnswerKind::Unresolved => Err(String::from_utf8_lossy(&body).into_owned()),
            _ => return Err("gave an answer that cannot be understood".into()),
        };
        Ok(Outcome { result, retire: answer.retire })
    }

    fn send(&mut self, parts: &[&[u8]], deadline: IoDeadline) -> io::Result<()> {
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let mut channel = &self.process.channel;
                channel.set_write_timeout(Some(left(deadline)?))?;
                match channel.write(rest) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                    Err(error) => again(error)?,
                }
            }
        }
        Ok(())
    }

    /// The next message that is not a log record: its header and its body.
    fn answer(&mut self, deadline: IoDeadline) -> io::Result<(HelperAnswer, Vec<u8>)> {
        loop {
            let length = self.take(4, deadline)?;
            let length = length.try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX) as usize;
            if length > message::HEADER_LEN_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            let answer = message::answer(&self.take(length, deadline)?)?;
            // Both are bounded by the reading of the header.
            let name = self.take(usize::try_from(answer.name).unwrap_or(usize::MAX), deadline)?;
            let body = self.take(usize::try_from(answer.body).unwrap_or(usize::MAX), deadline)?;
            if answer.kind != AnswerKind::Log {
                return Ok((answer, body));
            }
            log_record(answer.level, &name, &body);
        }
    }

    fn take(&mut self, length: usize, deadline: IoDeadline) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 << 10];
        while bytes.len() < length {
            let mut channel = &self.process.channel;
            channel.set_read_timeout(Some(left(deadline)?))?;
            let want = chunk.len().min(length - bytes.len());
            match channel.read(&mut chunk[..want]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => memory::append(&mut bytes, &chunk[..len])?,
                Err(error) => again(error)?,
            }
        }
        Ok(bytes)
    }
}

/// Gives up what a helper that runs as another user must not have: the groups of the server's user, and capabilities
/// that a program inherits. `std` and the system remove them for root only, not for another user with capabilities.
/// This changes the calling thread only, which does nothing but start helpers.
#[cfg(target_os = "linux")]
fn give_up_rights() -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    Ok(rustix::thread::clear_ambient_capability_set()?)
}

/// On other systems `std` does it.
#[cfg(not(target_os = "linux"))]
fn give_up_rights() -> io::Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
}

fn left(deadline: IoDeadline) -> io::Result<Duration> {
    let left = deadline.left();
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Ignores timeouts of the socket and interrupted calls; the caller checks its deadline.
fn again(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

fn describe(error: &io::Error, time_limit: Duration) -> String {
    match error.kind() {
        ErrorKind::TimedOut => format!("gave no answer within {} s", time_limit.as_secs_f64()),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => "ended".into(),
        ErrorKind::InvalidData => "gave an answer that cannot be understood".into(),
        _ => error.to_string(),
    }
}

/// The lowest of Python's levels that the server logs, at most ERROR: the helper detects from error records that its
/// memory limit was too low.
fn log_level() -> u8 {
    match log::max_level() {
        log::LevelFilter::Off | log::LevelFilter::Error => 40,
        log::LevelFilter::Warn => 30,
        log::LevelFilter::Info => 20,
        log::LevelFilter::Debug => 10,
        log::LevelFilter::Trace => 1,
    }
}

/// Limits on the log records of the application: their rate, and the bytes of one.
static RECORDS: LogRate = LogRate::new("lines that helpers of conflict-resolver logged", 300, 300);
const RECORD_LEN_MAX: usize = 16 << 10;

/// Logs a record that the application or ZODB logged in the helper.
fn log_record(level: u8, name: &[u8], text: &[u8]) {
    let name = String::from_utf8_lossy(name.get(..RECORD_LEN_MAX).unwrap_or(name));
    let text = String::from_utf8_lossy(text.get(..RECORD_LEN_MAX).unwrap_or(text));
    // Clients can cause conflicts without limit.
    if !RECORDS.admits(None, &text) {
        return;
    }
    log_at!(target: &name, level.clamp(1, 50), "{text}");
}

/// Starts a thread that logs the output of the helper until its end.
fn log_lines(lines: PipeReader, pid: u32, clock: TimeSource) -> io::Result<()> {
    let run = move || {
        let mut reader = BufReader::new(lines);
        let (mut count, mut since) = (0, clock.now());
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if clock.elapsed(since) > LINES_PERIOD {
                (count, since) = (0, clock.now());
            }
            count += 1;
            let text = String::from_utf8_lossy(&line);
            match count {
                0..LINES_MAX => log::info!(target: LOG, "conflict-resolver ({pid}): {}", text.trim_end()),
                LINES_MAX => log::warn!(
                    target: LOG,
                    "conflict-resolver ({pid}): it prints too much; what follows within {} s is left out",
                    LINES_PERIOD.as_secs()
                ),
                _ => {}
            }
        }
    };
    thread::Builder::new().name("zeo-resolver-log".into()).stack_size(LOG_STACK).spawn(run)?;
    Ok(())
}
