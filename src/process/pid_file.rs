//! The pid file: the server's process id, for scripts.
//!
//! Written after the address is known to be free and before the storages are opened, unless the server is read-only;
//! removed when the guard is dropped. Failures are logged and do not stop the server.

use std::io;
use std::path::{Path, PathBuf};

const LOGGER: &str = "ZEO.runzeo";

/// Guard: removes the file when dropped, if it has this process's id.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file. An existing file is replaced: the address is free, so its process is dead. A missing path is
    /// logged at DEBUG.
    pub fn create(path: Option<&Path>) -> Option<PidFile> {
        let Some(path) = path else {
            log::debug!(target: LOGGER, "no PID file: neither 'pid-filename' nor INSTANCE_HOME says where");
            return None;
        };
        let pid = std::process::id();
        match write(path, pid) {
            Ok(()) => {
                log::info!(target: LOGGER, "({pid}) created PID file '{}'", path.display());
                Some(PidFile { path: path.to_path_buf() })
            }
            Err(error) => {
                log::error!(target: LOGGER, "PID file '{}' cannot be opened: {error}", path.display());
                None
            }
        }
    }

    /// `false` if the file is missing, or of another server, which was started while this one was stopping.
    fn remove(&self) -> io::Result<bool> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) if text == content(std::process::id()) => {
                std::fs::remove_file(&self.path).map(|()| true)
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let path = self.path.display();
        match self.remove() {
            Ok(true) => {
                log::info!(target: LOGGER, "({}) removed PID file '{path}'", std::process::id());
            }
            Ok(false) => {}
            Err(error) => log::error!(target: LOGGER, "PID file '{path}' could not be removed: {error}"),
        }
    }
}

fn write(path: &Path, pid: u32) -> io::Result<()> {
    // Replaced, not overwritten: the old file may be a link, or belong to another user.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::write(path, content(pid))
}

fn content(pid: u32) -> String {
    format!("{pid}\n")
}
