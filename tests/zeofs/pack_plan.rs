//! `zeofs pack-plan`. Its figures are compared with packs in `tests/storage/pack.rs`.

use runzeo::ids::Tid;
use runzeo::internal::pickle::refs::references;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest};

use crate::files::{dir_in_memory, fixtures, json, made, run};
use crate::support::storage::{commit, open, referring_to};

#[test]
fn files_of_python_are_packed_as_planned() {
    let mut removed = 0;
    let files = made().iter().flat_map(|made| made.files.clone());
    for path in files.chain(fixtures().into_iter().map(|(_, path)| path)) {
        let bytes = std::fs::read(&path).unwrap();
        let (lines, status) = json("pack-plan", &[], &path);
        assert!(std::fs::read(&path).unwrap() == bytes, "it is only read");
        for line in lines.iter().filter(|line| line["kind"] == "plan") {
            let dir = dir_in_memory();
            let copy = dir.path().join("Data.fs");
            std::fs::write(&copy, &bytes).unwrap();
            let storage = FileStorage::open(FileStorageOptions::new(&copy)).unwrap();
            let progress = PackProgress::default();
            let request = PackRequest {
                time: Tid::now().to_unix() + 1.0,
                gc: line["gc"].as_bool(),
                references: &references,
                progress: &progress,
                removals: None,
            };
            let packed = storage.packing().unwrap().pack(&request);
            assert_eq!(packed.is_ok(), line["dangling"] == 0, "{}: {line} {packed:?}", path.display());
            if packed.is_ok() {
                assert_eq!(line["size_after"].as_u64(), Some(storage.size()), "{}: {line}", path.display());
                removed += line["revisions"]["removed"].as_u64().unwrap();
            }
        }
        let dangling = lines.iter().filter(|line| line["kind"] == "dangling").count();
        assert_eq!(status, if dangling > 0 { 4 } else { 0 });
    }
    assert!(removed > 20, "{removed}");
}

#[test]
fn a_file_that_is_served_and_what_would_make_the_pack_fail() {
    let dir = dir_in_memory();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let root =
        commit(&storage, &[(0, Tid::ZERO, &referring_to(&[1])), (1, Tid::ZERO, &referring_to(&[]))]).unwrap();
    let root = commit(&storage, &[(0, root, &referring_to(&[1, 2]))]).unwrap();
    let (text, status) = run("pack-plan", &[], &path);
    assert_eq!(status, 4);
    let line = |name: &str| {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.split_whitespace().skip(1).map(String::from).collect::<Vec<_>>()
    };
    assert!(text.contains("in use by process"), "{text}");
    assert_eq!(line("revisions"), ["3", "1", "1"]);
    assert_eq!(line("objects"), ["2", "0", "0"]);
    assert!(text.contains("would FAIL, and remove nothing: 1 references"), "{text}");
    assert!(text.ends_with("    0x00 refers to 0x02\n"), "{text}");
    // As of a time at which there was nothing.
    let (text, status) = run("pack-plan", &["-d", "1"], &path);
    assert_eq!(status, 0, "{text}");
    // The reference is gone, and object 1 with it.
    commit(&storage, &[(0, root, &referring_to(&[]))]).unwrap();
    let (lines, status) = json("pack-plan", &["-t", "23:59:59", "-d", "-1"], &path);
    assert_eq!((status, lines.len()), (0, 2));
    let removed = |line: &serde_json::Value| line["objects"]["removed"].as_u64();
    assert_eq!([removed(&lines[0]), removed(&lines[1])], [Some(1), Some(0)]);
    let (_, status) = run("pack-plan", &["-d", "x"], &path);
    assert_eq!(status, 2);
    let (_, status) = run("pack-plan", &[], &dir.path().join("missing.fs"));
    assert_eq!(status, 1);
}
