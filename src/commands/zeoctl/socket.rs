//! The control socket of a daemon manager. Its path exists as long as the manager runs, and only one has it.
//!
//! The socket is made under another name and then linked to its path, as zdaemon does: a link fails if the path exists,
//! so of two managers that start at once only one goes on, whichever program it is of.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::control::Status;
use crate::base::fs::with_suffix;

/// Of two managers that find a stale socket, one may remove the other's. More often than this is another reason.
const ATTEMPTS: usize = 5;

/// The socket, whose path is removed when it is dropped.
pub(super) struct ControlSocket {
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode of what is at the path.
    id: (u64, u64),
}

impl ControlSocket {
    /// Opens the socket. An error is a message.
    pub(super) fn open(path: &Path) -> Result<ControlSocket, String> {
        let path = std::path::absolute(path)
            .map_err(|error| format!("the control socket {}: {error}", path.display()))?;
        let temporary = with_suffix(&path, &format!(".{}", std::process::id()));
        let result = open(&path, &temporary);
        // It is there only after an error in between, or if the link was made.
        let _ = fs::remove_file(&temporary);
        let (listener, id) = result?;
        Ok(ControlSocket { listener, path, id })
    }
}

fn open(path: &Path, temporary: &Path) -> Result<(UnixListener, (u64, u64)), String> {
    let failed = |error: io::Error| format!("the control socket {} cannot be made: {error}", path.display());
    let _ = fs::remove_file(temporary);
    let listener = UnixListener::bind(temporary).map_err(failed)?;
    // Who may connect may stop the program.
    fs::set_permissions(temporary, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    for _ in 0..ATTEMPTS {
        match fs::hard_link(temporary, path) {
            Ok(()) => {
                let id = id_of(path).map_err(failed)?;
                return Ok((listener, id));
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            Err(_) => {}
        }
        let status = Status::of(path);
        if status.is_up {
            return Err(format!(
                "another daemon manager is already up using socket {}:\n{}",
                path.display(),
                status.text.trim_end()
            ));
        }
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(format!("{} is no socket: give another socket-name", path.display()));
            }
            _ => {}
        }
        match UnixStream::connect(path) {
            Ok(_) => {
                return Err(format!("{} is the socket of a process that gives no status", path.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        }
        eprintln!("Unlinking stale socket {}", path.display());
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Err(format!("the control socket {} exists again and again", path.display()))
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Not the one of another manager, which took this one for dead.
        if id_of(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_socket_and_a_stale_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zdsock");
        drop(UnixListener::bind(&path).unwrap());
        let socket = ControlSocket::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary name is left");
        drop(socket);
        assert!(!path.exists());
        let socket = ControlSocket::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of another").unwrap();
        drop(socket);
        assert!(path.exists());
        assert!(ControlSocket::open(&path).is_err_and(|why| why.contains("is no socket")));
        assert!(path.exists());
    }
}
