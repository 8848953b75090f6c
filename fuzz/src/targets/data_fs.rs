//! Data files: arbitrary bytes are scanned up to an offset within the file, or refused; a second scan of that part
//! finds the same.

use runzeo::internal::storage::file::{Tail, scan};

pub fn run(data: &[u8]) {
    // An empty file is a new one; the magic is checked before the scan.
    if data.len() < 4 {
        return;
    }
    let Ok(scanned) = scan(data) else { return };
    let end = usize::try_from(scanned.end).expect("a position in memory");
    assert!(end <= data.len(), "the end {end} is outside of {} bytes", data.len());
    assert!(scanned.last_tid <= scanned.max_tid);
    // Without the torn tail the file is complete.
    let again = scan(&data[..end]).expect("what was kept can be read");
    assert_eq!((again.end, again.last_tid, again.tail), (scanned.end, scanned.last_tid, Tail::Clean));
}

pub fn seeds() -> Vec<Vec<u8>> {
    super::data_files("Data.fs")
}
