//! What a daemon manager, ours or zdaemon's, is asked over its control socket, and what it answers.
//!
//! A question is a line, the answer is text up to the end of the connection. The answer to `status` has lines
//! `NAME=VALUE`, whose values are written as Python writes them.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::config::zconfig::quoted;

/// Upper bound on the bytes of an answer.
const ANSWER_LEN_MAX: u64 = 1 << 20;
/// Upper bound on the wait for a manager, which answers at once.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The state of a manager. Without a manager, none of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Status {
    /// The manager runs.
    pub is_up: bool,
    /// The program's process; 0: it does not run.
    pub pid: u32,
    /// The program is to run.
    pub should_be_up: bool,
    /// `start-test-program` has not succeeded yet.
    pub testing: bool,
    /// The whole answer.
    pub text: String,
}

impl Status {
    /// The state at the socket of this path.
    pub(super) fn of(socket: &Path) -> Status {
        send(socket, "status").and_then(Status::read).unwrap_or_default()
    }

    /// `None`: this is no status.
    pub(super) fn read(text: String) -> Option<Status> {
        let number = |name: &str| value(&text, name)?.parse().ok();
        let (pid, should_be_up, testing) =
            (number("application")?, number("should_be_up").unwrap_or(1), number("testing").unwrap_or(0));
        Some(Status { is_up: true, pid, should_be_up: should_be_up != 0, testing: testing != 0, text })
    }

    /// The arguments that the manager's program has, if they do not begin with these.
    pub(super) fn other_program(&self, program: &[String]) -> Option<&str> {
        let has = value(&self.text, "args")?;
        let wanted = list(program);
        let wanted = wanted.strip_suffix(']').unwrap_or(&wanted);
        let is_same = has.strip_prefix(wanted).is_some_and(|rest| rest.starts_with([',', ']']));
        (!is_same).then_some(has)
    }
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Texts as Python shows a list of them.
pub(super) fn list(texts: &[String]) -> String {
    let shown: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", shown.join(", "))
}

/// Sends a command. `None`: no manager answers.
pub(super) fn send(socket: &Path, command: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    stream.write_all(format!("{command}\n").as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LEN_MAX).read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_zdaemon_are_understood() {
        let text = "status=running\nnow=1795997010.22766\nshould_be_up=1\ndelay=0\nbackoff=0\napplication=23985\n\
                    testing=0\nfilename='/usr/bin/runzeo'\nargs=['/usr/bin/runzeo', '-C', \"it's\"]\n";
        let status = Status::read(text.into()).unwrap();
        assert_eq!((status.pid, status.should_be_up, status.testing), (23985, true, false));
        let program = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        assert_eq!(status.other_program(&program(&["/usr/bin/runzeo"])), None, "more arguments may follow");
        assert_eq!(status.other_program(&program(&["/usr/bin/runzeo", "-C", "it's"])), None);
        let other = status.other_program(&program(&["/usr/bin/run"]));
        assert_eq!(other, Some("['/usr/bin/runzeo', '-C', \"it's\"]"));
        assert_eq!(Status::read("Unknown command 'status'\n".into()), None);
    }
}
