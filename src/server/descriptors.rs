//! How the process's file descriptors are divided: clients, files that clients keep open, and the rest.
//!
//! The storages open files at any time (a pack, an index that is saved, a large directory to be synced), and a client
//! must not be able to take the last descriptor from them. So each purpose has a share, and no use exceeds its share.

use std::io;

use crate::base::sync::{Arc, AtomicUsize, Ordering};
use crate::server::client_log::LOG;
use crate::server::limits::Limits;
use crate::storage::staged::{FilePermit, FilePermits};

/// For logs, storages, helpers and listening sockets.
const KEPT: usize = 64;
/// With fewer descriptors in all, the shares are small, and the log says so.
const FEW: usize = 256;

/// The number of descriptors for each purpose.
#[derive(Debug)]
pub struct Descriptors {
    /// Upper bound for the process.
    total: usize,
    /// Blobs on their way to clients. A blob without a share is opened again for each part.
    pub downloads: Share,
    /// Blobs from clients, and temporary files of large transactions. Those without a share are refused at vote.
    pub files: Share,
}

/// What the limits leave for connections.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// Upper bound for the process.
    pub total: usize,
    /// Connections that have not registered.
    pub unregistered: usize,
    /// Clients.
    pub connections: usize,
    /// Whether these limit the connections: `max-connections` is larger or not set.
    pub limits_connections: bool,
    /// For the other two purposes.
    files: usize,
}

/// A number of descriptors that may be taken at the same time.
#[derive(Clone, Debug)]
pub struct Share(Arc<Places>);

#[derive(Debug)]
struct Places {
    max: AtomicUsize,
    taken: AtomicUsize,
}

/// One of a share, until it is dropped.
#[derive(Debug)]
pub struct Taken(Arc<Places>);

impl Descriptors {
    /// Divides `total` under these limits.
    pub fn divide(total: usize, limits: &Limits) -> (Descriptors, Division) {
        let division = Division::of(total, limits);
        let [downloads, files] = division.shares().map(Share::of);
        (Descriptors { total, downloads, files }, division)
    }

    /// Divides them under other limits. What is taken stays taken.
    pub fn divide_again(&self, limits: &Limits) -> Division {
        let division = Division::of(self.total, limits);
        let [downloads, files] = division.shares();
        self.downloads.resize(downloads);
        self.files.resize(files);
        division
    }
}

impl Division {
    fn of(total: usize, limits: &Limits) -> Division {
        let unregistered = limits.unregistered.min(total / 4).max(1);
        let rest = total.saturating_sub(unregistered + KEPT.min(total / 3));
        let connections_max = (rest - rest / 4).max(1);
        let connections = limits.connections.unwrap_or(usize::MAX).min(connections_max);
        let limits_connections = connections == connections_max;
        let files = rest.saturating_sub(connections);
        Division { total, unregistered, connections, limits_connections, files }
    }

    /// Of downloads and of files.
    fn shares(&self) -> [usize; 2] {
        [self.files / 2, self.files - self.files / 2].map(|share| share.max(1))
    }

    /// Logs which limits exceed the limit of open files.
    pub fn log(&self, limits: &Limits) {
        let Division { total, connections, .. } = self;
        match limits.connections {
            Some(wanted) if wanted > *connections => log::warn!(
                target: LOG,
                "max-connections {wanted} is more than the limit of open files ({total}) permits: {connections} is used instead"
            ),
            _ if *total < FEW => log::warn!(
                target: LOG,
                "The limit of open files is {total} (ulimit -n, LimitNOFILE): at most {connections} clients can connect, and \
                 only a few of them can store large transactions or transfer blobs at a time"
            ),
            _ => {}
        }
    }
}

impl Share {
    pub fn of(count: usize) -> Share {
        Share(Arc::new(Places { max: AtomicUsize::new(count), taken: AtomicUsize::new(0) }))
    }

    /// `None`: all are taken.
    pub fn take(&self) -> Option<Taken> {
        let Places { max, taken } = &*self.0;
        let max = max.load(Ordering::Relaxed);
        let more = |taken: usize| (taken < max).then(|| taken + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Taken(Arc::clone(&self.0)))
    }

    /// Changes their number.
    fn resize(&self, count: usize) {
        self.0.max.store(count, Ordering::Relaxed);
    }
}

impl FilePermits for Share {
    fn take(&self) -> io::Result<Box<dyn FilePermit>> {
        let taken = Share::take(self).ok_or_else(too_many_files)?;
        Ok(Box::new(taken))
    }
}

impl FilePermit for Taken {}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The error if no descriptor is free for a blob or a large transaction.
pub fn too_many_files() -> io::Error {
    io::Error::other(
        "too many blobs and large transactions are under way for the limit of open files (ulimit -n, LimitNOFILE)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_have_all_of_them() {
        for total in [10, 16, 64, 100, 256, 1024, 4096, 1 << 20] {
            for connections in [None, Some(1), Some(100), Some(1 << 30)] {
                let limits = Limits { connections, ..Limits::default() };
                let (shared, all) = Descriptors::divide(total, &limits);
                let shares =
                    || [&shared.downloads, &shared.files].map(|share| share.0.max.load(Ordering::Relaxed));
                let fits = |all: Division| {
                    assert!(shares().iter().all(|&share| share > 0) && all.connections > 0, "{all:?}");
                    let taken = all.unregistered + all.connections + shares().iter().sum::<usize>();
                    assert!(taken + KEPT.min(total / 4) <= total, "{all:?}");
                };
                fits(all);
                fits(shared.divide_again(&Limits { connections: None, ..Limits::default() }));
            }
        }
    }

    #[test]
    fn a_share_has_an_end() {
        let share = Share::of(2);
        let taken = [share.take(), share.take()];
        assert!(taken.iter().all(Option::is_some) && share.take().is_none());
        share.resize(1);
        drop(taken);
        let one = share.take();
        assert!(one.is_some() && share.take().is_none());
        share.resize(2);
        assert!(share.take().is_some());
    }
}
