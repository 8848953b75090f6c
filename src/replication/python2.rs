//! Which Python has written a record: the first transaction of a file decides whether Python 2 can open it.

use crate::storage::transform::Codec;
use crate::storage::transform::zlib::Zlib;

/// Whether Python 2 has written the record: Python 3 has always used protocol 3 or later. It may be compressed, and
/// have up to `len_max` bytes then.
pub fn is_of_python2(record: &[u8], len_max: usize) -> bool {
    let decoded = Zlib { compress: false }.decode(record, len_max);
    decoded.is_ok_and(|record| !matches!(&*record, [0x80, 3..=u8::MAX, ..]))
}
