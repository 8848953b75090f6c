//! The files that servers have left: read record by record, and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A transaction in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Txn {
    pub tid: u64,
    pub status: u8,
    /// User, description, extension.
    pub meta: Vec<u8>,
    pub records: Vec<Record>,
}

/// A record: the object, its transaction, and the data, also if that is in an earlier transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    pub oid: u64,
    pub tid: u64,
    pub data: Option<Vec<u8>>,
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// All transactions of a `Data.fs`, which is whole.
pub fn transactions(path: &Path) -> Vec<Txn> {
    let bytes = fs::read(path).unwrap();
    let mut found = Vec::new();
    let mut at = 4;
    while at < bytes.len() {
        let len = u64_at(&bytes, at + 8) as usize;
        let end = at + len;
        assert_eq!(u64_at(&bytes, end) as usize, len, "{}: at {at}", path.display());
        let meta_len = u16_at(&bytes, at + 17) + u16_at(&bytes, at + 19) + u16_at(&bytes, at + 21);
        let meta = bytes[at + 23..at + 23 + meta_len].to_vec();
        let (tid, status) = (u64_at(&bytes, at), bytes[at + 16]);
        let mut pos = at + 23 + meta_len;
        let mut records = Vec::new();
        while pos < end {
            let data_len = u64_at(&bytes, pos + 34) as usize;
            let (oid, of) = (u64_at(&bytes, pos), u64_at(&bytes, pos + 8));
            records.push(Record { oid, tid: of, data: data_at(&bytes, pos) });
            pos += 42 + if data_len == 0 { 8 } else { data_len };
        }
        assert_eq!(pos, end, "{}: transaction at {at}", path.display());
        found.push(Txn { tid, status, meta, records });
        at = end + 8;
    }
    found
}

/// The data of the record at a position.
fn data_at(bytes: &[u8], pos: usize) -> Option<Vec<u8>> {
    match u64_at(bytes, pos + 34) as usize {
        0 => Some(u64_at(bytes, pos + 42) as usize)
            .filter(|back| *back != 0)
            .and_then(|back| data_at(bytes, back)),
        len => Some(bytes[pos + 42..pos + 42 + len].to_vec()),
    }
}

/// The blobs of a directory, by object and transaction.
pub type Blobs = BTreeMap<(u64, u64), Vec<u8>>;

/// All blobs of a directory with the layout `bushy`. Other files are in `others`.
pub fn blobs(dir: &Path, others: &mut BTreeSet<String>) -> Blobs {
    let mut found = Blobs::new();
    collect(dir, 0, 0, &mut found, others);
    found
}

fn collect(dir: &Path, oid: u64, depth: u32, found: &mut Blobs, others: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let part = name.strip_prefix("0x").and_then(|part| u64::from_str_radix(part, 16).ok());
        match (part, name.strip_suffix(".blob").and_then(|tid| tid.strip_prefix("0x"))) {
            (Some(part), _) if path.is_dir() => collect(&path, oid << 8 | part, depth + 1, found, others),
            (_, Some(tid)) if depth == 8 => {
                found.insert((oid, u64::from_str_radix(tid, 16).unwrap()), fs::read(&path).unwrap());
            }
            _ if path.is_dir() => {
                let left = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
                others.extend(left.map(|left| format!("blobs/{name}/{}", left.display())));
            }
            _ if name.starts_with('.') && depth == 0 => {}
            _ => drop(others.insert(format!("blobs/{name}"))),
        }
    }
}

/// What a server has left in its directory.
pub struct Left {
    pub transactions: Vec<Txn>,
    pub blobs: Blobs,
    /// The databases of what was taken back: transactions and blobs.
    pub kept: Vec<(Vec<Txn>, Blobs)>,
}

/// What is beside the database of a server that has been stopped.
const BESIDE: [&str; 12] = [
    "Data.fs",
    "Data.fs.index",
    "Data.fs.lock",
    "Data.fs.old",
    "Data.fs.replication",
    "Data.fs.sums",
    "Data.fs.tmp",
    "blobs",
    "blobs.old",
    "output.log",
    "zeo.conf",
    "zeo.log",
];

impl Left {
    /// Reads all, and checks that it is whole and that nothing else is there. `what` is for people.
    pub fn of(dir: &Path, what: &str) -> Left {
        let mut others = BTreeSet::new();
        let mut kept = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            match name.strip_prefix("Data.fs.lost-") {
                Some(id) if id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    let blob_dir = dir.join(format!("blobs.lost-{id}"));
                    let blobs = blobs(&blob_dir, &mut others);
                    kept.push((transactions(&dir.join(&name)), blobs));
                }
                None if BESIDE.contains(&&*name) || name.starts_with("blobs.lost-") => {}
                _ => drop(others.insert(name)),
            }
        }
        let (transactions, blobs) =
            (transactions(&dir.join("Data.fs")), blobs(&dir.join("blobs"), &mut others));
        assert!(others.is_empty(), "{what}: left over in {}: {others:?}", dir.display());
        for (found, there, whose) in [(&transactions, &blobs, "Data.fs")]
            .into_iter()
            .chain(kept.iter().map(|(found, there)| (found, there, "what was kept")))
        {
            let wanted: BTreeSet<_> = blob_records(found).collect();
            let there: BTreeSet<_> = there.keys().copied().collect();
            assert_eq!(wanted, there, "{what}: the blobs of {whose} in {}", dir.display());
        }
        let tested = Command::new(env!("CARGO_BIN_EXE_zeofs"))
            .args(["test", "Data.fs"])
            .current_dir(dir)
            .output()
            .expect("it runs");
        assert!(tested.status.success(), "{what}: {tested:?}");
        Left { transactions, blobs, kept }
    }

    /// Whether there is a transaction with this record.
    pub fn has(&self, tid: u64, oid: u64, data: &[u8]) -> bool {
        self.transactions.iter().any(|txn| has(txn, tid, oid, data))
    }

    /// The same in what was kept.
    pub fn has_kept(&self, tid: u64, oid: u64, data: &[u8]) -> bool {
        self.kept.iter().any(|(kept, _)| kept.iter().any(|txn| has(txn, tid, oid, data)))
    }
}

fn has(txn: &Txn, tid: u64, oid: u64, data: &[u8]) -> bool {
    txn.tid == tid
        && txn.records.iter().any(|record| record.oid == oid && record.data.as_deref() == Some(data))
}

/// The records whose objects are blobs.
fn blob_records(transactions: &[Txn]) -> impl Iterator<Item = (u64, u64)> {
    let records = transactions.iter().flat_map(|txn| txn.records.iter().map(|record| (txn.tid, record)));
    let is_blob =
        |record: &Record| record.data.as_ref().is_some_and(|data| data.starts_with(b"cZODB.blob\n"));
    records.filter(move |(_, record)| is_blob(record)).map(|(tid, record)| (record.oid, tid))
}
