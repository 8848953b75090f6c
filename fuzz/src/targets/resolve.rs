//! Three arbitrary records of one object: the cost of merging is bounded by their length, and the result is a readable
//! record.

use runzeo::internal::conflict::native::{Merge, merge};
use runzeo::internal::pickle::read::{Accept, read};

/// The input: two lengths of two bytes, then the three records.
pub fn run(data: &[u8]) {
    let Some(([a, b, c, d], records)) = data.split_first_chunk() else { return };
    let middle = usize::from(u16::from_le_bytes([*a, *b])).min(records.len());
    let end = middle.saturating_add(usize::from(u16::from_le_bytes([*c, *d]))).min(records.len());
    let (old, committed, new) = (&records[..middle], &records[middle..end], &records[end..]);
    let Merge::Resolved(record) = merge(old, committed, new) else { return };
    assert!(record.len() <= 3 * records.len() + 2048, "{} of {}", record.len(), records.len());
    let class = read(&record, Accept::RECORD).map(|tree| tree.len());
    // The scanner copies parts from the client unchecked, the class above all; these may be invalid.
    if let Ok(class) = class {
        let again = merge(&record, &record, &record);
        assert!(!matches!(again, Merge::Unknown(ref why) if why.contains("unusual")), "{again:?} of {class}");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for name in ["py27.txt", "py311.txt"] {
        let path = crate::root().join("python-fixtures/resolve").join(name);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut records = line.split(' ').skip(1).map(|hex| {
                let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
                (0..hex.len()).step_by(2).filter_map(byte).collect::<Vec<u8>>()
            });
            let (Some(old), Some(committed), Some(new)) = (records.next(), records.next(), records.next())
            else {
                continue;
            };
            let len = |record: &[u8]| u16::try_from(record.len()).unwrap_or(0).to_le_bytes();
            seeds.push([&len(&old), &len(&committed), &old[..], &committed, &new].concat());
        }
    }
    seeds
}
