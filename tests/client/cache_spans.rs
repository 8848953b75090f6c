//! New blocks are gathered in memory before they are written: the cache and its file are as if each were written at
//! once.

use std::path::Path;
use std::sync::Arc;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};

use crate::history::History;
use crate::support::dice::Dice;
use crate::support::faulty::Faulty;

/// A cache on a disk of its own.
struct OwnDisk {
    media: Faulty,
    cache: Cache,
    /// Nothing stays gathered.
    is_synced: bool,
}

impl OwnDisk {
    fn new(path: &Path, size: u64, is_synced: bool) -> OwnDisk {
        let media = Faulty::new(1, None);
        let options = CacheOptions { media: Arc::new(media.clone()), ..CacheOptions::new(Some(path), size) };
        OwnDisk { media, cache: Cache::open(options).unwrap(), is_synced }
    }

    fn act(&self, change: impl Fn(&Cache)) {
        change(&self.cache);
        if self.is_synced {
            self.cache.sync();
        }
    }

    fn load(&self, oid: u64, before: u64) -> Option<(u64, u64, Vec<u8>)> {
        let mut out = Vec::new();
        let found = self.cache.load_before(Oid(oid), Tid(before), &mut out);
        if self.is_synced {
            self.cache.sync();
        }
        found.map(|found| (found.start.0, found.end.map_or(0, |end| end.0), out[found.data].to_vec()))
    }
}

/// One cache writes after each change, the other one gathers.
fn compare(seed: u64, size: u64, data_len_max: u64) {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["synced.zec", "gathered.zec"].map(|name| dir.path().join(name));
    let both = [OwnDisk::new(&paths[0], size, true), OwnDisk::new(&paths[1], size, false)];
    let (mut history, mut dice) = (History::new(30, data_len_max), Dice::new(seed, 5));
    let files = || [0, 1].map(|i| both[i].media.bytes(&paths[i]).unwrap());
    for step in 0..600 {
        let what = format!("seed {seed}, size {size}, step {step}");
        let oid = history.some_oid(&mut dice);
        match dice.below(20) {
            0..4 => {
                let oids = [oid, history.some_oid(&mut dice)];
                let tid = history.commit(&oids, &mut dice);
                for disk in &both {
                    disk.act(|cache| {
                        oids.iter().for_each(|oid| cache.invalidate(Oid(*oid), Some(Tid(tid))));
                        cache.set_last_tid(Tid(tid)).unwrap();
                    });
                }
            }
            4 => both.iter().for_each(|disk| disk.act(|cache| cache.invalidate(Oid(oid), None))),
            5..19 => {
                let before = if dice.one_in(3) { history.some_tid(&mut dice) } else { u64::MAX };
                let [found, other] = [0, 1].map(|i| both[i].load(oid, before));
                assert_eq!(found, other, "{what}");
                if let Some((start, end, data)) = &found {
                    assert_eq!(Some((*start, *end)), history.at(oid, before), "{what}");
                    assert_eq!(*data, history.data(oid, *start), "{what}");
                } else if let Some((start, end)) = history.at(oid, before) {
                    let (end, data) = ((end != 0).then_some(Tid(end)), history.data(oid, start));
                    both.iter()
                        .for_each(|disk| disk.act(|cache| cache.store(Oid(oid), Tid(start), end, &data)));
                }
            }
            _ if dice.one_in(10) => both[1].cache.sync(),
            _ if dice.one_in(20) => both.iter().for_each(|disk| disk.act(Cache::clear)),
            _ if dice.one_in(5) => {
                let new = [size, size / 2, size * 2][dice.below(3) as usize];
                both.iter().for_each(|disk| disk.act(|cache| cache.resize(new)));
            }
            _ => {}
        }
        let [stats, other] = [0, 1].map(|i| both[i].cache.stats());
        assert_eq!(stats, other, "{what}");
        assert_eq!(both[0].cache.contents(), both[1].cache.contents(), "{what}");
        if dice.one_in(50) {
            both[1].cache.sync();
            let [file, other] = files();
            assert!(file == other, "{what}");
        }
    }
    let [written, gathered] = [0, 1].map(|i| both[i].media.calls());
    assert!(gathered < written, "{gathered} calls of the disk, {written} without gathering");
    both.iter().for_each(|disk| disk.cache.close());
    let [file, other] = files();
    assert!(file == other, "seed {seed}: closed");
}

#[test]
fn the_file_is_as_if_each_block_were_written_at_once() {
    for seed in 0..12 {
        compare(seed, 3000, 500);
        compare(seed, 20_000, 500);
        compare(seed, 60_000, 12_000);
    }
}

/// Stores beside each other take three writes for 256 kB of them, also when they evict others.
#[test]
fn many_blocks_are_written_at_once() {
    const COUNT: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let disk = OwnDisk::new(&path, 4 << 20, false);
    for round in 0..3 {
        let before = disk.media.calls();
        for oid in 0..COUNT {
            disk.cache.store(Oid(round * COUNT + oid), Tid(1), None, &[7; 1000]);
        }
        let calls = disk.media.calls() - before;
        assert!(calls < 3 * 45, "round {round}: {calls} calls of the disk");
    }
    assert!(disk.cache.stats().evictions > 2 * COUNT);
}
