//! Data files as the tools read them: any bytes are walked through to the end, with findings; and what they show of
//! records.

use std::path::Path;
use std::sync::Arc;

use runzeo::ids::Tid;
use runzeo::internal::inspect::{Check, CheckOptions, Count, DataFile, Member, Search, state};

/// Upper bound on what is shown of a record.
const SHOWN_MAX: usize = 4 << 20;

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
    if let Ok(search) =
        Search::run(vec![Member { name: "one".into(), file: &file }], Tid(u64::MAX), &[], &mut |_| {})
    {
        assert!(search.object_count(0) * 42 <= data.len() as u64);
    }
    // What follows the header of a record.
    for start in [0, 46, 93] {
        if let Some(Ok(state)) = data.get(start..).map(state) {
            assert!(state.to_string().len() <= SHOWN_MAX);
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    super::data_files("Data.fs")
}
