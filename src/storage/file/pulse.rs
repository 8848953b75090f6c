//! Whether transactions can be finished: for a watchdog, which restarts a server that hangs.
//!
//! If no thread leads, the caller leads, writes to the disk and syncs, as a commit does; a disk that hangs holds it up.
//! It must not do so beside a leader: the kernel reports a failed write to one sync only, and the leader has to see it.
//! If a thread leads, it is to be seen later whether it still does.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Core;
use super::lead::Tried;
use super::log::TARGET;
use crate::storage::Pulse;

impl Core {
    /// See [`Storage::pulse`](crate::storage::Storage::pulse).
    pub fn pulse(&self) -> Pulse {
        // After a failed sync nothing is written any more, and reads go on.
        if self.broken().is_some() {
            return Pulse::Beats;
        }
        match self.group.try_alone() {
            Tried::Closed => Pulse::Beats,
            // Other servers are waited for, and may take long. The disk had its turn before.
            Tried::Led(_) if self.gate.is_waiting() => Pulse::Beats,
            Tried::Led(passed) => Pulse::Busy(passed),
            Tried::Leads => {
                if catch_unwind(AssertUnwindSafe(|| self.touch_disk())).is_err() {
                    self.set_broken("a panic interrupted a sync".into());
                }
                self.group.pass_on();
                Pulse::Beats
            }
        }
    }

    /// For the leader. A sync of a file without changes need not reach the disk, so the note is written with what it
    /// has. A disk that fails or is full does not hang: a failed sync makes the storage read-only, as in a commit.
    fn touch_disk(&self) {
        if let Err(error) = self.volume.get_owned().log.file().sync() {
            self.set_broken(format!("a sync failed: {error}"));
            return;
        }
        if let Some(note) = &self.note
            && let Err(error) = note.set_until(note.until())
        {
            log::warn!(target: TARGET, "{}.tmp cannot be written: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::storage::file::{FileStorage, FileStorageOptions};
    use crate::storage::prelude::*;

    #[test]
    fn one_leader_is_one_number_and_the_next_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(FileStorageOptions::new(directory.path().join("Data.fs"))).unwrap();
        assert_eq!(storage.pulse(), Pulse::Beats);
        let numbers: Vec<Pulse> = (0..2)
            .flat_map(|_| {
                let (told, pulses) = mpsc::channel();
                storage.core.lead_alone(|| {
                    for _ in 0..2 {
                        told.send(storage.pulse()).unwrap();
                    }
                });
                pulses.try_iter().collect::<Vec<_>>()
            })
            .collect();
        let [first, same, second, same_again] = numbers[..] else { panic!("{numbers:?}") };
        assert!(matches!(first, Pulse::Busy(_)) && first == same && second == same_again, "{numbers:?}");
        assert_ne!(first, second);
        assert_eq!(storage.pulse(), Pulse::Beats);
        storage.close().unwrap();
        assert_eq!(storage.pulse(), Pulse::Beats);
    }
}
