//! The targets, one a file.

pub mod data_fs;
pub mod frame;
pub mod index;
pub mod message;
pub mod pickle;
pub mod zconfig;

/// The payloads that real clients and servers sent, from `python-fixtures/wire`.
pub(crate) fn recorded_payloads() -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let Ok(entries) = std::fs::read_dir(crate::root().join("python-fixtures/wire")) else { return payloads };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_none_or(|extension| extension != "frames") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for line in text.lines() {
            let hex = line.rsplit(' ').next().unwrap_or_default();
            let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
            payloads.push((0..hex.len()).step_by(2).filter_map(byte).collect());
        }
    }
    // what differs in numbers only is worth no seed of its own
    payloads.sort_by_key(|payload: &Vec<u8>| payload.len());
    payloads.dedup_by_key(|payload| (payload.len(), payload.get(6..14).map(<[u8]>::to_vec)));
    payloads
}

/// The files of this name that each Python wrote, from `python-fixtures/data-fs`.
pub(crate) fn data_files(name: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(crate::root().join("python-fixtures/data-fs")) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path().join(name))).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}
