//! Disk space for voted transactions, reserved before they are written, so that a full disk is an error of the vote.
//!
//! The file's length does not change by this: what is reserved lies behind its end and is given back at close.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::media::MediaFile;
use crate::storage::{Result, StorageError};

/// Reserve so much more than is needed, to do it rarely.
const AHEAD: u64 = 4 << 20;

/// See the module.
pub struct Space {
    state: Arc<Mutex<State>>,
}

struct State {
    file: Arc<dyn MediaFile>,
    /// Where the next transaction will be appended.
    end: u64,
    /// Voted and not written yet.
    outstanding: u64,
    /// Reserved up to here.
    until: u64,
    /// The file system can do it.
    supported: bool,
}

/// Space for one transaction; given back when dropped.
pub struct Reservation {
    state: Arc<Mutex<State>>,
    len: u64,
}

impl Space {
    pub fn new(file: Arc<dyn MediaFile>, end: u64) -> Space {
        let state = State { file, end, outstanding: 0, until: end, supported: true };
        Space { state: Arc::new(Mutex::new(state)) }
    }

    /// Where a transaction would begin that finished after all that are voted now.
    pub fn likely_end(&self) -> u64 {
        let state = lock(&self.state);
        state.end + state.outstanding
    }

    /// Makes sure that `len` more bytes can be written.
    pub fn reserve(&self, path: &Path, len: u64) -> Result<Reservation> {
        let mut state = lock(&self.state);
        let need = state.end + state.outstanding + len;
        if state.supported && need > state.until {
            let from = state.until.max(state.end);
            let reserved = match state.file.reserve(from, need - from + AHEAD) {
                Ok(true) => Ok(need + AHEAD),
                Ok(false) => {
                    state.supported = false;
                    Ok(need)
                }
                // Not so much: perhaps just enough.
                Err(_) => state.file.reserve(from, need - from).map(|_| need),
            };
            state.until = reserved.map_err(|error| StorageError::Io {
                doing: format!("{}: no room for {len} bytes", path.display()),
                error,
            })?;
        }
        state.outstanding += len;
        Ok(Reservation { state: self.state.clone(), len })
    }

    /// The file now ends here, its reserved part beyond it is as it was.
    pub fn appended(&self, end: u64) {
        lock(&self.state).end = end;
    }

    /// The file was cut off here, which gives back all that was reserved.
    pub fn cut(&self, end: u64) {
        let mut state = lock(&self.state);
        state.end = end;
        state.until = end;
    }

    /// Another file takes the place of the one so far; it ends here. What is reserved is reserved there too, if there is
    /// room: a pack has just made some.
    pub fn moved(&self, file: Arc<dyn MediaFile>, end: u64) {
        let mut state = lock(&self.state);
        let need = state.outstanding + AHEAD;
        let reserved = state.supported && matches!(file.reserve(end, need), Ok(true));
        state.file = file;
        state.end = end;
        state.until = if reserved { end + need } else { end };
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.state).outstanding -= self.len;
    }
}

// Plain numbers, changed together: a panic elsewhere cannot leave them half done.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
