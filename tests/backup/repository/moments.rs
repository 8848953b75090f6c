//! What a backup has, and which states come back.

use std::time::Duration;

use crate::repository::site::{Heard, Site};
use crate::support::storage::transactions;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::backup::repository::{CreateOptions, RestoreOptions, Stay, Target, Tempo, restore};
use runzeo::internal::storage::media::Media;
use runzeo::storage::prelude::*;

/// Some backups with growth and packs between them: the bytes of each.
fn history(site: &Site) -> Vec<Vec<u8>> {
    let mut moments = Vec::new();
    let mut tids = site.grow(12);
    for round in 0..6 {
        if round % 3 == 2 {
            site.pack(tids[tids.len() / 2]);
        }
        let created = site.backup().unwrap();
        assert!(created.is_new && created.damage.is_empty());
        moments.push(site.bytes("Data.fs"));
        tids = site.grow(4);
    }
    moments
}

#[test]
fn each_backup_comes_back_byte_for_byte_with_its_blobs() {
    let site = Site::new(1);
    let moments = history(&site);
    let stamps = site.stamps();
    assert_eq!(stamps.len(), moments.len());
    site.assert_whole("all");
    for (stamp, bytes) in stamps.iter().zip(&moments) {
        let restored = site.restore(Some(stamp), None).unwrap();
        assert!(site.bytes("Restored.fs") == *bytes, "{stamp}");
        assert_eq!((restored.len, restored.blobs_missing), (bytes.len() as u64, 0));
    }
    // The newest is the default.
    site.restore(None, None).unwrap();
    assert!(site.bytes("Restored.fs") == *moments.last().unwrap());
    site.backup().unwrap();
    site.restore_to("New.fs", "new", None, None).unwrap();
    assert_eq!(site.blobs("new"), site.blobs("blobs"));
    assert!(site.blobs("new").len() > 5);
    let storage = site.open("New.fs", "new");
    let mut record = Vec::new();
    let loaded = storage.load_before(Oid(0), Tid::MAX, 0, &mut record).unwrap();
    assert!(loaded.is_some());
}

/// Other pieces are compressed, and the content is the same: the next backup at another tempo finds it.
#[test]
fn backups_of_all_tempos_go_on_with_each_other() {
    let site = Site::new(11);
    site.grow(30);
    let gentle = CreateOptions { tempo: Tempo::Gentle, ..site.options() };
    assert!(site.backup_with(&gentle).unwrap().is_new);
    let objects = site.objects();
    let full = CreateOptions { reread: true, ..site.options() };
    assert!(!site.backup_with(&full).unwrap().is_new);
    assert_eq!(site.objects(), objects);
    site.grow(10);
    let paced = CreateOptions { tempo: Tempo::Rate(1 << 30), ..site.options() };
    assert!(site.backup_with(&paced).unwrap().is_new);
    site.assert_whole("two tempos");
    site.restore(None, None).unwrap();
    assert!(site.bytes("Restored.fs") == site.bytes("Data.fs"));
}

#[test]
fn any_transaction_that_was_backed_up_can_be_restored() {
    let site = Site::new(2);
    let moments = history(&site);
    let all: std::collections::BTreeSet<Tid> =
        moments.iter().flat_map(|bytes| tids(bytes)).map(|(tid, _)| tid).collect();
    let (mut exact, mut packed) = (0, 0);
    for tid in all {
        // The first backup that has the transaction.
        let (which, expected) = moments
            .iter()
            .enumerate()
            .find_map(|(which, bytes)| {
                let found = tids(bytes).into_iter().find(|(each, _)| *each == tid)?;
                Some((which, bytes[..found.1].to_vec()))
            })
            .unwrap();
        match site.restore(None, Some(tid)) {
            Ok(restored) => {
                assert_eq!(restored.last_tid, tid);
                assert!(site.bytes("Restored.fs") == expected, "{tid} of backup {which}");
                exact += 1;
                // Blobs of later transactions are not restored, but those of the former restores stay.
                assert_eq!(restored.blobs_missing, 0);
            }
            Err(error) => {
                assert!(error.to_string().starts_with("no backup has the state at "), "{error}");
                packed += 1;
            }
        }
    }
    assert!(exact > 20, "{exact} restored, {packed} not");
}

/// The tids of a file, and where each transaction ends.
fn tids(bytes: &[u8]) -> Vec<(Tid, usize)> {
    let starts = transactions(bytes);
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let tid = |at: usize| Tid::from_slice(&bytes[at..at + 8]).unwrap();
    starts.iter().zip(ends).map(|(start, end)| (tid(*start), end)).collect()
}

#[test]
fn a_state_that_no_backup_has_is_refused_with_what_there_is() {
    let site = Site::new(3);
    let first = site.grow(6);
    site.pack(first[4]);
    site.backup().unwrap();
    let site = &site;
    // Before the first transaction it was empty, and was not wanted.
    let young = Site::new(30);
    let tids = young.grow(2);
    young.backup().unwrap();
    assert!(young.restore(None, Some(Tid(tids[0].0 - 1))).is_err());
    young.restore(None, Some(tids[0])).unwrap();
    for until in [Tid(first[0].0 - 1), first[1], Tid::from_unix(Tid::now().to_unix() + 1e6)] {
        let error = site.restore(None, Some(until)).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("no backup has the state at {} ({until})\n", until.to_text())),
            "{error}"
        );
        assert!(error.contains("when it was packed,"), "{error}");
        assert!(!site.disk.exists(&site.path("Restored.fs")));
    }
    let stamp = site.stamps().remove(0);
    assert!(site.restore(Some(&stamp), Some(first[1])).is_err());
    site.restore(Some(&stamp), first.last().copied()).unwrap();
    let target = Target { name: "2".into(), path: site.path("Restored.fs"), blob_dir: None };
    let options = RestoreOptions { stamp: None, until: None, targets: vec![target] };
    let error = restore(&site.repository().unwrap(), &options, &Heard::default()).unwrap_err().to_string();
    assert!(error.ends_with("no backup of a database '2'; there are some of: 1"), "{error}");
}

#[test]
fn nothing_new_makes_no_backup() {
    let site = Site::new(4);
    site.grow(5);
    let first = site.backup().unwrap();
    let (objects, again) = (site.objects(), site.backup().unwrap());
    assert!(first.is_new && !again.is_new);
    assert_eq!((again.stamp, site.stamps().len()), (first.stamp, 1));
    assert_eq!(site.objects(), objects);
    // Reading everything again finds the same.
    let reread = runzeo::internal::backup::repository::CreateOptions { reread: true, ..site.options() };
    assert!(!site.backup_with(&reread).unwrap().is_new);
    assert_eq!(site.objects(), objects);
}

/// What a pack leaves as it is has other positions afterwards, and is not stored again.
#[test]
fn after_a_pack_only_what_it_has_changed_is_stored() {
    let site = Site { segment_len: 64 << 20, ..Site::new(5) };
    let packed = site.grow(30);
    site.backup().unwrap();
    let mut large = 0;
    for round in 0..3 {
        // Smaller than what is before, so that each is a segment.
        site.grow(14 - 4 * round);
        large += site.backup().unwrap().added;
    }
    let before = site.objects();
    site.pack(packed[20]);
    let created = site.backup().unwrap();
    assert!(created.is_new);
    let suffix = |path: &std::path::Path, end: &str| path.to_string_lossy().ends_with(end);
    let new: Vec<_> = site.objects().into_iter().filter(|path| !before.contains(path)).collect();
    let data = new.iter().filter(|path| suffix(path, ".data.zst")).count();
    assert_eq!(data, 1, "only the packed part is new: {new:?}");
    assert!(!new.iter().any(|path| suffix(path, ".blob")), "{new:?}");
    assert!(large > 0 && created.databases[0].segments.len() >= 3);
    site.restore(None, None).unwrap();
    assert!(site.bytes("Restored.fs") == site.bytes("Data.fs"));
}

/// Many small backups must not make many small segments.
#[test]
fn segments_grow_with_the_logarithm_of_backups() {
    let site = Site { segment_len: 64 << 20, ..Site::new(6) };
    for _ in 0..64 {
        site.grow(1);
        site.backup().unwrap();
    }
    let last = site.backup().unwrap();
    let count = last.databases[0].segments.len();
    assert!(count <= 10, "{count} segments");
    site.assert_whole("64 backups");
    let pruned = site.prune(1, false).unwrap();
    assert_eq!(pruned.removed.len(), 63);
    site.assert_whole("one backup");
    site.restore(None, None).unwrap();
    assert!(site.bytes("Restored.fs") == site.bytes("Data.fs"));
}

/// A server writes while a backup is made, and has reserved space behind the last transaction.
#[test]
fn a_file_in_use_is_backed_up_to_its_last_whole_transaction() {
    let site = Site::new(7);
    site.grow(5);
    let whole = site.bytes("Data.fs");
    let last = *transactions(&whole).last().unwrap();
    let torn = whole[..whole.len() - 5].to_vec();
    for (bytes, end) in [([whole.clone(), vec![0; 100]].concat(), whole.len()), (torn, last)] {
        site.disk.put(&site.path("Data.fs"), &bytes);
        let created = site.backup().unwrap();
        assert_eq!((created.databases[0].len, created.damage.len()), (end as u64, 0));
        site.restore(None, None).unwrap();
        assert!(site.bytes("Restored.fs") == whole[..end]);
    }
}

#[test]
fn an_empty_database_can_be_backed_up_and_restored() {
    let site = Site::new(8);
    site.grow(0);
    let created = site.backup().unwrap();
    assert_eq!((created.databases[0].len, created.databases[0].last_tid), (4, Tid::ZERO));
    site.restore(None, None).unwrap();
    assert_eq!(site.bytes("Restored.fs"), b"FS30");
    site.grow(3);
    site.backup().unwrap();
    site.restore(None, None).unwrap();
    assert!(site.bytes("Restored.fs") == site.bytes("Data.fs"));
}

/// Databases that are backed up one at a time do not take each other's place.
#[test]
fn two_databases_in_turns_in_one_repository() {
    let site = Site { segment_len: 64 << 20, ..Site::new(15) };
    let other = |site: &Site| {
        let mut options = site.options();
        options.sources[0].name = "2".into();
        options.sources[0].path = site.path("Other.fs");
        options.sources[0].blob_dir = None;
        options
    };
    site.grow(30);
    site.disk.put(&site.path("Other.fs"), &site.bytes("Data.fs")[..transactions(&site.bytes("Data.fs"))[20]]);
    for stay in [Stay::Kept, Stay::UntilNext, Stay::UntilNext] {
        site.grow(1);
        site.backup_with(&CreateOptions { stay, ..site.options() }).unwrap();
        let len = 200 + site.bytes("Other.fs").len();
        let at = *transactions(&site.bytes("Data.fs")).iter().find(|at| **at > len).unwrap();
        site.disk.put(&site.path("Other.fs"), &site.bytes("Data.fs")[..at]);
        let created = site.backup_with(&CreateOptions { stay, ..other(&site) }).unwrap();
        assert!(created.is_new);
        // A segment of it was taken over from its own last backup.
        assert!(stay == Stay::Kept || created.databases[0].segments.len() > 1);
    }
    // The newest continuous one of each, and the first of each.
    assert_eq!(site.stamps().len(), 4);
    let restore_other = |name: &str| {
        let target = Target { name: "2".into(), path: site.path(name), blob_dir: None };
        let options = RestoreOptions { stamp: None, until: None, targets: vec![target] };
        restore(&site.repository().unwrap(), &options, &Heard::default()).unwrap();
        assert!(site.bytes(name) == site.bytes("Other.fs"));
    };
    restore_other("R1.fs");
    // The newest in the repository has the other database.
    site.restore(None, None).unwrap();
    assert!(site.bytes("Restored.fs") == site.bytes("Data.fs"));
    let pruned = site.prune(1, false).unwrap();
    assert_eq!((pruned.kept.len(), pruned.removed.len()), (4, 0), "{pruned:?}");
    for source in [site.options(), other(&site)] {
        site.grow(1);
        site.backup_with(&CreateOptions { reread: true, ..source }).unwrap();
    }
    let pruned = site.prune(1, false).unwrap();
    assert!(pruned.kept.len() >= 2 && !pruned.removed.is_empty(), "{pruned:?}");
    site.restore(None, None).unwrap();
    restore_other("R2.fs");
}

/// All that is left of the database is its backup: clients may know later transactions, and have later ids.
#[test]
fn after_a_lost_disk_the_database_goes_on_behind_what_clients_can_know() {
    let site = Site::new(13);
    site.grow(4);
    let mark = site.backup().unwrap().databases[0].oid_mark;
    let lost = *site.grow(2).last().unwrap();
    for name in ["Data.fs", "Data.fs.index", "Data.fs.tmp"] {
        site.disk.remove(&site.path(name)).unwrap();
    }
    let restored = site.restore_to("Data.fs", "blobs", None, None).unwrap();
    assert!(restored.last_tid < lost && restored.aside.is_none());
    let storage = site.open("Data.fs", "blobs");
    assert!(storage.last_transaction() > lost);
    assert!(storage.new_oids(1).unwrap()[0].0 > mark.0 + (1 << 20));
    storage.close().unwrap();
}

/// Files that seven versions of ZODB have written: with undo, deleted objects, blobs, odd users.
#[test]
fn files_of_python_come_back_byte_for_byte() {
    let site = Site::new(14);
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures");
    let mut found = Vec::new();
    find_files(&fixtures, &mut found);
    let mut count = 0;
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        if !(bytes.starts_with(b"FS21") || bytes.starts_with(b"FS30")) {
            continue;
        }
        site.disk.put(&site.path("Data.fs"), &bytes);
        let mut options = site.options();
        options.sources[0].blob_dir = None;
        options.reread = true;
        let created = site.backup_with(&options).unwrap();
        let len = created.databases[0].len as usize;
        site.restore(None, None).unwrap();
        assert!(site.bytes("Restored.fs") == bytes[..len], "{}", path.display());
        count += 1;
    }
    assert!(count > 5, "{count}");
}

fn find_files(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { find_files(&path, found) } else { found.push(path) }
    }
}

/// The clock may be set back: the order of backups is that in which they were made.
#[test]
fn a_clock_that_was_set_back_does_not_change_the_order() {
    let mut site = Site::new(9);
    site.time.advance(Duration::from_secs(1000));
    site.grow(2);
    let first = site.backup().unwrap().stamp;
    site.time = runzeo::internal::base::clock::TimeSource::manual();
    site.grow(2);
    let second = site.backup().unwrap().stamp;
    assert!(first < second, "{first} {second}");
    assert_eq!(site.stamps(), [first, second]);
}

/// Blobs that were taken out by a pack with its old file kept are where the pack has put them.
#[test]
fn blobs_are_found_beside_a_packed_file() {
    let site = Site::new(10);
    let tids = site.grow(9);
    let before = site.blobs("blobs");
    assert!(before.len() >= 2);
    let (path, content) = before[0].clone();
    // As a pack between the opening of the file and the reading of its blobs leaves it.
    let old = site.path("blobs.old").join(&path);
    for dir in old
        .ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(site.path("blobs.old")))
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        site.disk.create_dir(dir).unwrap();
    }
    site.disk.rename(&site.path("blobs").join(&path), &old).unwrap();
    site.disk.put(&site.path("blobs.old/.layout"), b"bushy");
    let created = site.backup().unwrap();
    assert_eq!(created.databases[0].missing_blobs(), 0);
    site.restore(None, None).unwrap();
    assert!(site.blobs("restored").contains(&(path, content)));
    assert_eq!(site.blobs("restored").len(), before.len());
    assert!(!tids.is_empty());
}

#[test]
fn a_blob_without_a_file_is_said_and_does_not_keep_the_rest_from_being_backed_up() {
    let site = Site::new(11);
    site.grow(9);
    let all = site.blobs("blobs");
    site.disk.remove(&site.path("blobs").join(&all[0].0)).unwrap();
    let created = site.backup().unwrap();
    assert_eq!(created.databases[0].missing_blobs(), 1);
    let restored = site.restore(None, None).unwrap();
    assert_eq!((restored.blobs_missing, restored.blobs_added), (1, all.len() as u64 - 1));
    // Again: they are there already, and compared.
    let restored = site.restore(None, None).unwrap();
    assert_eq!((restored.blobs_kept, restored.blobs_added), (all.len() as u64 - 1, 0));
    // One that has another content is replaced.
    let changed = site.path("restored").join(&all[1].0);
    let mut content = all[1].1.clone();
    content[0] ^= 1;
    site.disk.remove(&changed).unwrap();
    site.disk.put(&changed, &content);
    assert_eq!(site.restore(None, None).unwrap().blobs_added, 1);
    assert_eq!(site.blobs("restored"), all[1..]);
    assert!(site.blob_dir().revisions(Oid(0)).is_empty());
}

/// A backup without blobs, and then one with: the blobs of the first part come in addition.
#[test]
fn blobs_can_be_added_to_a_later_backup() {
    let site = Site::new(12);
    site.grow(9);
    let mut options = site.options();
    options.sources[0].blob_dir = None;
    let created = site.backup_with(&options).unwrap();
    assert!(!created.databases[0].has_blobs);
    assert!(!site.objects().iter().any(|path| path.to_string_lossy().ends_with(".blob")));
    site.grow(2);
    assert!(site.backup().unwrap().databases[0].has_blobs);
    site.restore(None, None).unwrap();
    assert_eq!(site.blobs("restored"), site.blobs("blobs"));
}
