//! The targets, one per file.

pub mod answers;
pub mod auth;
pub mod backup;
pub mod cluster;
pub mod data_fs;
pub mod frame;
pub mod index;
pub mod inspect;
pub mod mac;
pub mod message;
pub mod msgpack;
pub mod pem;
pub mod pickle;
pub mod postgres_dsn;
pub mod postgres_server;
pub mod resolve;
pub mod session;
pub mod side_files;
pub mod sums;
pub mod zconfig;
pub mod zrs;

use runzeo::internal::wire::protocol::{Dialect, Encoding, Generation, Wire};

const GENERATIONS: [&str; 10] = ["Z5", "Z4", "Z3101", "Z310", "Z309", "Z308", "Z303", "Z201", "Z200", "M5"];

/// The wire that the first byte of an input stands for.
pub(crate) fn wire_of(choice: u8) -> Wire {
    let name = GENERATIONS[usize::from(choice & 0x0f) % GENERATIONS.len()];
    let encoding = match (name, choice & 0x10) {
        ("M5", _) => Encoding::Msgpack,
        (_, 0) => Encoding::Pickle(Dialect::Python3),
        _ => Encoding::Pickle(Dialect::Python2),
    };
    Wire { generation: Generation::parse(name.as_bytes()).unwrap_or(Generation::Z5), encoding }
}

/// An input of a payload, with a first byte for its encoding.
pub(crate) fn with_choice(payload: &[u8]) -> Vec<u8> {
    let choice = match payload {
        [0x80, ..] => 0,
        [b'(', ..] => 0x12,
        _ => 9,
    };
    [&[choice][..], payload].concat()
}

/// Payloads from real clients and servers, from `python-fixtures/wire`.
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
    // payloads that differ only in numbers need no seeds of their own
    payloads.sort_by_key(|payload: &Vec<u8>| payload.len());
    payloads.dedup_by_key(|payload| (payload.len(), payload.get(6..14).map(<[u8]>::to_vec)));
    payloads
}

/// The files with this name from each Python, from `python-fixtures/data-fs`.
pub(crate) fn data_files(name: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(crate::root().join("python-fixtures/data-fs")) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path().join(name))).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// A directory of this process, in memory if there is such a file system. Directories of processes that have ended are
/// removed: a fuzzer may be killed at any time.
pub(crate) fn directory(name: &str) -> std::path::PathBuf {
    const PREFIX: &str = "runzeo-fuzz-";
    let shm = std::path::PathBuf::from("/dev/shm");
    let top = if shm.is_dir() { shm } else { std::env::temp_dir() };
    for entry in std::fs::read_dir(&top).into_iter().flatten().flatten() {
        let owner = entry
            .file_name()
            .to_string_lossy()
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let proc = std::path::Path::new("/proc");
        if owner.is_some_and(|pid| proc.is_dir() && !proc.join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let directory = top.join(format!("{PREFIX}{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    directory
}
