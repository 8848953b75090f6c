//! The blob that is being received on a connection.

use crate::server::descriptors::Taken;
use crate::storage::blob::Upload;

/// A blob that the client is sending. Messages do not say which blob they belong to, so there can only be one.
#[derive(Default)]
pub enum Receiving {
    #[default]
    Nothing,
    Blob(Upload, Taken),
    /// It has failed and vote will say so; the rest of it is thrown away.
    Failed,
}
