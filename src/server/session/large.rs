//! Records of more than a megabyte: each is read when its share of the memory for such is free, see
//! [`crate::server::record_memory`].

use std::io;

use crate::base::memory::{LARGE, within};
use crate::server::record_memory::MemoryShare;
use crate::server::registered::Registered;
use crate::server::session::read::{DiskWait, NotYet, Read, memory_wanted, reply};
use crate::storage::{Result, StorageError};

/// Reads, queues and sends the reply to a load that needs about `wanted` bytes. Waits for its share of the memory,
/// and until the client has taken the reply.
pub fn answer(registered: &Registered, read: &Read, mut wanted: usize) {
    let Registered { hosted, connection, .. } = registered;
    let outbox = &connection.outbox;
    while let Some(share) = hosted.workers.record_memory.take(wanted, outbox) {
        let mut out = Vec::new();
        let seen = hosted.publication.seen();
        match reply(registered, read, DiskWait::Yes, share.len, &mut out) {
            Err(NotYet::Large(more)) => {
                wanted = more;
                continue;
            }
            // It waits for the disk.
            Ok(()) | Err(NotYet::Disk) => {}
        }
        let place = hosted.publication.place_if_newest(seen, outbox).or_else(|| {
            let (place, count) =
                hosted.publication.place_for_untouched(seen, outbox, std::iter::once(read.oid));
            (count > 0).then_some(place)
        });
        // Otherwise the object has changed since, and is read again.
        if let Some(place) = place {
            outbox.post_own(place, out);
            outbox.wait_until_sent();
            return;
        }
    }
}

/// Runs a call that reads a record; if the record is large, again with its share of the memory. The share is to be
/// kept until the record was sent.
pub fn with_share<T>(
    registered: &Registered,
    mut call: impl FnMut() -> Result<T>,
) -> (Result<T>, Option<MemoryShare>) {
    let Registered { hosted, connection, .. } = registered;
    let mut share: Option<MemoryShare> = None;
    loop {
        let len_max = share.as_ref().map_or(LARGE, |share| share.len);
        let result = within(len_max, &mut call);
        let Some(wanted) = result.as_ref().err().and_then(memory_wanted) else { return (result, share) };
        // A thread that waits for a share holds none.
        drop(share.take());
        share = hosted.workers.record_memory.take(wanted, &connection.outbox);
        if share.is_none() {
            let gone = StorageError::io("reading a large record")(io::ErrorKind::NotConnected.into());
            return (Err(gone), None);
        }
    }
}
