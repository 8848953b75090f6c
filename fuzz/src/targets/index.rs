//! Index files in all layouts: arbitrary bytes are read in linear memory, or refused.

use runzeo::internal::storage::file::parse_index;

pub fn run(data: &[u8]) {
    let Ok(index) = parse_index(data) else { return };
    let count = index.objects().take(data.len() + 1).count();
    assert!(count <= data.len(), "{count} objects from {} bytes", data.len());
}

pub fn seeds() -> Vec<Vec<u8>> {
    super::data_files("Data.fs.index")
}
