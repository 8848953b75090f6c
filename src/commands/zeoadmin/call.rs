//! The admin socket of a server, and one request there.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use getopts::{Matches, Options};
use serde_json::Value;

use crate::base::untrusted::one_line;
use crate::commands::subcommand::Trouble;
use crate::config::admin_socket_of;
use crate::storage::StorageKinds;

/// The socket of the packaged server.
pub(super) const DEFAULT: &str = "/run/zeo/admin";
/// The variable that sets the server's key, too.
const VARIABLE: &str = "RUNZEO_ADMIN_SOCKET";
/// Longest line of an answer that is accepted, in bytes.
const LINE_MAX: u64 = 256 << 20;

/// The options of every command.
pub(super) fn options(options: &mut Options) {
    options.optopt("s", "socket", "", "").optopt("C", "configure", "", "").optflag("", "json", "");
}

/// The server of the command line.
pub(super) struct Target {
    path: PathBuf,
}

impl Target {
    pub(super) fn of(matches: &Matches) -> Result<Target, Trouble> {
        let path = match (matches.opt_str("socket"), matches.opt_str("configure")) {
            (Some(_), Some(_)) => return Err(Trouble::Usage("use either -s or -C".into())),
            (Some(path), None) => path.into(),
            (None, Some(file)) => {
                let own = StorageKinds::default();
                let found = admin_socket_of(&own, &file, &|name| std::env::var(name).ok());
                found.map_err(Trouble::Failed)?.ok_or_else(|| {
                    Trouble::Failed(format!(
                        "{file} has no admin-socket: add 'admin-socket {DEFAULT}' to <zeo>, there or in a file of \
                         zeo.conf.d, and restart the server. A server that systemd has started with the unit of this \
                         package has it: leave out -C"
                    ))
                })?
            }
            (None, None) => match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
                Some(path) => path.into(),
                None => DEFAULT.into(),
            },
        };
        Ok(Target { path })
    }

    /// Sends a request, and waits for its result. `progress` is called with what comes before it.
    pub(super) fn call(&self, request: &Value, mut progress: impl FnMut(&Value)) -> Result<Value, Trouble> {
        let failed = |error: io::Error| {
            let help = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ". Is the server running, and is this its admin-socket? (-s, -C)"
                }
                io::ErrorKind::PermissionDenied => ". Only root and the user of the server may use it",
                _ => "",
            };
            Trouble::Failed(format!("{}: {error}{help}", self.path.display()))
        };
        let mut stream = UnixStream::connect(&self.path).map_err(failed)?;
        match stream.write_all(format!("{request}\n").as_bytes()) {
            // A server that refuses the caller does not read the request, and its answer says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(failed)?,
        }
        let mut answers = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            answers.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).map_err(failed)?;
            if line.is_empty() {
                return Err(failed(io::Error::other("the server ended the connection without an answer")));
            }
            let answer: Value = serde_json::from_slice(&line)
                .map_err(|error| failed(io::Error::other(format!("the answer is not JSON: {error}"))))?;
            if let Some(result) = answer.get("result") {
                return Ok(result.clone());
            }
            match answer.get("error") {
                Some(error) => {
                    let error = error.as_str().unwrap_or("the server gives no reason");
                    return Err(Trouble::Failed(one_line(2000, format_args!("{error}"))));
                }
                None => progress(answer.get("progress").unwrap_or(&Value::Null)),
            }
        }
    }
}

/// Prints a result as it came, if `--json` is given.
pub(super) fn print_json(out: &mut dyn Write, matches: &Matches, result: &Value) -> io::Result<bool> {
    let wanted = matches.opt_present("json");
    if wanted {
        writeln!(out, "{result}")?;
    }
    Ok(wanted)
}

/// An error if there is an argument.
pub(super) fn no_argument(matches: &Matches) -> Result<(), Trouble> {
    match matches.free.first() {
        None => Ok(()),
        Some(first) => Err(Trouble::Usage(format!("'{first}' is one argument too many"))),
    }
}

/// The only free argument. `None`: there is none.
pub(super) fn one_argument(matches: &Matches) -> Result<Option<&str>, Trouble> {
    match matches.free.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        [_, second, ..] => Err(Trouble::Usage(format!("'{second}' is one argument too many"))),
    }
}
