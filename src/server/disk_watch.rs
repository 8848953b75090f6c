//! The thread that asks the file systems of the storages how much room they have, at intervals. A file system that
//! hangs holds up this thread alone: the numbers stay as they were, with the time at which they were found.

use std::io;
use std::thread;
use std::time::Duration;

use crate::base::sync::Arc;
use crate::server::Server;
use crate::server::disk_space::DiskPlace;

/// Interval at which the file systems are asked.
const PAUSE: Duration = Duration::from_secs(15);
const STACK: usize = 128 << 10;

impl Server {
    /// Asks the file systems of these directories how much room they have, now and then until the server stops.
    pub fn watch_disks(self: &Arc<Self>, places: Vec<DiskPlace>) -> io::Result<()> {
        self.disks().set(places);
        let server = Arc::clone(self);
        let run = move || {
            loop {
                server.disks().ask(server.clock().system_time());
                if server.watch_stop().wait(server.clock(), PAUSE) {
                    return;
                }
            }
        };
        thread::Builder::new().name("zeo-disks".into()).stack_size(STACK).spawn(run)?;
        Ok(())
    }
}
