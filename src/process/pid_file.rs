//! The file with the number of the server's process, where scripts look for it.
//!
//! Written when the address is known to be free and before the storages are opened, by a server that may
//! write; removed when the guard is dropped. Neither is worth not serving for: what fails is logged.

use std::io;
use std::path::{Path, PathBuf};

const LOGGER: &str = "ZEO.runzeo";

/// Removes the file at its end, if it still is ours.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file, replacing one that is there: it is a dead process's, since the address is free. Without
    /// a path that is noted for whoever looks for the reason.
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

    /// False if there is none, or another server's: it was started while we were stopping.
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
    // Not written over in place: the old one may be a link, or belong to somebody else.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::write(path, content(pid))
}

fn content(pid: u32) -> String {
    format!("{pid}\n")
}
