//! Sums of each object of a file, in about 16 bytes for each: a database may have hundreds of millions.

use std::collections::HashMap;

use crate::base::ids::Oid;

/// An object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObjectSums {
    pub oid: Oid,
    pub records: u64,
    pub bytes: u64,
    /// Index of its class.
    pub class: u32,
    /// Bytes of its newest record, 0 if it is deleted.
    pub current: u64,
    /// Bytes of its newest record after a pack, which writes the data in place of a back-pointer.
    pub packed: u64,
    /// Number of the transaction with its newest record.
    pub txn: u32,
}

/// Oids of a page.
const PAGE: u64 = 256;
/// Entries by which a page grows, so that little of it is empty.
const GROWTH: usize = 8;

/// The sums of objects, by oid.
#[derive(Default)]
pub struct ObjectTable {
    pages: HashMap<u64, Vec<Short>>,
    /// Objects whose sums do not fit into [`Short`].
    long: HashMap<u64, ObjectSums>,
}

/// The sums of an object in 15 bytes: lowest byte of the oid, bytes of all records and of the newest one, number of
/// records, class, transaction. What it has after a pack is as long as the newest record.
#[derive(Clone, Copy)]
struct Short([u8; 15]);

/// The place of an object in its page.
fn place(oid: Oid) -> u8 {
    let [.., low] = oid.0.to_be_bytes();
    low
}

impl Short {
    /// `None`: a number is too large.
    fn of(sums: &ObjectSums) -> Option<Short> {
        let ObjectSums { oid, records, bytes, class, current, packed, txn } = *sums;
        let [bytes, current_bytes] =
            [u32::try_from(bytes).ok()?.to_le_bytes(), u32::try_from(current).ok()?.to_le_bytes()];
        let (records, class) = (u8::try_from(records).ok()?, u16::try_from(class).ok()?.to_le_bytes());
        let [t0, t1, t2, 0] = txn.to_le_bytes() else { return None };
        let [b0, b1, b2, b3] = bytes;
        let [c0, c1, c2, c3] = current_bytes;
        let short = [place(oid), b0, b1, b2, b3, c0, c1, c2, c3, records, class[0], class[1], t0, t1, t2];
        (packed == current).then_some(Short(short))
    }

    fn low(&self) -> u8 {
        self.0[0]
    }

    fn sums(&self, page: u64) -> ObjectSums {
        let [low, b0, b1, b2, b3, c0, c1, c2, c3, records, k0, k1, t0, t1, t2] = self.0;
        let current = u64::from(u32::from_le_bytes([c0, c1, c2, c3]));
        ObjectSums {
            oid: Oid(page * PAGE + u64::from(low)),
            records: u64::from(records),
            bytes: u64::from(u32::from_le_bytes([b0, b1, b2, b3])),
            class: u32::from(u16::from_le_bytes([k0, k1])),
            current,
            packed: current,
            txn: u32::from_le_bytes([t0, t1, t2, 0]),
        }
    }
}

impl ObjectTable {
    pub fn get(&self, oid: Oid) -> Option<ObjectSums> {
        if let Some(sums) = self.long.get(&oid.0) {
            return Some(*sums);
        }
        let page = oid.0 / PAGE;
        let entries = self.pages.get(&page)?;
        let at = entries.binary_search_by_key(&place(oid), Short::low).ok()?;
        entries.get(at).map(|short| short.sums(page))
    }

    /// Sets the sums of an object.
    pub fn set(&mut self, sums: ObjectSums) {
        let oid = sums.oid.0;
        let entries = self.pages.entry(oid / PAGE).or_default();
        let found = entries.binary_search_by_key(&place(sums.oid), Short::low);
        match (Short::of(&sums), found) {
            (Some(short), Ok(at)) => {
                if let Some(entry) = entries.get_mut(at) {
                    *entry = short;
                }
            }
            (Some(short), Err(at)) => {
                if entries.len() == entries.capacity() {
                    entries.reserve_exact(GROWTH);
                }
                entries.insert(at, short);
                self.long.remove(&oid);
            }
            (None, found) => {
                if let Ok(at) = found {
                    entries.remove(at);
                }
                self.long.insert(oid, sums);
            }
        }
    }

    /// All objects, in no order.
    pub fn iter(&self) -> impl Iterator<Item = ObjectSums> + '_ {
        let short = |(page, entries): (&u64, &'_ Vec<Short>)| {
            let page = *page;
            entries.iter().map(move |short| short.sums(page)).collect::<Vec<_>>()
        };
        self.pages.iter().flat_map(short).chain(self.long.values().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sums() -> impl Strategy<Value = ObjectSums> {
        let number =
            prop_oneof![0..300_u64, (1_u64 << 24) - 2..(1 << 24) + 2, (1_u64 << 32) - 2..(1 << 32) + 2];
        let oid = prop_oneof![0..600_u64, any::<u64>()];
        (oid, prop::collection::vec(number, 5), any::<bool>()).prop_map(|(oid, numbers, is_same)| {
            let [records, bytes, class, current, txn] = numbers[..] else { unreachable!("five") };
            let packed = if is_same { current } else { bytes };
            ObjectSums {
                oid: Oid(oid),
                records,
                bytes,
                class: class as u32,
                current,
                packed,
                txn: txn as u32,
            }
        })
    }

    proptest! {
        #[test]
        fn what_was_set_last_is_found(all in prop::collection::vec(sums(), 1..60)) {
            let mut table = ObjectTable::default();
            let mut model = HashMap::new();
            for sums in all {
                table.set(sums);
                model.insert(sums.oid.0, sums);
            }
            for (oid, sums) in &model {
                prop_assert_eq!(table.get(Oid(*oid)), Some(*sums));
            }
            let found: HashMap<u64, ObjectSums> = table.iter().map(|sums| (sums.oid.0, sums)).collect();
            prop_assert_eq!(table.iter().count(), model.len());
            prop_assert_eq!(found, model);
        }
    }

    #[test]
    fn an_entry_is_short() {
        assert_eq!(size_of::<Short>(), 15);
    }
}
