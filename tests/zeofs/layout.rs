//! `zeofs layout` on blobs that ZODB has written, beside ZODB's migrateblobs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::{dir_in_memory, json, made, run, zeofs};
use crate::support::pythons::python;
use crate::support::storage::open;

/// Commits two revisions of blobs, if `MAKE`; prints what ZODB reads.
const SCRIPT: &str = r"
import sys
import transaction
import ZODB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
db = ZODB.DB(FileStorage(sys.argv[1], blob_dir=sys.argv[2]))
root = db.open().root()
if len(sys.argv) > 3:
    for number in range(300):
        root[number] = Blob()
        with root[number].open('w') as file:
            file.write(b'blob %d' % number if sys.version_info > (3,) else 'blob %d' % number)
    transaction.commit()
    with root[7].open('w') as file:
        file.write(b'changed')
    transaction.commit()
for number in range(300):
    with root[number].open() as file:
        print(file.read().decode())
db.close()
";

fn of_python(environment: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(python(environment)?).arg("-c").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// All files below, with their content; without locks and temporary directories.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found.retain(|path, _| !path.to_str().unwrap().ends_with(".lock"));
    found
}

#[test]
fn a_change_is_that_of_migrateblobs() {
    for environment in ["zeo6-py311", "zeo4-py27"] {
        let dir = dir_in_memory();
        let [data, blobs, migrated] =
            ["Data.fs", "blobs", "migrated"].map(|name| dir.path().join(name).to_str().unwrap().to_string());
        let Some(before) = of_python(environment, &[SCRIPT, &data, &blobs, "make"]) else { continue };
        let original = files(Path::new(&blobs));
        assert_eq!(original.len(), 302);
        let (text, status) = run("layout", &[], Path::new(&blobs));
        assert_eq!(
            (text.as_str(), status),
            (&*format!("{blobs}: bushy\nobjects with blobs: 300, blobs: 301\n"), 0)
        );
        let migrate = "import sys; from ZODB.scripts.migrateblobs import main; main()";
        of_python(environment, &[migrate, "-l", "lawn", &blobs, &migrated]);

        let (text, status) = zeofs(&["layout", "-f", &data, &blobs, "lawn"]);
        let text = String::from_utf8(text).unwrap();
        let expected =
            format!("{blobs}: 301 blobs have their names of the layout lawn now, instead of bushy\n");
        assert_eq!((text, status), (expected, 0));
        assert_eq!(files(Path::new(&blobs)), files(Path::new(&migrated)), "{environment}");
        // No second names and empty directories are left: 300 directories of objects, and `tmp`.
        let entries: Vec<_> = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(entries.iter().filter(|entry| entry.path().is_dir()).count(), 301);
        assert_eq!(of_python(environment, &[SCRIPT, &data, &blobs]).unwrap(), before);
        for path in files(Path::new(&blobs)).keys().filter(|path| path.ends_with(".blob")) {
            assert_eq!(
                fs::metadata(Path::new(&blobs).join(path)).unwrap().nlink(),
                2,
                "the one of migrateblobs"
            );
        }

        assert_eq!(zeofs(&["layout", "-f", &data, &blobs, "bushy"]).1, 0);
        assert_eq!(files(Path::new(&blobs)), original);
        assert_eq!(of_python(environment, &[SCRIPT, &data, &blobs]).unwrap(), before);
        let (lines, status) = json("layout", &[], Path::new(&blobs));
        assert_eq!(
            (lines[0]["layout"].as_str(), lines[0]["blobs"].as_u64(), status),
            (Some("bushy"), Some(301), 0)
        );
        let (text, status) = zeofs(&["layout", "--unused", &blobs, "bushy"]);
        assert!(status == 0 && String::from_utf8(text).unwrap().ends_with(": the layout is bushy already\n"));
    }
}

#[test]
fn what_is_in_use_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let [data, blobs] = ["Data.fs", "blobs"].map(|name| dir.path().join(name));
    fs::create_dir_all(blobs.join("0x01")).unwrap();
    fs::write(blobs.join("0x01/0x05.blob"), "data").unwrap();
    let before = files(&blobs);
    let storage = open(&data);
    let change = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_zeofs"))
            .arg("layout")
            .args(options)
            .args([blobs.to_str().unwrap(), "bushy"])
            .output()
            .unwrap();
        (String::from_utf8(output.stderr).unwrap(), output.status.code())
    };
    let data = data.to_str().unwrap();
    let (text, status) = change(&["-f", data]);
    assert!(status == Some(1) && text.contains("Data.fs.lock'"), "{text}");
    drop(storage);
    // This process has a file in it open.
    let held = fs::File::open(blobs.join("0x01/0x05.blob")).unwrap();
    for options in [&["-f", data][..], &["--unused"]] {
        let (text, status) = change(options);
        // Or by a child that another test is about to start.
        let is_named = text.contains("is in use by process ") && text.contains(": stop it");
        assert!(status == Some(1) && is_named, "{text}");
    }
    drop(held);
    for (options, status) in
        [(&[][..], 2), (&["-f", data, "--unused"], 2), (&["-f", "/nonexistent/Data.fs"], 1)]
    {
        assert_eq!(change(options).1, Some(status), "{options:?}");
    }
    assert_eq!(files(&blobs), before);
    assert_eq!(zeofs(&["layout", blobs.to_str().unwrap(), "zeocache"]).1, 2);
    let (text, _) = run("layout", &[], &blobs);
    assert!(text.contains(": lawn (without a marker)\n"), "{text}");
    // One that was interrupted.
    fs::write(blobs.join(".relayout"), "link lawn bushy").unwrap();
    let (text, status) = run("layout", &[], &blobs);
    assert!(
        status == 4 && text.ends_with("a change from lawn to bushy was interrupted: run it again\n"),
        "{text}"
    );
    assert_eq!(change(&["-f", data]), (String::new(), Some(0)));
    let expected: Vec<PathBuf> =
        [".layout", "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x01/0x05.blob"].map(PathBuf::from).into();
    assert_eq!(files(&blobs).into_keys().collect::<Vec<_>>(), expected);
}

/// Killed at any moment, it is ended by the next run.
#[test]
fn a_kill_loses_nothing() {
    let dir = dir_in_memory();
    let blobs = dir.path().join("blobs");
    for oid in 0..400 {
        let home = blobs.join(format!("0x{oid:04x}").replace("0x00", "0x"));
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("0x05.blob"), format!("blob {oid}")).unwrap();
    }
    let expected: Vec<Vec<u8>> = {
        let mut contents: Vec<Vec<u8>> = files(&blobs).into_values().collect();
        contents.sort();
        contents
    };
    assert_eq!(expected.len(), 400);
    let mut target = "bushy";
    let mut kills = 0;
    for millis in (0..60).step_by(3) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_zeofs"))
            .args(["layout", "--unused", blobs.to_str().unwrap(), target])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        child.kill().unwrap();
        kills += u32::from(!child.wait().unwrap().success());
        let (_, status) = zeofs(&["layout", "--unused", blobs.to_str().unwrap(), target]);
        assert_eq!(status, 0, "{millis}");
        let mut found: Vec<Vec<u8>> = files(&blobs)
            .into_iter()
            .filter(|(path, _)| !path.starts_with(".layout"))
            .map(|(_, data)| data)
            .collect();
        found.sort();
        assert_eq!(found, expected, "{millis}");
        target = if target == "bushy" { "lawn" } else { "bushy" };
    }
    assert!(kills > 0);
}

#[test]
fn the_blobs_of_a_storage_stay_with_it() {
    for made in made() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("blobs");
        let source = made.file("blobs-plain");
        for (path, data) in files(&source) {
            fs::create_dir_all(copy.join(&path).parent().unwrap()).unwrap();
            fs::write(copy.join(path), data).unwrap();
        }
        let copy = copy.to_str().unwrap();
        assert_eq!(zeofs(&["layout", "--unused", copy, "lawn"]).1, 0);
        assert_eq!(json("test", &["-b", copy], &made.file("plain.fs")).1, 0, "{}", made.environment);
    }
}
