//! Object records as ZODB writes them: a pickled class, then a pickled state.

use crate::wire::Id8;

const CLASS: &[u8] = b"cpersistent.mapping\nPersistentMapping\n";
const TAIL: &[u8] = b"q\x05ss.";
/// Place where [`retag`] writes: inside the payload, right before the tail.
const TAG_LEN: usize = 6;

/// `PersistentMapping({'payload': ...})` of `len` bytes, incompressible and different for every seed.
pub fn mapping(is_python2: bool, len: usize, seed: u64) -> Vec<u8> {
    let mut record = Vec::with_capacity(len + 64);
    record.extend_from_slice(if is_python2 { b"\x80\x02" } else { b"\x80\x03" });
    record.extend_from_slice(CLASS);
    record.extend_from_slice(if is_python2 {
        b"q\x00.\x80\x02}q\x01U\x04dataq\x02}q\x03U\x07payloadq\x04T"
    } else {
        b"q\x00.\x80\x03}q\x01X\x04\x00\x00\x00dataq\x02}q\x03X\x07\x00\x00\x00payloadq\x04B"
    });
    let payload_len = len.saturating_sub(record.len() + 4 + TAIL.len()).max(TAG_LEN);
    record.extend_from_slice(&(payload_len as u32).to_le_bytes());
    let mut random = crate::random::Random::new(seed);
    let mut word = [0; 8];
    for i in 0..payload_len {
        if i % 8 == 0 {
            word = random.next().to_le_bytes();
        }
        let byte = word[i % 8];
        // A Python 2 string stays printable.
        record.push(if is_python2 { b'!' + byte % 90 } else { byte });
    }
    record.extend_from_slice(TAIL);
    record
}

/// Makes a record of [`mapping`] differ from its last revision.
pub fn retag(record: &mut [u8], sequence: u64) {
    let end = record.len() - TAIL.len();
    let tag = format!("{:06x}", sequence & 0xff_ffff);
    record[end - TAG_LEN..end].copy_from_slice(tag.as_bytes());
}

/// A `PersistentMapping` whose values are references to `oids`.
pub fn references(is_python2: bool, oids: &[Id8]) -> Vec<u8> {
    let mut record = vec![];
    record.extend_from_slice(if is_python2 { b"\x80\x02" } else { b"\x80\x03" });
    record.extend_from_slice(CLASS);
    record.extend_from_slice(if is_python2 {
        b".\x80\x02}U\x04data}("
    } else {
        b".\x80\x03}X\x04\x00\x00\x00data}("
    });
    for oid in oids {
        let key = format!("{:x}", u64::from_be_bytes(*oid));
        if is_python2 {
            record.extend_from_slice(&[b'U', key.len() as u8]);
        } else {
            record.push(b'X');
            record.extend_from_slice(&(key.len() as u32).to_le_bytes());
        }
        record.extend_from_slice(key.as_bytes());
        record.extend_from_slice(&[b'(', if is_python2 { b'U' } else { b'C' }, 8]);
        record.extend_from_slice(oid);
        record.extend_from_slice(CLASS);
        record.extend_from_slice(b"tQ");
    }
    record.extend_from_slice(b"us.");
    record
}

/// A record of a class without arguments and a pickled state.
fn record(is_python2: bool, class: &str, state: &[u8]) -> Vec<u8> {
    let protocol: &[u8] = if is_python2 { b"\x80\x02" } else { b"\x80\x03" };
    [protocol, b"c", class.as_bytes(), b"\nq\x00.", protocol, state, b"."].concat()
}

fn int(number: i64) -> Vec<u8> {
    [&b"J"[..], &(number as i32).to_le_bytes()].concat()
}

/// A `BTrees.Length.Length`.
pub fn length(is_python2: bool, value: i64) -> Vec<u8> {
    record(is_python2, "BTrees.Length\nLength", &int(value))
}

/// A `BTrees.IOBTree.IOBTree` of one bucket, with the keys 0, 1, ...
pub fn tree(is_python2: bool, values: &[i64]) -> Vec<u8> {
    let entries = values.iter().enumerate().flat_map(|(key, value)| [int(key as i64), int(*value)].concat());
    let state: Vec<u8> = [b'('].into_iter().chain(entries).chain(*b"t\x85\x85\x85").collect();
    record(is_python2, "BTrees.IOBTree\nIOBTree", &state)
}

/// A class of ZODB's tests whose conflicts are resolved by adding.
pub fn counter(is_python2: bool, value: i64) -> Vec<u8> {
    let key: &[u8] = if is_python2 { b"U\x06_value" } else { b"X\x06\0\0\0_value" };
    let state = [b"}", key, &int(value), b"s"].concat();
    record(is_python2, "ZODB.tests.ConflictResolution\nPCounter", &state)
}

/// A `ZODB.blob.Blob`.
pub fn blob(is_python2: bool) -> Vec<u8> {
    record(is_python2, "ZODB.blob\nBlob", b"N")
}
