//! Asks for a password at the terminal, without showing it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// A new password: entered twice at the terminal, or else the first line of the standard input.
pub fn new_password() -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return first_line(io::stdin().lock());
    }
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let hidden = Hidden::start(terminal.try_clone()?)?;
    let mut reader = BufReader::new(terminal.try_clone()?);
    let mut ask = |what: &str| {
        (&terminal).write_all(what.as_bytes())?;
        let answer = first_line(&mut reader);
        // The line break that was typed is hidden too.
        (&terminal).write_all(b"\n")?;
        answer
    };
    let first = ask("Enter password: ")?;
    let again = ask("Enter password again: ")?;
    drop(hidden);
    if first != again {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the two passwords differ"));
    }
    Ok(first)
}

fn first_line(mut input: impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the input has ended"));
    }
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_string())
}

/// Turns off the echo of the terminal until it is dropped. A signal that ends the program restores the echo first.
struct Hidden {
    terminal: File,
    before: Termios,
    signals: signal_hook::iterator::Handle,
}

impl Hidden {
    fn start(terminal: File) -> io::Result<Hidden> {
        let before = tcgetattr(&terminal)?;
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        let hidden = Hidden { terminal, before, signals: signals.handle() };
        let (terminal, before) = (hidden.terminal.try_clone()?, hidden.before.clone());
        thread::spawn(move || {
            for signal in signals.forever() {
                restore(&terminal, &before);
                // Ends the program.
                let _ = emulate_default_handler(signal);
            }
        });
        let mut without_echo = hidden.before.clone();
        without_echo.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&hidden.terminal, OptionalActions::Flush, &without_echo)?;
        Ok(hidden)
    }
}

fn restore(terminal: &File, before: &Termios) {
    // An error means that the terminal is gone.
    let _ = tcsetattr(terminal, OptionalActions::Flush, before);
}

impl Drop for Hidden {
    fn drop(&mut self) {
        restore(&self.terminal, &self.before);
        self.signals.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_its_end() {
        assert_eq!(first_line(&b"a b \r\nc"[..]).unwrap(), "a b ");
        assert_eq!(first_line(&b"\n"[..]).unwrap(), "");
        assert_eq!(first_line(&b"a"[..]).unwrap(), "a");
        assert!(first_line(&b""[..]).is_err());
    }
}
