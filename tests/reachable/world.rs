//! The state that all clients of one round share, and the records of their objects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub type Oid = u64;
pub type Tid = u64;

pub const ROOT: Oid = 0;
/// Finished transactions that clients may undo or copy from.
const RECENT_MAX: usize = 60;

const HEAD: &[u8] = b"cpersistent.mapping\nPersistentMapping\nq\x01.](";
/// The record of every blob.
pub const BLOB: &[u8] = b"cZODB.blob\nBlob\nq\x01.N.";

/// A record with these references and unique data: an undo treats objects with equal data as unchanged.
pub fn record(references: &[Oid], nonce: u64, filler: &[u8]) -> Vec<u8> {
    let mut data = HEAD.to_vec();
    for oid in references {
        data.extend_from_slice(b"U\x08");
        data.extend_from_slice(&oid.to_be_bytes());
        data.push(b'Q');
    }
    data.push(b'T');
    data.extend_from_slice(&(filler.len() as u32 + 8).to_le_bytes());
    data.extend_from_slice(&nonce.to_be_bytes());
    data.extend_from_slice(filler);
    data.extend_from_slice(b"e.");
    data
}

/// A revision of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    pub serial: Tid,
    pub references: Vec<Oid>,
    pub is_blob: bool,
}

impl State {
    pub fn new(serial: Tid, data: &[u8]) -> State {
        if data == BLOB {
            return State { serial, references: Vec::new(), is_blob: true };
        }
        let mut rest = data.strip_prefix(HEAD).expect("a record of this test");
        let mut references = Vec::new();
        while rest[0] == b'U' {
            references.push(u64::from_be_bytes(rest[2..10].try_into().expect("8 bytes")));
            rest = &rest[11..];
        }
        State { serial, references, is_blob: false }
    }
}

/// The unique content of a blob.
pub fn blob_content(oid: Oid, nonce: u64) -> Vec<u8> {
    format!("blob {oid:016x} {nonce:016x}").into_bytes()
}

pub fn is_content_of(oid: Oid, content: &[u8]) -> bool {
    content.len() == blob_content(oid, 0).len() && content.starts_with(&blob_content(oid, 0)[..21])
}

/// A finished transaction.
#[derive(Clone, Debug)]
pub struct Done {
    pub tid: Tid,
    /// Objects that existed before and after.
    pub changed: Vec<Oid>,
    /// Objects that exist since this transaction, new or because a removal was undone.
    pub creates: Vec<Oid>,
    /// Objects whose creation was undone.
    pub removes: Vec<Oid>,
    /// The transactions that it undoes.
    pub undoes: Vec<Tid>,
}

pub struct World {
    pub address: SocketAddr,
    pub containers: Vec<Oid>,
    /// Large objects without references, which make packs slow.
    pub ballast: Vec<Oid>,
    pub can_undo: bool,
    pub can_copy: bool,
    pub has_blobs: bool,
    stop: AtomicBool,
    nonce: AtomicU64,
    recent: Mutex<VecDeque<Done>>,
    /// Objects whose creation was undone, or may have been: a client that disconnects does not know the outcome.
    removed: Mutex<BTreeSet<Oid>>,
    journal: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl World {
    pub fn new(address: SocketAddr, containers: Vec<Oid>, ballast: Vec<Oid>) -> World {
        World {
            address,
            containers,
            ballast,
            can_undo: false,
            can_copy: false,
            has_blobs: false,
            stop: AtomicBool::new(false),
            nonce: AtomicU64::new(1 << 32),
            recent: Mutex::default(),
            removed: Mutex::default(),
            journal: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn nonce(&self) -> u64 {
        self.nonce.fetch_add(1, Ordering::Relaxed)
    }

    pub fn done(&self, done: Done) {
        let mut recent = self.recent.lock().expect("recent");
        recent.push_back(done);
        if recent.len() > RECENT_MAX {
            recent.pop_front();
        }
    }

    /// Finished transactions, newest first, in the order in which clients received the answers.
    pub fn recent(&self) -> Vec<Done> {
        self.recent.lock().expect("recent").iter().rev().cloned().collect()
    }

    pub fn remove(&self, oids: impl IntoIterator<Item = Oid>) {
        self.removed.lock().expect("removed").extend(oids);
    }

    pub fn was_removed(&self, oid: Oid) -> bool {
        self.removed.lock().expect("removed").contains(&oid)
    }

    /// Adds a line to the journal, for the report of a failure.
    pub fn note(&self, line: String) {
        self.journal.lock().expect("journal").push(line);
    }

    pub fn journal(&self) -> Vec<String> {
        self.journal.lock().expect("journal").clone()
    }

    pub fn count(&self, what: &str) {
        *self.counts.lock().expect("counts").entry(what.to_owned()).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().expect("counts").clone()
    }
}
