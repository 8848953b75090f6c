//! One read of an object: the request, and the frame that answers it.

use crate::base::ids::{Oid, Tid};
use crate::base::level::ERROR;
use crate::base::memory::{not_granted, within};
use crate::exceptions;
use crate::server::client_log;
use crate::server::registered::Registered;
use crate::storage::StorageError;
use crate::wire::reply::LoadShape;
use crate::wire::request::OwnedMsgId;

/// A question about one object.
#[derive(Clone, Debug)]
pub struct Read {
    pub id: OwnedMsgId,
    pub oid: Oid,
    pub wanted: Wanted,
}

/// The requested value.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// The revision before a tid, in the shape of the call.
    Before(Tid, LoadShape),
    /// The data of this serial.
    Serial(Tid),
    /// The current serial.
    Tid,
}

impl Wanted {
    /// The method of the protocol.
    pub fn method(self) -> &'static str {
        match self {
            Wanted::Before(_, LoadShape::Before) => "loadBefore",
            Wanted::Before(_, LoadShape::LoadEx) => "loadEx",
            Wanted::Before(_, LoadShape::ZeoLoad) => "zeoLoad",
            Wanted::Before(..) => "load",
            Wanted::Serial(_) => "loadSerial",
            Wanted::Tid => "getTid",
        }
    }
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskWait {
    No,
    Yes,
}

/// Why there is no reply yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotYet {
    /// It would have to wait for the disk.
    Disk,
    /// It needs about this many bytes of memory, see [`large`](super::large).
    Large(usize),
}

/// Appends the frame that answers `read`, from the storage's present state, if that takes no more memory than
/// `len_max`.
pub fn reply(
    registered: &Registered,
    read: &Read,
    disk_wait: DiskWait,
    len_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), NotYet> {
    let Registered { hosted, connection, .. } = registered;
    let wire = connection.wire();
    let id = read.id.get();
    let start = out.len();
    let headroom = wire.load_headroom(id);
    let result = match read.wanted {
        Wanted::Before(before, shape) => {
            let storage = &hosted.storage;
            let loaded = within(len_max, || match disk_wait {
                DiskWait::No => storage.load_before_now(read.oid, before, headroom, out).ok_or(NotYet::Disk),
                DiskWait::Yes => Ok(storage.load_before(read.oid, before, headroom, out)),
            })?;
            match loaded {
                Ok(Some(loaded)) => {
                    wire.load_reply(shape, id, loaded.serial, loaded.end, out, start, loaded.start);
                    return Ok(());
                }
                Ok(None) if matches!(shape, LoadShape::Before) => {
                    out.truncate(start);
                    wire.none_reply(id, out);
                    return Ok(());
                }
                Ok(None) => Err(StorageError::PosKey(read.oid)),
                Err(error) => Err(error),
            }
        }
        Wanted::Serial(serial) => {
            match within(len_max, || hosted.storage.load_serial(read.oid, serial, headroom, out)) {
                Ok(loaded) => {
                    wire.load_reply(
                        LoadShape::Serial,
                        id,
                        loaded.serial,
                        loaded.end,
                        out,
                        start,
                        loaded.start,
                    );
                    return Ok(());
                }
                Err(error) => Err(error),
            }
        }
        Wanted::Tid => hosted.storage.get_tid(read.oid),
    };
    out.truncate(start);
    match result {
        Ok(tid) => wire.tid_reply(id, tid, out),
        Err(error) => {
            if let Some(wanted) = memory_wanted(&error) {
                return Err(NotYet::Large(wanted));
            }
            // At a stop the storage may be closed before the last of these.
            if !matches!(error, StorageError::PosKey(_) | StorageError::Disconnected(_))
                && !connection.outbox.is_closed()
            {
                let message = format_args!("Can't read object 0x{}: {error}", read.oid);
                connection.peer.log(&client_log::READS, ERROR, message);
            }
            connection.put_error(id, &exceptions::of_storage_error(&error), out);
        }
    }
    Ok(())
}

/// The memory that a read needs, in bytes, if the error is that it was not granted.
pub fn memory_wanted(error: &StorageError) -> Option<usize> {
    match error {
        StorageError::Io { error, .. } => not_granted(error),
        _ => None,
    }
}
