//! The power or the process ends at every single call of a backup, a prune and a restore.

use crate::crash::ENDS;
use crate::repository::site::Site;
use crate::support::storage::load;
use runzeo::internal::backup::repository::{BackupError, Stamp};
use runzeo::internal::storage::media::Media;
use runzeo::storage::prelude::*;

/// Runs `run` with a fault at each call in turn, and then `check`, which gets whether it was done.
fn stopped_everywhere(
    prepare: impl Fn(&Site),
    run: impl Fn(&Site) -> Result<(), BackupError>,
    check: impl Fn(&Site, bool, &str),
) {
    sites_stopped_everywhere(Site::new, prepare, run, check);
}

fn sites_stopped_everywhere(
    make: impl Fn(u64) -> Site,
    prepare: impl Fn(&Site),
    run: impl Fn(&Site) -> Result<(), BackupError>,
    check: impl Fn(&Site, bool, &str),
) {
    for (fault, after) in ENDS {
        for n in 1.. {
            let site = make(n);
            prepare(&site);
            site.disk.fail_at(n, fault);
            let result = run(&site);
            let what = format!("{fault:?} at call {n}");
            if !site.disk.fired() {
                result.unwrap();
                site.disk.fail_at(1 << 40, fault);
                check(&site, true, &what);
                assert!(n > 8, "only {n} calls");
                break;
            }
            let disk = after(&site.disk);
            check(&site.on(disk), false, &what);
        }
    }
}

/// What was backed up comes back, and the next backup has everything.
fn goes_on(site: &Site, former: Option<&[u8]>, what: &str) {
    let stamps = site.repository().map(|repository| repository.backups().unwrap()).unwrap_or_default();
    if let Some(former) = former {
        site.assert_whole(what);
        site.restore(stamps.first(), None).unwrap();
        assert!(site.bytes("Restored.fs") == former, "{what}");
    }
    site.backup().unwrap_or_else(|error| panic!("{what}: {error}"));
    site.assert_whole(what);
    site.restore(None, None).unwrap();
    assert!(site.bytes("Restored.fs") == site.bytes("Data.fs"), "{what}");
    assert_eq!(site.blobs("restored"), site.blobs("blobs"), "{what}");
    let left = site.disk.paths().into_iter().find(|path| path.starts_with(site.path("repo/tmp/")));
    assert_eq!(left, None, "{what}");
}

#[test]
fn a_first_backup() {
    let prepare = |site: &Site| _ = site.grow(4);
    stopped_everywhere(prepare, |site| site.backup().map(drop), |site, _, what| goes_on(site, None, what));
}

#[test]
fn a_backup_of_what_was_appended() {
    let prepare = |site: &Site| {
        site.grow(4);
        site.backup().unwrap();
        site.disk.put(&site.path("former"), &site.bytes("Data.fs"));
        site.grow(3);
    };
    let check = |site: &Site, _, what: &str| goes_on(site, Some(&site.bytes("former")), what);
    stopped_everywhere(prepare, |site| site.backup().map(drop), check);
}

#[test]
fn a_backup_after_a_pack() {
    let prepare = |site: &Site| {
        let tids = site.grow(5);
        site.backup().unwrap();
        site.disk.put(&site.path("former"), &site.bytes("Data.fs"));
        site.grow(2);
        site.pack(tids[2]);
    };
    // The blobs of the former state were packed away, and come from the repository.
    let check = |site: &Site, _, what: &str| {
        let stamps = site.stamps();
        site.restore(stamps.first(), None).unwrap();
        assert!(site.bytes("Restored.fs") == site.bytes("former"), "{what}");
        site.backup().unwrap();
        site.assert_whole(what);
        site.restore(None, None).unwrap();
        assert!(site.bytes("Restored.fs") == site.bytes("Data.fs"), "{what}");
    };
    stopped_everywhere(prepare, |site| site.backup().map(drop), check);
}

#[test]
fn a_prune() {
    let prepare = |site: &Site| {
        for _ in 0..4 {
            site.grow(2);
            site.backup().unwrap();
        }
    };
    let check = |site: &Site, _, what: &str| {
        site.assert_whole(what);
        site.prune(1, false).unwrap_or_else(|error| panic!("{what}: {error}"));
        goes_on(site, Some(&site.bytes("Data.fs")), what);
        let again = site.prune(1, true).unwrap();
        assert_eq!((again.removed, again.objects), (Vec::<Stamp>::new(), 0), "{what}");
    };
    // One segment in the end, so that there is something to remove.
    let make = |seed| Site { segment_len: 64 << 20, ..Site::new(seed) };
    sites_stopped_everywhere(make, prepare, |site| site.prune(1, false).map(drop), check);
}

/// The former database with its blobs or the restored one with its own, and a marker, is served.
#[test]
fn a_restore() {
    let prepare = |site: &Site| {
        site.grow(4);
        site.backup().unwrap();
        site.disk.put(&site.path("backed up"), &site.bytes("Data.fs"));
        site.grow(3);
        site.disk.put(&site.path("former"), &site.bytes("Data.fs"));
        // The restore has blobs to add.
        let (path, _) = site.blobs("blobs").remove(0);
        site.disk.remove(&site.path("blobs").join(path)).unwrap();
        site.disk.sync_dir(site.dir.path()).unwrap();
    };
    let run = |site: &Site| site.restore_to("Data.fs", "blobs", None, None).map(drop);
    let check = |site: &Site, is_done: bool, what: &str| {
        let (now, former) = (site.bytes("Data.fs"), site.bytes("former"));
        let is_former = now == former;
        let aside = site.bytes("Data.fs.before-restore");
        assert!(is_former && !is_done || now == site.bytes("backed up") && aside == former, "{what}");
        let blobs = site.blobs("blobs").len();
        let storage = site.open("Data.fs", "blobs");
        let (mut descriptions, mut all) = (Vec::new(), storage.iterate(None, None).unwrap());
        while let Some(txn) = all.next_transaction().unwrap() {
            descriptions.push(String::from_utf8_lossy(&txn.meta.description).into_owned());
        }
        let is_marked = descriptions.iter().any(|text| text.starts_with("runzeo: "));
        // A stop may come after the note and before the file: then the former one has a marker, which does no harm.
        assert!(is_marked || is_former, "{what}");
        assert!(load(&storage, 0).is_ok(), "{what}");
        storage.close().unwrap();
        assert!(!is_done || blobs >= 2, "{what}: {blobs}");
        // And it can be done again.
        site.restore_to("Data.fs", "blobs", None, None).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(site.bytes("Data.fs") == site.bytes("backed up"), "{what}");
    };
    stopped_everywhere(prepare, run, check);
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let site = Site::new(1);
    site.grow(5);
    site.backup().unwrap();
    let former = site.bytes("Data.fs");
    site.grow(5);
    let names = site.disk.paths();
    site.disk.set_full(true);
    let error = site.backup().map(drop).unwrap_err().to_string();
    assert!(error.starts_with("writing "), "{error}");
    let error = site.restore(None, None).map(drop).unwrap_err().to_string();
    assert!(error.contains("no storage space"), "{error}");
    // An empty blob directory may stay.
    let paths = site.disk.paths().into_iter().filter(|path| !path.starts_with(site.path("restored")));
    assert_eq!(paths.collect::<Vec<_>>(), names);
    site.disk.set_full(false);
    site.assert_whole("the first backup");
    site.restore(None, None).unwrap();
    assert!(site.bytes("Restored.fs") == former);
    site.backup().unwrap();
}
