//! What every other module stands on: identifiers, time, bytes, files. Knows nothing of ZEO.

pub mod address;
pub mod ids;
pub mod sync;
pub mod timestamp;
