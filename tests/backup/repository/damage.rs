//! Damage in a repository is found, and never restored; damage in a database comes back as it was.

use crate::repository::site::Site;
use crate::support::storage::transactions;
use runzeo::internal::backup::repository::CreateOptions;
use runzeo::internal::storage::media::Media;

#[test]
fn a_changed_byte_anywhere_is_found_and_not_restored() {
    let site = Site::new(1);
    site.grow(4);
    site.backup().unwrap();
    site.grow(2);
    site.backup().unwrap();
    let before = site.bytes("Data.fs");
    let dirs = [site.path("repo/objects"), site.path("repo/backups")];
    let files: Vec<_> = site
        .disk
        .paths()
        .into_iter()
        .filter(|path| dirs.iter().any(|dir| path.starts_with(dir)) && path.extension().is_some())
        .collect();
    assert!(files.len() > 8);
    let (mut found, mut changed) = (0, 0);
    for path in files {
        let bytes = site.disk.bytes(&path).unwrap();
        let step = (bytes.len() / 60).max(1);
        let changes = (0..bytes.len()).step_by(step).map(Some).chain([None]);
        for change in changes {
            let mut damaged = bytes.clone();
            match change {
                Some(at) => damaged[at] ^= 0x10,
                None => damaged.truncate(bytes.len() / 2),
            }
            site.disk.put(&path, &damaged);
            let what = format!("{} at {change:?}", path.display());
            // Some bits of zstd mean nothing. Whatever they are, the content has its sum.
            let may_be_same = path.extension().is_some_and(|end| end == "zst") && change.is_some();
            let is_found = !site.verify().unwrap().findings.is_empty();
            assert!(may_be_same || is_found, "{what}");
            (found, changed) = (found + u32::from(is_found), changed + 1);
            for stamp in site.stamps() {
                if let Ok(restored) = site.restore_to("Data.fs", "blobs", Some(&stamp), None) {
                    let restored = restored.aside.map(|aside| site.disk.bytes(&aside).unwrap());
                    assert!(restored.is_some_and(|former| former == before), "{what}");
                    let now = site.bytes("Data.fs");
                    assert!(before.starts_with(&now), "{what}");
                    site.disk.put(&site.path("Data.fs"), &before);
                    site.disk.remove(&site.path("Data.fs.before-restore")).unwrap();
                    site.disk.remove(&site.path("Data.fs.before-restore.index")).unwrap();
                }
                assert!(site.bytes("Data.fs") == before, "{what}");
            }
        }
        site.disk.put(&path, &bytes);
    }
    assert!(found * 10 > changed * 8, "{found} of {changed}");
    site.assert_whole("mended");
}

#[test]
fn a_missing_object_is_found_and_the_next_backup_has_it_again() {
    let site = Site::new(2);
    site.grow(4);
    site.backup().unwrap();
    site.grow(1);
    site.backup().unwrap();
    let reread = CreateOptions { reread: true, ..site.options() };
    for (number, path) in site.objects().into_iter().enumerate() {
        let bytes = site.disk.bytes(&path).unwrap();
        site.disk.remove(&path).unwrap();
        let verified = site.verify().unwrap();
        assert!(
            verified.findings.iter().any(|(_, what)| what.contains("is missing")),
            "{:?}",
            verified.findings
        );
        let (objects, is_list) = (site.objects(), path.to_string_lossy().ends_with(".blobs.zst"));
        let pruned = site.prune(9, false);
        assert!(pruned.is_err() >= is_list && site.objects() == objects, "{pruned:?}");
        site.backup_with(&reread).unwrap();
        let (file, blobs) = (format!("There{number}.fs"), format!("there{number}"));
        site.restore_to(&file, &blobs, None, None).unwrap();
        assert!(site.bytes(&file) == site.bytes("Data.fs"), "{}", path.display());
        assert_eq!(site.blobs(&blobs), site.blobs("blobs"), "{}", path.display());
        // The other backups may need it.
        site.disk.put(&path, &bytes);
    }
}

#[test]
fn nothing_is_removed_if_the_newest_backup_is_damaged() {
    let site = Site::new(3);
    for _ in 0..3 {
        site.grow(3);
        site.backup().unwrap();
    }
    let newest = site.objects().into_iter().find(|path| path.to_string_lossy().ends_with(".blob")).unwrap();
    let bytes = site.disk.bytes(&newest).unwrap();
    let mut damaged = bytes.clone();
    damaged[3] ^= 1;
    site.disk.put(&newest, &damaged);
    let error = site.prune(1, false).unwrap_err().to_string();
    assert!(error.starts_with("nothing was removed, because the newest backup "), "{error}");
    assert_eq!(site.stamps().len(), 3);
    site.disk.put(&newest, &bytes);
    assert_eq!(site.prune(1, false).unwrap().removed.len(), 2);
    // A backup that cannot be read: it is unknown what it needs.
    site.grow(1);
    site.backup().unwrap();
    let manifest = site
        .disk
        .paths()
        .into_iter()
        .find(|path| path.starts_with(site.path("repo/backups/")) && path.extension().is_some())
        .unwrap();
    site.disk.put(&manifest, b"{}\n");
    let error = site.prune(2, false).unwrap_err().to_string();
    assert!(error.starts_with("nothing was removed, because it is unknown what backup "), "{error}");
}

/// Each byte of a database in turn: what is damaged is backed up as it is, comes back, and is said.
#[test]
fn a_damaged_database_comes_back_as_it_is() {
    let site = Site::new(4);
    site.grow(3);
    let whole = site.bytes("Data.fs");
    let last = *transactions(&whole).last().unwrap();
    let mut found = 0;
    for at in (4..last).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        site.disk.put(&site.path("Data.fs"), &damaged);
        let Ok(created) = site.backup() else { continue };
        found += u64::from(!created.damage.is_empty());
        let len = created.databases[0].len as usize;
        if site.restore(None, None).is_ok() {
            assert!(site.bytes("Restored.fs") == damaged[..len], "{at}");
        }
    }
    assert!(found > 20, "{found}");
}

/// A backup that cannot be read keeps no other one from being restored.
#[test]
fn a_state_comes_from_another_backup_than_the_damaged_one() {
    let site = Site::new(6);
    let tids = site.grow(3);
    site.backup().unwrap();
    let first = site.bytes("Data.fs");
    for _ in 0..2 {
        site.grow(2);
        site.backup().unwrap();
    }
    let stamps = site.stamps();
    for damaged in [0, 2] {
        let name = format!("repo/backups/{}", stamps[damaged].file_name());
        let bytes = site.bytes(&name);
        site.disk.put(&site.path(&name), b"{}\n");
        site.restore(None, tids.last().copied()).unwrap();
        assert!(site.bytes("Restored.fs") == first);
        // The newest is not an older one.
        assert_eq!(site.restore(None, None).is_ok(), damaged == 0);
        assert!(site.restore(Some(&stamps[damaged]), None).is_err());
        site.disk.put(&site.path(&name), &bytes);
    }
}

#[test]
fn other_directories_and_formats_are_left_alone() {
    let site = Site::new(5);
    site.grow(1);
    site.disk.create_dir(&site.path("repo")).unwrap();
    site.disk.put(&site.path("repo/file"), b"something");
    let error = site.backup().map(drop).unwrap_err().to_string();
    assert!(
        error
            .ends_with("it is no repository of zeobackup, and not empty (it has file): name a new directory"),
        "{error}"
    );
    assert_eq!(site.disk.paths().iter().filter(|path| path.starts_with(site.path("repo/"))).count(), 1);
    site.disk.remove(&site.path("repo/file")).unwrap();
    site.backup().unwrap();
    site.disk.put(&site.path("repo/zeobackup.repository"), b"repository of zeobackup, format 2\n");
    for error in [site.backup().map(drop).unwrap_err(), site.restore(None, None).map(drop).unwrap_err()] {
        assert!(error.to_string().contains("a newer program has made it"), "{error}");
    }
}
