//! How much room there is in the file systems of the storages, and how that changes, for monitoring;
//! [`disk_watch`](super::disk_watch) asks them.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::base::sync::{Mutex, rank};
use crate::server::disk_trend::{DiskTrend, FreeChange};

/// What a directory is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskUse {
    /// The file of a storage.
    Data,
    Blobs,
    /// Large transactions before their vote.
    Temporary,
}

/// A directory that must not run out of space.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DiskPlace {
    /// The name of the storage, if it is one's.
    pub storage: Option<String>,
    pub usage: DiskUse,
    pub directory: PathBuf,
}

/// A directory, and the room in its file system.
#[derive(Clone, Debug)]
pub struct DiskSpace {
    pub place: DiskPlace,
    /// `None`: it could not be asked.
    pub room: Option<Room>,
    /// `None`: it is not known yet.
    pub change: Option<FreeChange>,
}

/// The room in a file system, in bytes, as it was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// For users without privileges.
    pub free: u64,
    pub total: u64,
    pub at: SystemTime,
}

/// The file systems of a server.
#[derive(Debug, Default)]
pub struct DiskSpaces {
    known: Mutex<Vec<(DiskSpace, DiskTrend)>, rank::DiskSpaces>,
}

impl DiskSpaces {
    /// All directories, in the order in which they were given.
    pub fn all(&self) -> Vec<DiskSpace> {
        self.known.lock().iter().map(|(disk, _)| disk.clone()).collect()
    }

    /// Begins with these directories, about which nothing is known yet.
    pub fn set(&self, places: Vec<DiskPlace>) {
        let unknown = |place| (DiskSpace { place, room: None, change: None }, DiskTrend::default());
        *self.known.lock() = places.into_iter().map(unknown).collect();
    }

    /// Asks all file systems, one after the other. It may hang.
    pub fn ask(&self, now: SystemTime) {
        for (index, disk) in self.all().into_iter().enumerate() {
            let room = rustix::fs::statvfs(&disk.place.directory).ok().map(|found| Room {
                free: found.f_bavail.saturating_mul(found.f_frsize),
                total: found.f_blocks.saturating_mul(found.f_frsize),
                at: now,
            });
            if let Some((known, trend)) = self.known.lock().get_mut(index) {
                known.room = room;
                if let Some(Room { free, total, at }) = room {
                    trend.note(at, free, total);
                    known.change = trend.change();
                }
            }
        }
    }
}
