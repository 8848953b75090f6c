//! The blobs that a server is sending on one link. Several may be on their way at once, and their chunks may be mixed.

use std::collections::HashMap;
use std::io;

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, rank};
use crate::storage::blob::cache::BlobDownload;

/// What arrives on one link: the thread that reads the link calls `started`, `chunk` and `stopped`.
#[derive(Default)]
pub struct IncomingBlobs(Mutex<HashMap<(Oid, Tid), Arrival>, rank::IncomingBlobs>);

/// A blob that the server was asked for.
struct Arrival {
    download: BlobDownload,
    state: ArrivalState,
}

enum ArrivalState {
    Asked,
    Started,
    Complete,
    /// It could not be stored.
    Failed(io::Error),
}

impl IncomingBlobs {
    /// The server will be asked for this blob.
    pub(super) fn expect(&self, download: BlobDownload) {
        let blob = (download.oid(), download.serial());
        self.0.lock().insert(blob, Arrival { download, state: ArrivalState::Asked });
    }

    /// The server has answered, or will not any more. The download, and whether the blob is complete.
    pub(super) fn take(&self, oid: Oid, serial: Tid) -> Option<(BlobDownload, io::Result<bool>)> {
        let Arrival { download, state } = self.0.lock().remove(&(oid, serial))?;
        let is_complete = match state {
            ArrivalState::Asked | ArrivalState::Started => Ok(false),
            ArrivalState::Complete => Ok(true),
            ArrivalState::Failed(error) => Err(error),
        };
        Some((download, is_complete))
    }

    /// `receiveBlobStart`. What nobody has asked for is ignored, here and below: the caller has given up.
    pub fn started(&self, oid: Oid, serial: Tid) {
        if let Some(arrival) = self.0.lock().get_mut(&(oid, serial)) {
            arrival.state = match arrival.download.restart() {
                Ok(()) => ArrivalState::Started,
                Err(error) => ArrivalState::Failed(error),
            };
        }
    }

    /// `receiveBlobChunk`
    pub fn chunk(&self, oid: Oid, serial: Tid, chunk: &[u8]) {
        if let Some(Arrival { download, state }) = self.0.lock().get_mut(&(oid, serial))
            && matches!(state, ArrivalState::Started)
            && let Err(error) = download.write(chunk)
        {
            *state = ArrivalState::Failed(error);
        }
    }

    /// `receiveBlobStop`
    pub fn stopped(&self, oid: Oid, serial: Tid) {
        if let Some(Arrival { state, .. }) = self.0.lock().get_mut(&(oid, serial))
            && matches!(state, ArrivalState::Started)
        {
            *state = ArrivalState::Complete;
        }
    }
}
