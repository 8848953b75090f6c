//! What `zeoctl` does for each action. Its words are those of Python's `zeoctl`.
//!
//! Exit codes are Python's, too, with three exceptions where Python's is 0: an action that does not exist is 2, a
//! `restart` whose program does not start is 1, and `fg` ends with the program's own.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, kill_process};

use super::control::{Status, list, send};
use super::program::{self, MANAGER};
use super::settings::Settings;
use super::user::{self, become_user};
use super::{signals, tail, texts};
use crate::base::clock::Stopwatch;
use crate::commands::subcommand::Trouble;
use crate::commands::zeoadmin;
use crate::config::zconfig::quoted;
use crate::process::descriptors::keep_from_children;

const NOT_RUNNING: &str = "daemon manager not running";
/// Seconds within which a manager must have begun to answer.
const MANAGER_WAIT: u64 = 10;
/// Interval between two looks at something that is soon over.
const SOON: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

/// The answer to a look at the state.
enum Look {
    Reached,
    NotYet,
    TooLong,
}

/// A call of `zeoctl`.
pub(super) struct Actions<'a> {
    pub settings: Settings,
    /// Its name as called, and its arguments, which a manager has as well.
    pub program: &'a str,
    pub arguments: &'a [std::ffi::OsString],
}

impl Actions<'_> {
    /// Performs the action.
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        let status = self.status();
        if status.is_up
            && let Some(other) = status.other_program(&self.settings.runner.program)
        {
            writeln!(out, "WARNING! zdrun is managing a different program!")?;
            writeln!(out, "our program   = {}", list(&self.settings.runner.program))?;
            writeln!(out, "daemon's args = {other}")?;
        }
        self.prepare()?;
        let words = &self.settings.arguments;
        let argument = words.join(" ");
        match self.settings.action.as_str() {
            "start" => self.start(out),
            "stop" => self.stop(out),
            "restart" => self.restart(out),
            "status" => self.show_status(out, &argument),
            // As Python's prompt, for an empty line.
            "" => self.show_status(out, "").map(|_| 0),
            "kill" => self.kill(out, &argument),
            "wait" => self.wait(out),
            "fg" | "foreground" => self.foreground(out),
            "logreopen" => {
                self.reopen_transcript(out)?;
                self.kill(out, "USR2")
            }
            "reopen_transcript" => self.reopen_transcript(out),
            "logtail" => self.logtail(out, words),
            "reload" => self.reload(out),
            "show" => self.show(out, &argument),
            "help" | "?" => texts::help_on(out, &argument),
            other => {
                let rest = words.iter().fold(other.to_string(), |line, word| line + " " + word);
                writeln!(out, "*** Unknown syntax: {rest}")?;
                Ok(2)
            }
        }
    }

    fn status(&self) -> Status {
        Status::of(&self.settings.runner.socket_name)
    }

    fn send(&self, command: &str) {
        // The next status shows what has come of it.
        send(&self.settings.runner.socket_name, command);
    }

    /// Makes missing directories, and becomes the user.
    fn prepare(&self) -> Result<(), Trouble> {
        let runner = &self.settings.runner;
        let account = runner.user.as_deref().map(user::find).transpose().map_err(Trouble::Usage)?;
        let of_socket = runner.socket_name.parent().filter(|parent| !parent.as_os_str().is_empty());
        for directory in runner.directory.as_deref().into_iter().chain(of_socket) {
            if directory.is_dir() {
                continue;
            }
            let failed = |error| {
                Trouble::Failed(format!("the directory {} cannot be made: {error}", directory.display()))
            };
            std::fs::create_dir(directory).map_err(failed)?;
            if let Some(account) = &account
                && rustix::process::geteuid().is_root()
            {
                std::os::unix::fs::chown(directory, Some(account.uid), Some(account.gid)).map_err(failed)?;
            }
        }
        account.as_ref().map_or(Ok(()), become_user).map_err(Trouble::Usage)
    }

    fn start(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        let status = self.status();
        let mut manager = None;
        if !status.is_up {
            manager = Some(self.start_manager(out)?);
        } else if status.pid == 0 {
            self.send("start");
        } else {
            writeln!(out, "daemon process already running; pid={}", status.pid)?;
            return Ok(0);
        }
        match &mut manager {
            Some(manager) if !self.settings.runner.daemon => {
                let status = manager.wait().map_err(|error| Trouble::Failed(error.to_string()))?;
                Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
            }
            manager => {
                let done = |pid| format!("daemon process started, pid={pid}");
                self.until(
                    out,
                    manager.as_mut(),
                    SECOND,
                    |status, seconds| self.is_started(status, seconds),
                    done,
                )
            }
        }
    }

    fn is_started(&self, status: &Status, seconds: u64) -> Look {
        if seconds > self.settings.runner.start_timeout.as_secs() {
            return Look::TooLong;
        }
        if status.pid != 0 && !status.testing { Look::Reached } else { Look::NotYet }
    }

    /// Starts a manager, which is this program with the same command line.
    fn start_manager(&self, out: &mut dyn Write) -> Result<Child, Trouble> {
        out.flush()?;
        let failed = |error| Trouble::Failed(format!("the daemon manager cannot be started: {error}"));
        let own = std::env::current_exe().map_err(failed)?;
        keep_from_children().map_err(failed)?;
        let mut command = Command::new(own);
        // The program has them from the manager.
        command.envs(self.settings.environment.iter().cloned());
        command.arg0(self.program).args(self.arguments).env(MANAGER, "1");
        if self.settings.runner.daemon {
            command.stdin(Stdio::null());
        }
        command.spawn().map_err(failed)
    }

    /// Waits until the state is reached, with a dot for each second. `step`: the interval of the looks.
    fn until(
        &self,
        out: &mut dyn Write,
        mut manager: Option<&mut Child>,
        step: Duration,
        look: impl Fn(&Status, u64) -> Look,
        done: impl Fn(u32) -> String,
    ) -> Result<u8, Trouble> {
        let mut status = self.status();
        let mut was_up = status.is_up;
        let mut seconds = 0;
        loop {
            match look(&status, seconds) {
                Look::Reached => break,
                Look::TooLong => {
                    writeln!(out, "\nProgram took too long to start")?;
                    return Ok(1);
                }
                Look::NotYet => {}
            }
            write!(out, ". ")?;
            out.flush()?;
            let second = Stopwatch::start();
            let mut has_ended = None;
            while has_ended.is_none() && second.passed() < SECOND {
                pause(SOON);
                has_ended = manager.as_mut().and_then(|manager| manager.try_wait().ok().flatten());
                if step < SECOND {
                    status = self.status();
                    if matches!(look(&status, seconds), Look::Reached) {
                        break;
                    }
                }
            }
            seconds += 1;
            status = self.status();
            let is_gone = was_up || has_ended.is_some() || seconds > MANAGER_WAIT;
            if !status.is_up && is_gone && !matches!(look(&status, seconds), Look::Reached) {
                writeln!(out, "\n{NOT_RUNNING}")?;
                out.flush()?;
                if let Some(code) = has_ended.and_then(|status| status.code()) {
                    eprintln!("{}", self.why_ended(code));
                }
                return Ok(1);
            }
            was_up |= status.is_up;
        }
        writeln!(out, "\n{}", done(status.pid))?;
        Ok(0)
    }

    /// What to do about a program that does not start.
    fn why_ended(&self, code: i32) -> String {
        let where_to_look = match &self.settings.runner.transcript {
            Some(path) => format!("see {}, or run it with the action fg", path.display()),
            None => "run it with the action fg to see why".into(),
        };
        format!("Error: the program does not start, exit status {code}: {where_to_look}")
    }

    fn stop(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        let status = self.status();
        if !status.is_up {
            writeln!(out, "{NOT_RUNNING}")?;
        } else if status.pid == 0 && !status.should_be_up {
            writeln!(out, "daemon process not running")?;
        } else {
            self.send("stop");
            return self.until_ended(out);
        }
        Ok(0)
    }

    fn until_ended(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        let look = |status: &Status, _| if status.pid == 0 { Look::Reached } else { Look::NotYet };
        self.until(out, None, SOON, look, |_| "daemon process stopped".into())
    }

    fn restart(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        let before = self.status().pid;
        if before == 0 {
            return self.start(out);
        }
        self.send("restart");
        let look = |status: &Status, seconds| match status.pid == before || status.pid == 0 {
            true => Look::NotYet,
            false => self.is_started(status, seconds),
        };
        self.until(out, None, SOON, look, |pid| format!("daemon process restarted, pid={pid}"))
    }

    fn show_status(&self, out: &mut dyn Write, argument: &str) -> Result<u8, Trouble> {
        if !matches!(argument, "" | "-l") {
            writeln!(out, "status argument must be absent or -l")?;
            return Ok(1);
        }
        let status = self.status();
        let code = if !status.is_up {
            writeln!(out, "{NOT_RUNNING}")?;
            3
        } else if status.pid == 0 {
            writeln!(out, "daemon manager running; daemon process not running")?;
            0
        } else {
            writeln!(out, "program running; pid={}", status.pid)?;
            0
        };
        if argument == "-l" && status.is_up {
            writeln!(out, "{}", status.text)?;
        }
        Ok(code)
    }

    fn kill(&self, out: &mut dyn Write, argument: &str) -> Result<u8, Trouble> {
        let text = if argument.is_empty() { "SIGTERM" } else { argument };
        let Some(signal) = signals::parse(text) else {
            writeln!(out, "invalid signal {}", quoted(text))?;
            return Ok(0);
        };
        let pid = self.status().pid;
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| pid != 0);
        let Some(process) = process else {
            writeln!(out, "daemon process not running")?;
            return Ok(0);
        };
        writeln!(out, "kill({pid}, {})", signal.as_raw())?;
        match kill_process(process, signal) {
            Ok(()) => writeln!(out, "signal {} sent to process {pid}", signals::name(signal.as_raw()))?,
            Err(error) => writeln!(out, "Error: {error}")?,
        }
        Ok(0)
    }

    fn wait(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        self.until_ended(out)?;
        self.show_status(out, "").map(|_| 0)
    }

    /// Becomes the program, so that signals and its exit status are the program's.
    fn foreground(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        if self.status().pid != 0 {
            writeln!(out, "To run the program in the foreground, please stop it first.")?;
            return Ok(0);
        }
        let words: Vec<String> =
            self.settings.runner.program.iter().chain(&self.settings.arguments).cloned().collect();
        let file = program::find(words.first().map_or("", String::as_str)).map_err(Trouble::Failed)?;
        writeln!(out, "{}", words.join(" "))?;
        out.flush()?;
        let error = program::command(&file, &words).envs(self.settings.environment.iter().cloned()).exec();
        Err(Trouble::Failed(format!("{}: {error}", file.display())))
    }

    fn reopen_transcript(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        if self.status().is_up {
            self.send("reopen_transcript");
        } else {
            writeln!(out, "{NOT_RUNNING}")?;
        }
        Ok(0)
    }

    fn logtail(&self, out: &mut dyn Write, words: &[String]) -> Result<u8, Trouble> {
        let path = words.first().map(Into::into).or_else(|| self.settings.runner.logfile.clone());
        match path {
            Some(path) => tail::follow(out, &path),
            None => {
                writeln!(out, "No default log file specified; use logtail <logfile>")?;
                Ok(0)
            }
        }
    }

    /// The server reads its configuration again: `zeoadmin reload`.
    fn reload(&self, out: &mut dyn Write) -> Result<u8, Trouble> {
        match &self.settings.configuration {
            Some(file) => Ok(zeoadmin::reload(out, self.program, file)),
            None => Err(Trouble::Usage("reload needs -C, for the admin-socket of the server".into())),
        }
    }

    fn show(&self, out: &mut dyn Write, what: &str) -> Result<u8, Trouble> {
        match what {
            "" | "options" | "all" => texts::options(out, &self.settings),
            other => {
                writeln!(out, "there is no {} to show", quoted(other))?;
                texts::help_on(out, "show")
            }
        }
    }
}

fn pause(time: Duration) {
    // A signal ends it early.
    let _ = poll(&mut [], Timespec::try_from(time).ok().as_ref());
}
