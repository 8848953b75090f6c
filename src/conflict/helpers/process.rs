//! One helper process: a Python that merges states with the application's classes, see `helper.py`.
//!
//! It talks over a socket that takes the place of its standard input; standard output and error are lines for the
//! log. Nothing that it does can hold the server up for longer than the caller allows, or harm it.

use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::message::{self, Answer, AnswerKind};
use crate::base::log_rate::LogRate;
use crate::base::memory;
use crate::base::sync::{Mutex, rank};
use crate::conflict::{HelperOptions, LOG, ThreeStates};
use crate::log_at;

/// What the process runs, sent over its standard input so that the command line stays short.
const SOURCE: [&str; 3] = [include_str!("names.py"), include_str!("unpickler.py"), include_str!("helper.py")];
/// Reads the source up to a zero byte. Nothing but `-c`: interpreters made by buildout know no other option.
const BOOTSTRAP: &str = "# merges conflicting states of objects for runzeo
import os
s = b''
while s[-1:] != b'\\0':
    part = os.read(0, 65536) or os._exit(0)
    s += part
exec(compile(s[:-1], 'runzeo-conflict-resolver', 'exec'))
";
/// Memory that a helper may take.
const MEMORY_MAX: u64 = 1 << 30;
/// Longest line of a helper in the log, and how many of them before some are left out.
const LINE_LEN_MAX: u64 = 2000;
const LINES_MAX: u32 = 200;
const LINES_PERIOD: Duration = Duration::from_secs(60);
const LOG_STACK: usize = 128 << 10;

/// A running helper that waits for a request.
pub struct Helper {
    pub process: Arc<Process>,
    /// Versions of Python and ZODB.
    pub versions: String,
}

/// The outcome of a merge that the helper survived.
pub struct Outcome {
    pub result: Result<Vec<u8>, String>,
    /// The helper has grown too large.
    pub retire: bool,
}

/// A child process, and all that it started.
pub struct Process {
    pub pid: u32,
    channel: UnixStream,
    /// `None` once it was ended and waited for: its number may belong to another process then.
    child: Mutex<Option<Child>, rank::HelperChild>,
}

impl Process {
    /// It was not ended by [`Process::kill`].
    pub fn is_running(&self) -> bool {
        self.child.lock().is_some()
    }

    /// Ends it, and the wait for its answer, without waiting for its end: [`Process::kill`] has to follow.
    pub fn interrupt(&self) {
        let child = self.child.lock();
        if child.is_some() {
            self.signal();
        }
        drop(child);
        // An error says that it has ended. What it started may have taken the other end along.
        let _ = self.channel.shutdown(Shutdown::Both);
    }

    fn signal(&self) {
        if let Some(group) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw) {
            // An error says that nobody is left in it.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    /// Ends it at once, if it has not ended by itself; how it ended.
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
    /// Starts one and waits until it is ready. To be called from a thread that lives as long as the helper may: Linux
    /// ends the helper together with that thread. `started` is told before it is waited for.
    pub fn start(
        settings: &HelperOptions,
        time_limit: Duration,
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
        let child = command
            .args(["-c", BOOTSTRAP])
            .stdin(OwnedFd::from(theirs))
            .stdout(out.try_clone().map_err(cannot)?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        // With it the helper's end of the socket: its own must be the only one.
        drop(command);
        let pid = child.id();
        let process = Arc::new(Process { pid, channel, child: Mutex::new(Some(child)) });
        started(&process);
        if let Err(error) = log_lines(lines, pid) {
            process.kill();
            return Err(cannot(error));
        }
        let mut helper = Helper { process, versions: String::new() };
        // Names of Python, so nothing in them ends a text.
        let constants = format!(
            "LOG_LEVEL = {}\nMEMORY_MAX = {MEMORY_MAX}\nALLOWED = '{}'\n",
            log_level(),
            settings.allowed.join(" ")
        );
        let [names, unpickler, main] = SOURCE.map(str::as_bytes);
        let deadline = Instant::now() + time_limit;
        let hello = helper
            .send(&[constants.as_bytes(), names, unpickler, main, b"\0"], deadline)
            .and_then(|()| helper.answer(deadline));
        let error = match hello {
            Ok((Answer { kind: AnswerKind::Ready, .. }, versions)) => {
                helper.versions = String::from_utf8_lossy(&versions).into_owned();
                return Ok(helper);
            }
            Ok((Answer { kind: AnswerKind::Failed, .. }, why)) => String::from_utf8_lossy(&why).into_owned(),
            Ok(_) => "is no Python that can work for this server: its first answer makes no sense".into(),
            Err(error) => {
                let ending = helper.process.kill();
                return Err(format!("{} ({ending})", describe(&error, time_limit)));
            }
        };
        helper.process.kill();
        Err(error)
    }

    /// Whether it has ended since it was asked last: somebody killed it, or the system was short of memory.
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

    /// Merges within the time limit. An error means that the helper must not be used again: it has ended, unless it was cancelled.
    pub fn resolve(&mut self, states: &ThreeStates<'_>, time_limit: Duration) -> Result<Outcome, String> {
        let deadline = Instant::now() + time_limit;
        let answer = message::request(states).and_then(|head| {
            self.send(&[&head, states.old, states.committed, states.new], deadline)?;
            self.answer(deadline)
        });
        let (answer, body) = match answer {
            Ok(answer) => answer,
            // The process is waited for where no locks are held.
            Err(_) if states.cancel.is_cancelled() => return Err("was interrupted".into()),
            Err(error) => {
                let ending = self.process.kill();
                return Err(format!("{} ({ending})", describe(&error, time_limit)));
            }
        };
        let result = match answer.kind {
            AnswerKind::Resolved => Ok(body),
            AnswerKind::Unresolved => Err(String::from_utf8_lossy(&body).into_owned()),
            _ => return Err("gave an answer that makes no sense".into()),
        };
        Ok(Outcome { result, retire: answer.retire })
    }

    fn send(&mut self, parts: &[&[u8]], deadline: Instant) -> io::Result<()> {
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

    /// The next message that is not for the log, and what is behind its header.
    fn answer(&mut self, deadline: Instant) -> io::Result<(Answer, Vec<u8>)> {
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

    fn take(&mut self, length: usize, deadline: Instant) -> io::Result<Vec<u8>> {
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

/// What the server has and a helper that runs as another user must not: its user's groups, and capabilities that a program
/// inherits. `std` and the system take them away for root only, not for who has the capabilities alone. Those of this thread are
/// given up: it starts helpers, and does nothing else.
#[cfg(target_os = "linux")]
fn give_up_rights() -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    Ok(rustix::thread::clear_ambient_capability_set()?)
}

/// Elsewhere `std` has to do it.
#[cfg(not(target_os = "linux"))]
fn give_up_rights() -> io::Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Timeouts of the socket and signals: whoever calls looks at the clock.
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
        ErrorKind::InvalidData => "gave an answer that makes no sense".into(),
        _ => error.to_string(),
    }
}

/// The lowest of Python's levels that the server's log has a use for. Errors are asked for anyway: the helper
/// learns from them that its memory was not enough.
fn log_level() -> u8 {
    match log::max_level() {
        log::LevelFilter::Off | log::LevelFilter::Error => 40,
        log::LevelFilter::Warn => 30,
        log::LevelFilter::Info => 20,
        log::LevelFilter::Debug => 10,
        log::LevelFilter::Trace => 1,
    }
}

/// Lines of the application's, and the longest.
static RECORDS: LogRate = LogRate::new("lines that helpers of conflict-resolver logged", 300, 300);
const RECORD_LEN_MAX: usize = 16 << 10;

/// What the application or ZODB logged in the helper.
fn log_record(level: u8, name: &[u8], text: &[u8]) {
    let name = String::from_utf8_lossy(name.get(..RECORD_LEN_MAX).unwrap_or(name));
    let text = String::from_utf8_lossy(text.get(..RECORD_LEN_MAX).unwrap_or(text));
    // Clients bring about conflicts as often as they like.
    if !RECORDS.admits(None, &text) {
        return;
    }
    log_at!(target: &name, level.clamp(1, 50), "{text}");
}

/// A thread that logs what the helper prints, until that has ended.
fn log_lines(lines: PipeReader, pid: u32) -> io::Result<()> {
    let run = move || {
        let mut reader = BufReader::new(lines);
        let (mut count, mut since) = (0, Instant::now());
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if since.elapsed() > LINES_PERIOD {
                (count, since) = (0, Instant::now());
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
