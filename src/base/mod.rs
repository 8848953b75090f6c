//! What every other module stands on: identifiers, time, bytes, files. Knows nothing of ZEO.

pub mod bytes;
pub mod clock;
pub mod fs;
pub mod ids;
pub mod timestamp;
