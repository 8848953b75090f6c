//! What killed programs, Python's repozo and accidents leave in a repository: how it is named, what is restored, and
//! what the next backup does about it.

use crate::world::{World, database};

/// A full and two deltas; the moments end at these positions.
fn chain_of_three(world: &World) -> (Vec<u8>, Vec<usize>) {
    let (bytes, ends) = database(5);
    for end in &ends[1..4] {
        world.source(&bytes[..*end]);
        world.backup(|_| ()).unwrap();
    }
    (bytes, ends)
}

/// Changes the dat file.
fn edit_dat(world: &World, edit: impl FnOnce(&mut Vec<String>)) {
    let (path, text) = world.dat();
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    edit(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    world.disk.put(&path, text.as_bytes());
}

fn only(list: std::sync::Mutex<Vec<String>>) -> String {
    let list = list.into_inner().unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    list.into_iter().next().unwrap()
}

/// Killed between the rename of a delta and its line in the dat file.
#[test]
fn a_delta_without_a_line_is_restored_and_adopted() {
    for quick in [false, true] {
        let world = World::new();
        let (bytes, ends) = chain_of_three(&world);
        edit_dat(&world, |lines| drop(lines.pop()));
        let (restored, heard) = world.restored(None).unwrap();
        assert_eq!(restored, bytes[..ends[3]]);
        assert!(only(heard.warnings).contains("has no line in"));
        assert!(only(world.verified(false).unwrap().warnings).contains("was killed"));
        world.source(&bytes);
        let heard = world.backup(|o| o.quick = quick).unwrap();
        assert!(only(heard.mended).contains("has no line in"));
        assert_eq!((world.data().len(), world.dat().1.lines().count()), (4, 4));
        assert_eq!(world.restored(None).unwrap().0, bytes);
        assert!(world.verified(false).unwrap().warnings.into_inner().unwrap().is_empty());
    }
}

/// The same, and then a quick backup of Python's repozo, which goes on at the last line.
#[test]
fn a_delta_whose_bytes_were_written_again_is_left_out_and_removed() {
    let world = World::new();
    let (bytes, ends) = chain_of_three(&world);
    let covered = world.data()[2].clone();
    edit_dat(&world, |lines| drop(lines.pop()));
    // As Python would: a delta from the end of the second line.
    let hidden = world.bytes(&covered);
    world.remove(&covered);
    world.source(&bytes);
    world.backup(|o| o.quick = true).unwrap();
    world.put(&covered, &hidden);
    let concatenated: Vec<u8> = world.data().iter().flat_map(|name| world.bytes(name)).collect();
    assert_eq!(concatenated.len(), bytes.len() + ends[3] - ends[2]);

    let error = world.verified(false).map(|_| ()).unwrap_err();
    assert!(error.contains(&covered) && error.contains("would restore them twice"), "{error}");
    let (restored, heard) = world.restored(None).unwrap();
    assert_eq!(restored, bytes);
    assert!(only(heard.warnings).contains("leaves it out"));
    // As of the moment of that delta it is part of the chain.
    let moment = covered.split_once('.').unwrap().0;
    assert_eq!(world.restored(Some(moment)).unwrap().0, bytes[..ends[3]]);
    let heard = world.backup(|o| o.quick = true).unwrap();
    assert!(only(heard.mended).contains(&covered));
    assert!(!world.names().iter().any(|name| name.starts_with(moment)));
    assert!(world.verified(false).unwrap().warnings.into_inner().unwrap().is_empty());
    assert_eq!(world.restored(None).unwrap().0, bytes);
}

/// A second delta without a line that begins where the first one begins: no dat file tells it from one that follows.
#[test]
fn transactions_that_would_be_restored_twice_are_noticed() {
    let world = World::new();
    let (bytes, ends) = chain_of_three(&world);
    let first = world.data()[2].clone();
    edit_dat(&world, |lines| drop(lines.pop()));
    let hidden = world.bytes(&first);
    world.remove(&first);
    world.source(&bytes[..ends[4]]);
    world.backup(|o| o.quick = true).unwrap();
    edit_dat(&world, |lines| drop(lines.pop()));
    world.put(&first, &hidden);
    for error in [
        world.verified(false).map(|_| ()).unwrap_err(),
        world.restored(None).map(|_| ()).unwrap_err().to_string(),
    ] {
        assert!(error.contains("which the backups before it have already"), "{error}");
    }
    world.source(&bytes);
    world.backup(|o| o.quick = true).unwrap();
    assert_eq!(world.restored(None).unwrap().0, bytes);
}

/// The clock was wrong once: the database is as it is, and so are its backups.
#[test]
fn tids_that_do_not_ascend_in_the_database_are_no_damage() {
    let world = World::new();
    let (mut bytes, ends) = database(3);
    bytes[ends[2]..ends[2] + 8].copy_from_slice(&1u64.to_be_bytes());
    for end in &ends[1..] {
        world.source(&bytes[..*end]);
        world.backup(|_| ()).unwrap();
    }
    assert_eq!(world.data().len(), 3);
    world.verified(false).unwrap();
    assert_eq!(world.restored(None).unwrap().0, bytes);
    world.restore_to("Restored.fs").unwrap();
}

/// Python's default backup goes on behind the delta without a line, and the dat file has a gap.
#[test]
fn a_delta_without_a_line_in_the_middle_is_adopted() {
    let world = World::new();
    let (bytes, _) = chain_of_three(&world);
    edit_dat(&world, |lines| drop(lines.remove(1)));
    assert!(only(world.verified(false).unwrap().warnings).contains("has no line"));
    world.source(&bytes);
    world.backup(|_| ()).unwrap();
    let ranges: Vec<String> =
        world.dat().1.lines().map(|line| line.split(' ').nth(1).unwrap().into()).collect();
    assert!(
        ranges.len() == 4 && ranges.is_sorted_by_key(|start| start.parse::<u64>().unwrap()),
        "{ranges:?}"
    );
    assert_eq!(world.restored(None).unwrap().0, bytes);
}

/// A pack between the two opens of Python's repozo: a full that ends in the middle of a transaction.
#[test]
fn a_torn_full_is_named() {
    let world = World::new();
    let (bytes, ends) = database(3);
    world.source(&bytes);
    world.backup(|_| ()).unwrap();
    let name = world.data()[0].clone();
    let torn = &bytes[..ends[2] + 20];
    world.put(&name, torn);
    let sum = {
        use md5::Digest;
        md5::Md5::digest(torn).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    edit_dat(&world, |lines| lines[0] = format!("r/{name} 0 {} {sum}", torn.len()));
    assert!(world.verified(true).is_ok(), "sizes are right");
    for error in [
        world.verified(false).map(|_| ()).unwrap_err(),
        world.restored(None).map(|_| ()).unwrap_err().to_string(),
    ] {
        assert!(error.contains(&name) && error.contains("in the middle of a transaction"), "{error}");
    }
    // Nothing is put in place, and what was recovered stays.
    world.disk.put(&world.path("Restored.fs"), b"former");
    let error = world.restore_to("Restored.fs").unwrap_err().to_string();
    assert!(error.contains("Restored.fs is as it was"), "{error}");
    assert_eq!(world.disk.bytes(&world.path("Restored.fs")).unwrap(), b"former");
    assert_eq!(world.disk.bytes(&world.path("Restored.fs.part")).unwrap(), torn);
}

#[test]
fn a_lost_dat_file_is_written_again() {
    for quick in [false, true] {
        let world = World::new();
        let (bytes, ends) = chain_of_three(&world);
        let (path, text) = world.dat();
        world.remove(path.file_name().unwrap().to_str().unwrap());
        let error = world.verified(false).map(|_| ()).unwrap_err();
        assert!(error.contains(".dat is missing"), "{error}");
        assert_eq!(world.restored(None).unwrap().0, bytes[..ends[3]]);
        let error = world.restore_to("Restored.fs").unwrap_err().to_string();
        assert!(error.contains(".dat is missing"), "{error}");
        world.backup(|o| o.quick = quick).unwrap();
        assert_eq!(world.dat(), (path, text));
    }
}

#[test]
fn a_dat_file_that_ends_in_a_line_is_mended() {
    let world = World::new();
    let (bytes, _) = chain_of_three(&world);
    let (path, text) = world.dat();
    for cut in [1, 20, 60] {
        world.disk.put(&path, &text.as_bytes()[..text.len() - cut]);
        assert!(world.verified(false).is_ok());
        world.backup(|o| o.quick = true).unwrap();
        assert!(world.dat().1 == text, "{cut}");
    }
    world.source(&bytes);
    world.backup(|_| ()).unwrap();
    assert_eq!(world.restored(None).unwrap().0, bytes);
}

fn gzipped(world: &World) -> bool {
    world.data().iter().any(|name| name.ends_with('z'))
}

/// A text of the verification, or several, and what is done to the repository.
type Damage = (&'static str, fn(&World));

fn damages() -> [Damage; 9] {
    [
        ("is missing", |world| world.remove(&world.data()[1].clone())),
        ("are in no backup", |world| {
            let name = world.data()[1].clone();
            world.remove(&name);
            edit_dat(world, |lines| drop(lines.remove(1)));
        }),
        ("before the end of the backup before it", |world| {
            edit_dat(world, |lines| {
                let words: Vec<&str> = lines[2].split(' ').collect();
                lines[2] = format!("{} {} {} {}", words[0], 4, words[2], words[3]);
            });
        }),
        ("line 2: it has less than four words", |world| edit_dat(world, |lines| lines[1] = "x".into())),
        ("has checksum", |world| {
            let name = world.data()[1].clone();
            let mut bytes = world.bytes(&name);
            if gzipped(world) {
                bytes = gzip(&ungzip(&bytes).iter().map(|b| b ^ 1).collect::<Vec<_>>());
            } else {
                bytes[50] ^= 1;
            }
            world.put(&name, &bytes);
        }),
        ("bytes, should be", |world| {
            let name = world.data()[2].clone();
            let bytes = world.bytes(&name);
            if gzipped(world) {
                let content = ungzip(&bytes);
                world.put(&name, &gzip(&content[..content.len() - 1]));
            } else {
                world.put(&name, &bytes[..bytes.len() - 1]);
            }
        }),
        ("bytes, should be|cannot be decompressed", |world| {
            let name = world.data()[0].clone();
            let bytes = world.bytes(&name);
            world.put(&name, &bytes[..bytes.len() / 2]);
        }),
        ("bytes, should be|cannot be decompressed", |world| {
            let name = world.data()[2].clone();
            world.put(&name, b"");
        }),
        ("has checksum|should be", |world| {
            let (one, two) = (world.data()[1].clone(), world.data()[2].clone());
            let (first, second) = (world.bytes(&one), world.bytes(&two));
            world.put(&one, &second);
            world.put(&two, &first);
        }),
    ]
}

/// Each of these is named by a verification, refused by a restore with all sums, and makes the next backup a full.
#[test]
fn what_cannot_be_mended_is_named_and_makes_a_full() {
    for gzip in [false, true] {
        for (number, (expected, damage)) in damages().iter().enumerate() {
            let world = World::new();
            let (bytes, ends) = database(5);
            for end in &ends[1..4] {
                world.source(&bytes[..*end]);
                world.backup(|o| o.gzip = gzip).unwrap();
            }
            damage(&world);
            let error = world.verified(false).map(|_| ()).unwrap_err();
            // Of a compressed backup the size is followed by a remark.
            let error = error.replace(" (when uncompressed)", "");
            assert!(expected.split('|').any(|part| error.contains(part)), "{number}: {error}");
            world.disk.put(&world.path("Restored.fs"), b"former");
            world.restore_to("Restored.fs").unwrap_err();
            assert_eq!(world.disk.bytes(&world.path("Restored.fs")).unwrap(), b"former");
            world.source(&bytes);
            let before = world.data().len();
            world.backup(|_| ()).unwrap();
            let data = world.data();
            assert_eq!(data.len(), before + 1);
            assert!(data.last().unwrap().ends_with(".fs"), "{number}: {data:?}");
            assert_eq!(world.restored(None).unwrap().0, bytes);
            // The older chain is still damaged, and a verification says so.
            assert!(world.verified(false).is_err(), "{number}");
        }
    }
}

fn ungzip(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut content).unwrap();
    content
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut out, content).unwrap();
    out.finish().unwrap()
}

#[test]
fn a_repository_without_a_full_has_nothing_to_restore() {
    let world = World::new();
    let (bytes, ends) = chain_of_three(&world);
    let full = world.data()[0].clone();
    world.remove(&full);
    assert_eq!(world.restored(None).map(|_| ()).unwrap_err().to_string(), "No files in repository");
    assert_eq!(world.verified(false).map(|_| ()).unwrap_err(), "No files in repository");
    world.source(&bytes[..ends[4]]);
    world.backup(|o| o.quick = true).unwrap();
    assert_eq!(world.restored(None).unwrap().0, bytes[..ends[4]]);
}

#[test]
fn files_of_killed_runs_are_removed() {
    let world = World::new();
    let (bytes, _) = chain_of_three(&world);
    let full = world.data()[0].clone();
    for name in [format!("{full}.part"), "2020-01-01-00-00-00.deltafsz.part".into(), "notes.part".into()] {
        world.put(&name, b"half");
    }
    world.source(&bytes);
    world.backup(|_| ()).unwrap();
    let parts: Vec<String> = world.names().into_iter().filter(|name| name.ends_with(".part")).collect();
    assert_eq!(parts, ["notes.part"]);
}
