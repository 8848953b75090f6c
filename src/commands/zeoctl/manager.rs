//! The daemon manager: the process that starts the program, starts it again when it crashes, and takes commands at the
//! control socket. zdaemon's `zeoctl` can talk to it, and ours to zdaemon's.
//!
//! One thread does all of it, in a loop that waits for a command, a signal, or the time of the next step. SIGTERM,
//! SIGINT and SIGHUP stop the program, and then the manager; zdaemon's would leave the program behind. The child's
//! process is waited for by this loop alone, so its number is the program's as long as it is used.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, setsid, umask};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use super::control::list;
use super::conversation::Conversation;
use super::event_log::EventLog;
use super::plan::{Next, Plan};
use super::program::{self, Process, ending};
use super::settings::Settings;
use super::signals;
use super::socket::ControlSocket;
use super::transcript::Transcript;
use crate::base::clock::{TimeSource, since_1970};
use crate::base::level::{CRITICAL, DEBUG, INFO, WARNING};
use crate::config::zconfig::quoted;

/// Upper bound on a wait, should a signal not wake it.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two runs of `start-test-program`.
const TEST_PAUSE: Duration = Duration::from_secs(1);

/// A manager at work.
pub(super) struct Manager {
    settings: Settings,
    log: Arc<EventLog>,
    /// The file of the program, and its arguments.
    file: PathBuf,
    arguments: Vec<String>,
    transcript: Option<Transcript>,
    plan: Plan,
    process: Option<Process>,
    /// When the program was started, in seconds since 1970; 0: never.
    last_start: f64,
    test: Test,
    /// The process for which the test was run last.
    tested: Option<u32>,
    /// The exit code of the manager, if the program cannot be started any more.
    given_up: Option<u8>,
    clock: TimeSource,
}

/// `start-test-program`.
enum Test {
    /// There is none, or it has succeeded.
    Done,
    At(Instant),
    Running(Process),
}

/// Wakes the loop, and says which signal has come.
struct Wakeup {
    pipe: UnixStream,
    /// The last signal that ends the manager; 0: none.
    end: Arc<AtomicUsize>,
}

impl Wakeup {
    fn install() -> io::Result<Wakeup> {
        let (pipe, writer) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let end = Arc::new(AtomicUsize::new(0));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&end), number)?;
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGCHLD, writer)?;
        Ok(Wakeup { pipe, end })
    }

    fn clear(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.pipe.read(&mut bytes), Ok(len) if len > 0) {}
    }
}

/// Runs the manager until it ends. Returns its exit code; an error is a message.
pub(super) fn run(settings: Settings) -> Result<u8, String> {
    let arguments: Vec<String> = settings.runner.program.iter().chain(&settings.arguments).cloned().collect();
    let file = program::find(arguments.first().map_or("", String::as_str))?;
    let file = std::path::absolute(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let socket = ControlSocket::open(&settings.runner.socket_name)?;
    let wakeup = Wakeup::install().map_err(|error| format!("signals cannot be handled: {error}"))?;
    let mut manager = Manager {
        log: Arc::new(EventLog::new(settings.log.clone())),
        file,
        arguments,
        transcript: None,
        plan: Plan::new(&settings.runner),
        process: None,
        last_start: 0.0,
        test: Test::Done,
        tested: None,
        given_up: None,
        clock: TimeSource::SYSTEM,
        settings,
    };
    if manager.settings.runner.daemon {
        manager.daemonize()?;
    }
    let code = manager.run(&socket, wakeup);
    drop(socket);
    if let Some(transcript) = manager.transcript.take() {
        transcript.finish();
    }
    Ok(code)
}

impl Manager {
    /// Leaves the terminal, its session, its directory and its streams.
    fn daemonize(&mut self) -> Result<(), String> {
        let runner = &self.settings.runner;
        let mut told = Vec::new();
        if let Some(directory) = &runner.directory {
            let shown = directory.display();
            match std::env::set_current_dir(directory) {
                Ok(()) => told.push((INFO, format!("set current directory: '{shown}'"))),
                Err(error) => told.push((WARNING, format!("can't chdir into '{shown}': {error}"))),
            }
        }
        // It is the leader of its session already if it is the leader of its group, and then it stays in it.
        let _ = setsid();
        umask(rustix::fs::Mode::from_raw_mode(runner.umask));
        let transcript = Transcript::begin(runner.transcript.as_deref(), &self.log)
            .map_err(|error| format!("the transcript cannot be opened: {error}"))?;
        self.transcript = Some(transcript);
        self.log.line(INFO, format_args!("daemonizing the process"));
        for (level, text) in told {
            self.log.line(level, format_args!("{text}"));
        }
        Ok(())
    }

    fn run(&mut self, socket: &ControlSocket, mut wakeup: Wakeup) -> u8 {
        self.log.line(INFO, format_args!("daemon manager started"));
        let mut conversation: Option<Conversation> = None;
        loop {
            if let Some(code) = self.reap() {
                return code;
            }
            self.end_if_told(&wakeup);
            if self.process.is_none() && !self.plan.should_be_up {
                self.log.line(INFO, format_args!("Exiting"));
                return 0;
            }
            let now = self.clock.now();
            self.step(now);
            let wait = self.wait(self.clock.now());
            let mut fds =
                vec![PollFd::new(&wakeup.pipe, PollFlags::IN), PollFd::new(&socket.listener, PollFlags::IN)];
            fds.extend(conversation.as_ref().map(|one| PollFd::new(one.stream(), PollFlags::IN)));
            // An interruption is a signal, which has its byte in the pipe. What was found is tried, and nothing blocks.
            let _ = poll(&mut fds, Some(&wait));
            wakeup.clear();
            if let Some(one) = &mut conversation
                && let Some(command) = one.read()
            {
                let reply = match command {
                    Ok(command) => self.answer(&command),
                    Err(wrong) => wrong.into(),
                };
                if let Some(one) = conversation.take() {
                    one.answer(&reply);
                }
            }
            if let Ok((stream, _)) = socket.listener.accept() {
                if let Some(previous) = conversation.take() {
                    previous.answer("Command superseded by new command");
                }
                conversation = Conversation::new(stream);
            }
        }
    }

    /// Whatever has ended. Returns the exit code if the manager ends with it.
    fn reap(&mut self) -> Option<u8> {
        if let Test::Running(test) = &mut self.test
            && let Some(status) = test.ended()
        {
            let is_of_this = self.process.as_ref().is_some_and(|process| Some(process.pid) == self.tested);
            self.test = match status.success() && is_of_this {
                true => Test::Done,
                false => Test::At(self.clock.now() + TEST_PAUSE),
            };
            let how = if status.success() { "succeeded" } else { "failed" };
            self.log.line(DEBUG, format_args!("start test {how}"));
        }
        let (pid, status) = match &mut self.process {
            Some(process) => (process.pid, process.ended()?),
            None => return self.given_up.take(),
        };
        self.process = None;
        self.ended(&format!("pid {pid}: {}", ending(status)), status.code())
    }

    /// The program has ended. Returns the exit code if the manager ends with it.
    fn ended(&mut self, how: &str, code: Option<i32>) -> Option<u8> {
        let next = self.plan.ended(self.clock.now());
        if next == Next::AsTold {
            self.log.line(INFO, format_args!("{how}"));
            return None;
        }
        if let Some(code) = code.filter(|code| self.settings.runner.exit_codes.contains(code)) {
            self.log.line(INFO, format_args!("{how}; exiting now"));
            return Some(u8::try_from(code).unwrap_or(1));
        }
        self.log.line(INFO, format_args!("{how}"));
        match next {
            Next::GiveUp => {
                self.log.line(CRITICAL, format_args!("restarting too frequently; quit"));
                Some(1)
            }
            Next::After(pause) => {
                self.log.line(INFO, format_args!("sleep {} to avoid rapid restarts", pause.as_secs()));
                None
            }
            Next::Again | Next::AsTold => None,
        }
    }

    /// Does what is due.
    fn step(&mut self, now: Instant) {
        match &self.process {
            Some(process) if self.plan.kills(now) => {
                self.log.line(WARNING, format_args!("pid {} does not end: SIGKILL", process.pid));
                if let Err(error) = self.signal(Signal::KILL) {
                    self.log.line(WARNING, format_args!("SIGKILL: {error}"));
                }
            }
            None if self.plan.starts(now) => self.start(now),
            _ => {}
        }
        if let (Test::At(at), Some(process)) = (&self.test, &self.process)
            && *at <= now
        {
            self.tested = Some(process.pid);
            self.test = match Process::test(&self.settings.runner.start_test_program) {
                Ok(test) => Test::Running(test),
                Err(error) => {
                    self.log.line(CRITICAL, format_args!("start test cannot be run: {error}"));
                    Test::Done
                }
            };
        }
    }

    fn start(&mut self, now: Instant) {
        self.plan.started(now);
        self.last_start = since_1970().as_secs_f64();
        if !self.settings.runner.start_test_program.is_empty() && !matches!(self.test, Test::Running(_)) {
            self.test = Test::At(now);
        }
        match Process::start(&self.file, &self.arguments) {
            Ok(process) => {
                self.log.line(INFO, format_args!("spawned process pid={}", process.pid));
                self.process = Some(process);
            }
            Err(error) => {
                let how = format!("can't exec '{}': {error}", self.file.display());
                self.given_up = self.ended(&how, None);
            }
        }
    }

    /// Sends a signal to the program, if it runs. An error is a message.
    fn signal(&self, signal: Signal) -> Result<(), String> {
        let process = self.process.as_ref().ok_or("no subprocess running")?;
        process.kill(signal)
    }

    /// Stops the program, after a signal that ends the manager.
    fn end_if_told(&mut self, wakeup: &Wakeup) {
        let number = i32::try_from(wakeup.end.swap(0, Ordering::Relaxed)).unwrap_or(0);
        if number != 0 {
            self.log.line(
                WARNING,
                format_args!("daemon manager ends by {}: it stops the program first", signals::name(number)),
            );
            self.terminate(false);
        }
    }

    /// Sends SIGTERM. False: it does not run.
    fn terminate(&mut self, should_be_up: bool) -> bool {
        self.plan.begin(should_be_up);
        if self.process.is_none() {
            return false;
        }
        if let Err(error) = self.signal(Signal::TERM) {
            self.log.line(WARNING, format_args!("SIGTERM: {error}"));
        }
        self.plan.asked_to_end(self.clock.now());
        true
    }

    /// How long there is nothing to do.
    fn wait(&self, now: Instant) -> Timespec {
        let test = match &self.test {
            Test::At(at) if self.process.is_some() => Some(*at),
            _ => None,
        };
        let next = self.plan.due.into_iter().chain(test).min();
        let wait = next.map_or(WAIT_MAX, |at| at.saturating_duration_since(now).min(WAIT_MAX));
        Timespec::try_from(wait).unwrap_or_default()
    }

    /// Does what a command says, and answers in zdaemon's words.
    fn answer(&mut self, command: &str) -> String {
        let mut words = command.split_whitespace();
        match (words.next().unwrap_or_default(), words.next()) {
            ("", _) => "Empty command".into(),
            ("status", _) => self.status(),
            ("start", _) => {
                self.plan.begin(true);
                if self.process.is_some() { "Application already started" } else { "Application started" }
                    .into()
            }
            ("stop", _) => {
                if self.terminate(false) { "Sent SIGTERM" } else { "Application already stopped" }.into()
            }
            ("restart", _) => {
                let is_sent = self.terminate(true);
                if is_sent { "Sent SIGTERM; will restart later" } else { "Application started" }.into()
            }
            ("kill", None) => self.kill("15"),
            ("kill", Some(number)) => self.kill(number),
            ("reopen_transcript", _) => match self.transcript.as_ref().map_or(Ok(()), Transcript::reopen) {
                Ok(()) => String::new(),
                Err(error) => format!("The transcript cannot be opened: {error}"),
            },
            (other, _) => format!("Unknown command {}; 'help' for a list", quoted(other)),
        }
    }

    fn kill(&self, number: &str) -> String {
        let Some(signal) = number.parse().ok().and_then(Signal::from_named_raw) else {
            return format!("Bad signal {}", quoted(number));
        };
        let number = signal.as_raw();
        match (self.signal(signal), &self.process) {
            (_, None) => "Application not running".into(),
            (Ok(()), _) => format!("Signal {number} sent"),
            (Err(error), _) => format!("Kill {number} failed: {error}"),
        }
    }

    /// Values as Python writes them: zdaemon's `zeoctl` reads them so.
    fn status(&self) -> String {
        let now = since_1970().as_secs_f64();
        let delay = self.plan.due.map(|due| due.saturating_duration_since(self.clock.now()).as_secs_f64());
        let time = |time: f64| if time == 0.0 { "0".into() } else { format!("{time:?}") };
        let testing = self.process.is_some() && !matches!(self.test, Test::Done);
        [
            format!("status={}", if self.process.is_some() { "running" } else { "stopped" }),
            format!("now={}", time(now)),
            format!("should_be_up={}", u8::from(self.plan.should_be_up)),
            format!("delay={}", time(delay.map_or(0.0, |delay| now + delay))),
            format!("backoff={}", self.plan.backoff),
            format!("lasttime={}", time(self.last_start)),
            format!("application={}", self.process.as_ref().map_or(0, |process| process.pid)),
            format!("testing={}", u8::from(testing)),
            format!("manager={}", std::process::id()),
            format!("backofflimit={}", self.settings.runner.backoff_limit.as_secs()),
            format!("filename={}", quoted(&self.file.to_string_lossy())),
            format!("args={}", list(&self.arguments)),
        ]
        .map(|line| line + "\n")
        .concat()
    }
}
