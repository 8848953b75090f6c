//! Data files as the tools read them: any bytes are walked through to the end, with findings.

use std::path::Path;
use std::sync::Arc;

use runzeo::ids::Tid;
use runzeo::internal::inspect::{Check, CheckOptions, Count, DataFile};

pub fn run(data: &[u8]) {
    let Ok(file) = DataFile::of(Path::new("Data.fs"), Arc::new(data.to_vec())) else { return };
    let mut check = Check::new(&file, CheckOptions::default());
    let mut last = check.pos();
    while let Ok(Some(_)) = check.next_findings() {
        assert!(check.pos() >= last && check.pos() <= file.end(), "{} of {}", check.pos(), file.end());
        last = check.pos();
    }
    assert!(check.checked().records * 42 <= data.len() as u64);
    let mut count = Count::new(&file, Tid::ZERO, Tid(u64::MAX), None);
    while let Ok(true) = count.next_part() {}
    count.finish(10);
}

pub fn seeds() -> Vec<Vec<u8>> {
    super::data_files("Data.fs")
}
