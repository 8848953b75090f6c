//! The program that the daemon manager runs, and `start-test-program`.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::{Access, access};

use super::control::list;
use super::signals;
use crate::config::zconfig::quoted;

/// Where programs are without `PATH`.
const PATH: &str = "/bin:/usr/bin:/usr/local/bin";
/// Tells the process of a manager that it is one. Not for the program.
pub(super) const MANAGER: &str = "ZEOCTL_MANAGER";

/// The file of a program, from its path or by `PATH`. An error is a message.
pub(super) fn find(program: &str) -> Result<PathBuf, String> {
    let file = if program.contains('/') {
        PathBuf::from(program)
    } else {
        let path = std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.into());
        let directories: Vec<String> = path.split(':').map(String::from).collect();
        let files = directories.iter().map(|directory| Path::new(directory).join(program));
        let mut files = files.filter(|file| access(file, Access::EXEC_OK).is_ok() && !file.is_dir());
        files
            .next()
            .ok_or_else(|| format!("can't find program {} on PATH {}", quoted(program), list(&directories)))?
    };
    if fs::metadata(&file).is_err() {
        return Err(format!("can't stat program {}", quoted(program)));
    }
    access(&file, Access::EXEC_OK)
        .map_err(|_| format!("no permission to run program {}", quoted(&file.to_string_lossy())))?;
    Ok(file)
}

/// The command of a file and its arguments, of which the first one is the name.
pub(super) fn command(file: &Path, arguments: &[String]) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(file);
    if let [name, rest @ ..] = arguments {
        command.arg0(name).args(rest);
    }
    command.env_remove(MANAGER);
    command
}

/// A child of the manager.
pub(super) struct Process {
    child: Child,
    pub pid: u32,
}

impl Process {
    pub(super) fn start(file: &Path, arguments: &[String]) -> io::Result<Process> {
        let child = command(file, arguments).spawn()?;
        Ok(Process { pid: child.id(), child })
    }

    /// A process without input.
    pub(super) fn test(arguments: &[String]) -> io::Result<Process> {
        let program = arguments.first().map_or("", String::as_str);
        let file = find(program).map_err(io::Error::other)?;
        let child = command(&file, arguments).stdin(Stdio::null()).spawn()?;
        Ok(Process { pid: child.id(), child })
    }

    /// Its exit status, if it has ended. Its number is not given to another process before.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        // An error would mean that it is no child.
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal. An error is a message.
    pub(super) fn kill(&self, signal: rustix::process::Signal) -> Result<(), String> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or("no process")?;
        rustix::process::kill_process(pid, signal).map_err(|error| error.to_string())
    }
}

/// How a process has ended, in zdaemon's words.
pub(super) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("terminated by {}{core}", signals::name(signal))
        }
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find("sh").unwrap().ends_with("sh"));
        assert_eq!(find("/bin/sh").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("/nowhere/sh").unwrap_err(), "can't stat program '/nowhere/sh'");
        assert!(
            find("no-such-program")
                .unwrap_err()
                .starts_with("can't find program 'no-such-program' on PATH [")
        );
    }

    #[test]
    fn endings_have_zdaemons_words() {
        assert_eq!(ending(ExitStatus::from_raw(2 << 8)), "exit status 2");
        assert_eq!(ending(ExitStatus::from_raw(9)), "terminated by SIGKILL");
        assert_eq!(ending(ExitStatus::from_raw(11 | 0x80)), "terminated by SIGSEGV (core dumped)");
    }
}
