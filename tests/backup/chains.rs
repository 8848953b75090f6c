//! Fulls, deltas, and what each moment restores to.

use std::path::Path;
use std::sync::Arc;

use crate::world::{Heard, World, database};
use runzeo::internal::backup::repozo::{Repository, RepozoError};
use runzeo::internal::storage::file::parse_index;
use runzeo::internal::storage::media::RealMedia;

fn stamp(name: &str) -> &str {
    name.split_once('.').unwrap().0
}

#[test]
fn each_moment_of_a_chain_is_restored() {
    let (bytes, ends) = database(6);
    for (quick, gzip) in [(false, false), (true, false), (false, true), (true, true)] {
        let world = World::new();
        for (n, end) in ends.iter().skip(1).enumerate() {
            world.source(&bytes[..*end]);
            let heard = world.backup(|o| (o.quick, o.gzip) = (quick, gzip ^ (n % 3 == 2))).unwrap();
            assert!(heard.warnings.into_inner().unwrap().is_empty());
        }
        let data = world.data();
        assert_eq!(data.len(), ends.len() - 1, "{data:?}");
        assert!(data[0].contains(".fs") && data[1..].iter().all(|name| name.contains(".deltafs")));
        for (name, end) in data.iter().zip(&ends[1..]) {
            let (restored, heard) = world.restored(Some(stamp(name))).unwrap();
            assert!(restored == bytes[..*end] && heard.warnings.into_inner().unwrap().is_empty(), "{name}");
            let index = parse_index(&world.bytes(&format!("{}.index", stamp(name)))).unwrap();
            assert_eq!(index.pos, *end as u64);
            assert!(index.objects().count() > 0);
        }
        assert_eq!(world.restored(None).unwrap().0, bytes);
        for quick in [false, true] {
            assert!(world.verified(quick).unwrap().warnings.into_inner().unwrap().is_empty());
        }
        let before = world.restored(Some("2000")).map(|_| ()).unwrap_err().to_string();
        assert_eq!(before, "No files in repository before 2000");
        // Nothing has changed.
        let names = world.names();
        world.backup(|o| o.quick = quick).unwrap();
        assert_eq!(world.names(), names);
    }
}

#[test]
fn a_transaction_that_is_not_complete_is_no_change() {
    let (bytes, ends) = database(3);
    let world = World::new();
    world.source(&bytes[..ends[2]]);
    world.backup(|_| ()).unwrap();
    for quick in [false, true] {
        world.source(&bytes[..ends[2] + 30]);
        world.backup(|o| o.quick = quick).unwrap();
        assert_eq!(world.data().len(), 1);
    }
    world.source(&bytes[..ends[3] - 1]);
    world.backup(|o| o.full = true).unwrap();
    assert_eq!(world.restored(None).unwrap().0, bytes[..ends[2]]);
    world.source(&bytes);
    world.backup(|_| ()).unwrap();
    assert_eq!(world.restored(None).unwrap().0, bytes);
    assert_eq!(world.data().len(), 3);
}

#[test]
fn another_file_makes_a_full() {
    let (bytes, ends) = database(4);
    let (other, _) = database(5);
    for quick in [false, true] {
        for source in [&bytes[..ends[1]], &other] {
            let world = World::new();
            world.source(&bytes[..ends[3]]);
            world.backup(|_| ()).unwrap();
            world.source(&bytes);
            world.backup(|_| ()).unwrap();
            world.source(source);
            world.backup(|o| o.quick = quick).unwrap();
            let data = world.data();
            assert!(data.len() == 3 && data[2].ends_with(".fs"), "{data:?}");
            assert_eq!(world.restored(None).unwrap().0, source);
            assert_eq!(world.restored(Some(stamp(&data[1]))).unwrap().0, bytes);
        }
    }
}

#[test]
fn older_backups_are_removed_only_after_the_new_one_was_verified() {
    let (bytes, ends) = database(4);
    let world = World::new();
    for end in &ends[1..] {
        world.source(&bytes[..*end]);
        world.backup(|_| ()).unwrap();
    }
    let older = world.data();
    // A length in the file is wrong: the source is damaged where the index does not notice it.
    let mut damaged = bytes.clone();
    damaged[ends[1] - 1] ^= 1;
    world.disk.put(&world.path("Data.fs.index"), &world.bytes(&format!("{}.index", stamp(&older[3]))));
    world.source(&damaged);
    let heard = Heard::default();
    let error =
        world.backup_telling(|o| (o.full, o.kill_old) = (true, true), &heard).unwrap_err().to_string();
    assert!(error.ends_with("The older backups are kept") && error.contains("is damaged: at 4:"), "{error}");
    let warnings = heard.warnings.into_inner().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("Data.fs is damaged at 4:"), "{warnings:?}");
    assert_eq!(world.data()[..4], older);

    world.source(&bytes);
    let heard = world.backup(|o| (o.full, o.kill_old, o.gzip) = (true, true, true)).unwrap();
    assert_eq!(heard.removed.into_inner().unwrap().len(), 5);
    let names = world.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(world.restored(None).unwrap().0, bytes);
}

#[test]
fn one_backup_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let repository = || Repository::new(Arc::new(RealMedia), dir.path());
    let heard = Heard::default();
    let held = repository().lock(&heard).unwrap();
    let error = repository().lock(&heard).map(|_| ()).unwrap_err();
    assert!(matches!(&error, RepozoError::Locked { .. }));
    let expected = format!("(process {})", std::process::id());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(held.is_some());
    drop(held);
    repository().lock(&heard).unwrap();
    assert!(Repository::new(Arc::new(RealMedia), Path::new("/nowhere")).lock(&heard).is_err());
}
