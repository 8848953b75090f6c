//! The disk fails, the process is killed, or the power is cut, at every single call in turn. Afterwards no load is
//! wrong: what the cache has is what the database had, and what it calls current was current at its last tid.

use std::path::Path;
use std::sync::Arc;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};

use crate::history::History;
use crate::support::dice::Dice;
use crate::support::faulty::{Fault, Faulty};

fn open(media: &Faulty, path: &Path, size: u64) -> Option<Cache> {
    Cache::open(CacheOptions { media: Arc::new(media.clone()), ..CacheOptions::new(Some(path), size) }).ok()
}

/// A database whose client has this cache.
struct Site {
    history: History,
    /// The greatest last tid that the cache was given.
    last_tid: u64,
    /// Of former revisions in the cache.
    ended: Ended,
    dice: Dice,
}

impl Site {
    fn new(seed: u64) -> Site {
        Site {
            history: History::new(12, 500),
            last_tid: 0,
            ended: Ended::Completely,
            dice: Dice::new(seed, 3),
        }
    }

    /// As a client does after it has connected: what was changed since the last tid is dropped.
    fn verify(&mut self, cache: &Cache) {
        let since = cache.last_tid().map_or(0, |tid| tid.0);
        for oid in self.history.changed_since(since) {
            cache.invalidate(Oid(oid), None);
        }
        let last = self.history.last_tid();
        cache.set_last_tid(Tid(last)).unwrap();
        self.last_tid = last;
    }

    fn work(&mut self, cache: &Cache, steps: u64) {
        for _ in 0..steps {
            let oid = self.history.some_oid(&mut self.dice);
            match self.dice.below(10) {
                0..3 => {
                    let oids = [oid, self.history.some_oid(&mut self.dice)];
                    let tid = self.history.commit(&oids, &mut self.dice);
                    oids.iter().for_each(|oid| cache.invalidate(Oid(*oid), Some(Tid(tid))));
                    if self.dice.one_in(2) {
                        cache.store(Oid(oid), Tid(tid), None, &self.history.data(oid, tid));
                    }
                    cache.set_last_tid(Tid(tid)).unwrap();
                    self.last_tid = tid;
                }
                3..9 => {
                    let before =
                        if self.dice.one_in(2) { u64::MAX } else { self.history.some_tid(&mut self.dice) };
                    self.load(cache, oid, before);
                }
                _ if self.dice.one_in(2) => cache.sync(),
                _ if self.dice.one_in(8) => cache.clear(),
                _ if self.dice.one_in(8) => {
                    let (old, new) = (cache.stats().size, self.dice.of(&[2000, 3000, 5000]));
                    cache.resize(new);
                    cache.resize(old);
                }
                _ => {}
            }
        }
    }

    /// A load is right or a miss; what was missing is stored.
    fn load(&mut self, cache: &Cache, oid: u64, before: u64) {
        let mut out = Vec::new();
        let expected = self.history.at(oid, before);
        match cache.load_before(Oid(oid), Tid(before), &mut out) {
            Some(found) => {
                let mut end = found.end.map_or(0, |end| end.0);
                let right = expected.map_or(0, |(_, end)| end);
                if self.ended == Ended::PerhapsInPart && end >= before.min(right) && end < right {
                    end = right;
                }
                assert_eq!(Some((found.start.0, end)), expected, "object {oid} before {before}");
                assert_eq!(out[found.data], self.history.data(oid, found.start.0));
            }
            None => {
                let Some((start, end)) = expected else { return };
                let end = (end != 0).then_some(Tid(end));
                cache.store(Oid(oid), Tid(start), end, &self.history.data(oid, start));
            }
        }
    }

    /// Nothing in the cache is wrong. Returns the number of revisions that were loaded: a load may evict others.
    fn check(&self, cache: &Cache, what: &str) -> usize {
        self.check_after(cache, Ended::Completely, what)
    }

    fn check_after(&self, cache: &Cache, ended: Ended, what: &str) -> usize {
        let mut loaded = 0;
        let last_tid = cache.last_tid().map_or(0, |tid| tid.0);
        assert!(last_tid <= self.last_tid, "{what}: last tid {last_tid}, of {}", self.last_tid);
        let contents = cache.contents();
        for &(oid, start, end) in &contents {
            let next = self
                .history
                .next(oid.0, start.0)
                .unwrap_or_else(|| panic!("{what}: {oid} {start} never was"));
            match end {
                Some(end) if ended == Ended::Completely => {
                    assert_eq!(next, end.0, "{what}: the end of {oid} {start}");
                }
                Some(end) => assert!(next >= end.0, "{what}: the end {end} of {oid} {start}, not {next}"),
                None => assert!(
                    next == 0 || next > last_tid,
                    "{what}: {oid} {start} is stale at {last_tid}: {next}"
                ),
            }
            let mut out = Vec::new();
            let before = end.map_or(Tid(start.0 + 1), |end| end);
            let Some(found) = cache.load_before(oid, before, &mut out) else { continue };
            loaded += 1;
            assert_eq!((found.start, found.end), (start, end), "{what}");
            assert_eq!(out[found.data], self.history.data(oid.0, start.0), "{what}: {oid} {start}");
        }
        loaded
    }
}

const SIZE: u64 = 3000;

/// Ends of former revisions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    Completely,
    /// The process was killed while it wrote one: the first bytes of it may be there, and then zeros. The revision
    /// counts for a shorter time than it could.
    PerhapsInPart,
}

/// Opens, works and closes, with a fault at call `n`.
fn run(seed: u64, media: &Faulty, path: &Path) -> Site {
    let mut site = Site::new(seed);
    for steps in [70, 30] {
        let Some(cache) = open(media, path, SIZE) else { return site };
        site.check(&cache, "opened again");
        site.verify(&cache);
        site.work(&cache, steps);
        cache.close();
    }
    site
}

/// Goes on with what is left, twice, the first time without an orderly end.
fn go_on(mut site: Site, media: &Faulty, path: &Path, ended: Ended, what: &str) -> usize {
    let Some(cache) = open(media, path, SIZE) else { panic!("{what}: not opened") };
    let kept = site.check_after(&cache, ended, what);
    site.ended = ended;
    site.verify(&cache);
    site.work(&cache, 20);
    let media = media.after_kill();
    drop(cache);
    let cache = open(&media, path, SIZE).unwrap();
    assert_eq!(cache.last_tid(), Some(Tid(site.last_tid)), "{what}: killed after it");
    site.check_after(&cache, ended, what);
    site.work(&cache, 20);
    cache.close();
    drop(cache);
    let cache = open(&media, path, SIZE).unwrap();
    site.check_after(&cache, ended, what);
    kept
}

#[test]
fn the_power_is_cut_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let (mut kept, mut count) = (0, 0);
    for seed in 0..6 {
        for n in 1.. {
            let media = Faulty::new(seed * 1000 + n, Some((n, Fault::PowerCut)));
            let site = run(seed, &media, &path);
            if !media.fired() {
                break;
            }
            let left = media.after_power_cut();
            let what = format!("seed {seed}, call {n}");
            // The power is cut again while the cache is opened.
            if n % 3 == 0 {
                left.fail_at(1 + n % 17, Fault::PowerCut);
                if let Some(cache) = open(&left, &path, SIZE) {
                    site.check(&cache, &what);
                }
                kept += go_on(site, &left.after_power_cut(), &path, Ended::Completely, &what);
            } else {
                kept += go_on(site, &left, &path, Ended::Completely, &what);
            }
            count += 1;
        }
    }
    assert!(kept > count, "{kept} revisions were kept in {count} power cuts");
}

#[test]
fn the_process_is_killed_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let (mut kept, mut count) = (0, 0);
    for seed in 0..6 {
        for n in 1.. {
            let media = Faulty::new(seed * 1000 + n, Some((n, Fault::PowerCut)));
            let site = run(seed, &media, &path);
            if !media.fired() {
                break;
            }
            kept += go_on(
                site,
                &media.after_kill(),
                &path,
                Ended::PerhapsInPart,
                &format!("seed {seed}, call {n}"),
            );
            count += 1;
        }
    }
    assert!(kept > 3 * count, "{kept} revisions were kept by {count} processes");
}

#[test]
fn every_call_fails_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    for seed in 0..6 {
        for n in 1.. {
            let media = Faulty::new(seed * 1000 + n, Some((n, Fault::Error)));
            let site = run(seed, &media, &path);
            if !media.fired() {
                break;
            }
            go_on(site, &media, &path, Ended::Completely, &format!("seed {seed}, call {n}"));
        }
    }
}

/// A full disk: the cache is off, and the client goes on without it.
#[test]
fn a_full_disk_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let media = Faulty::new(1, None);
    let cache = open(&media, &path, SIZE).unwrap();
    let mut site = Site::new(5);
    site.work(&cache, 50);
    media.fail_at(1, Fault::Error);
    site.work(&cache, 50);
    assert_eq!(cache.count(), 0);
    site.work(&cache, 50);
    cache.clear();
    site.work(&cache, 50);
    assert!(cache.count() > 0, "a cleared cache is used again");
}
