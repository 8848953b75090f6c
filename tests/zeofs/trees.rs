//! `zeofs trees` beside the checks of the BTrees package, on trees that the package has made and a script has damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::files::{fixtures, json, made, run};
use crate::support::pythons::python;

/// A database of trees.
struct Trees {
    environment: &'static str,
    dir: TempDir,
    /// By name: the oid, and what Python's checks say.
    verdicts: BTreeMap<String, (String, String)>,
}

impl Trees {
    fn path(&self) -> PathBuf {
        self.dir.path().join("trees.fs")
    }

    fn oid(&self, name: &str) -> &str {
        &self.verdicts[name].0
    }
}

fn trees() -> &'static [Trees] {
    static MADE: OnceLock<Vec<Trees>> = OnceLock::new();
    MADE.get_or_init(|| ["zeo6-py311", "zeo4-py27"].into_iter().filter_map(make).collect())
}

fn make(environment: &'static str) -> Option<Trees> {
    let python = python(environment)?;
    let dir = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zeofs/make_trees.py");
    let output = Command::new(python).arg(script).arg(dir.path()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let line = |line: &str| {
        let [name, oid, verdict] = line.split('\t').collect::<Vec<_>>().try_into().expect("three fields");
        (name.to_string(), (oid.to_string(), verdict.to_string()))
    };
    let verdicts = text.lines().map(line).collect();
    Some(Trees { environment, dir, verdicts })
}

/// What Python cannot say: it crashes in a circle, and checks each tree by itself.
const BEYOND_PYTHON: &[&str] = &["circle", "second owner"];

#[test]
fn damaged_trees_are_those_that_python_finds() {
    for trees in trees() {
        let (lines, status) = json("trees", &["-n", "9999"], &trees.path());
        let (sums, findings) = lines.split_last().unwrap();
        assert_eq!((status, sums["findings"].as_u64()), (4, Some(findings.len() as u64)));
        let found: BTreeSet<&str> = findings.iter().map(|line| line["tree"].as_str().unwrap()).collect();
        let names: BTreeSet<&str> = trees
            .verdicts
            .iter()
            .filter(|(_, (oid, _))| found.contains(oid.as_str()))
            .map(|(name, _)| name.as_str())
            .collect();
        let expected: BTreeSet<&str> = trees
            .verdicts
            .iter()
            .filter(|(_, (_, verdict))| verdict != "whole")
            .map(|(name, _)| name.as_str())
            .chain(BEYOND_PYTHON.iter().copied())
            .collect();
        assert!(expected.len() > 150, "{}: {expected:?}", trees.environment);
        assert_eq!(names, expected, "{}", trees.environment);
        // Garbage, too, is as it should be: nodes of a tree that was cleared, buckets that were emptied.
        assert_eq!(found.len(), names.len(), "{}: {found:?}", trees.environment);
        assert_eq!(sums["unsure"].as_u64(), Some(dates(trees)), "{}", trees.environment);
    }
}

/// Buckets and nodes with dates as keys, which only their class compares.
fn dates(trees: &Trees) -> u64 {
    let (lines, status) = json("trees", &["-o", trees.oid("dates")], &trees.path());
    let sums = lines.last().unwrap();
    assert_eq!((lines.len(), status, sums["keys"].as_u64()), (1, 0, Some(100)));
    let unsure = sums["unsure"].as_u64().unwrap();
    assert_eq!(Some(unsure), sums["records"].as_u64());
    unsure
}

/// What is found is what was done, at the node where it was done, and nothing else.
#[test]
fn each_damage_is_named() {
    for trees in trees() {
        let (all, _) = json("trees", &["-n", "9999"], &trees.path());
        for kind in ["oo", "oo-set", "io", "ii", "lo", "oi", "lf", "fs", "oo-large"] {
            for (damage, what) in [
                ("swap_keys", "keys are not ascending: number 2 of "),
                ("same_key", "keys are not ascending: number 2 of "),
                ("empty_bucket", "an empty bucket"),
                ("cut_chain", "it refers to none"),
                ("skip_in_chain", "the next bucket is 0x"),
                ("back_in_chain", "the next bucket is 0x"),
                ("beyond_the_end", "the next bucket is none, it refers to 0x"),
                ("separator_too_low", "a key is not less than the one behind its node"),
                ("separator_too_high", "a key is less than the one before its node"),
                ("swap_separators", "keys are not ascending: number 3 of "),
                ("node_twice", "its node has it twice"),
                ("bucket_left_out", "the next bucket is 0x"),
                ("first_bucket", "its first bucket is not the first one of those below it"),
                ("missing_bucket", "was deleted, or its creation undone"),
            ] {
                let name = format!("{kind} {damage}");
                let lines: Vec<&Value> = all.iter().filter(|line| line["tree"] == trees.oid(&name)).collect();
                let first = lines[0];
                assert!(first["what"].as_str().unwrap().contains(what), "{name}: {first}");
                let path = first["path"].as_array().unwrap();
                assert_eq!((&path[0], path.last()), (&first["tree"], Some(&first["oid"])), "{name}");
                if kind == "oo-large" {
                    let is_of_inner = ["swap_separators", "first_bucket"].contains(&damage);
                    assert_eq!(path.len(), if is_of_inner { 2 } else { 3 }, "{name}: {first}");
                }
                // Only the order of separators, and a key beyond them, follow from each other.
                if damage != "swap_separators" && !damage.starts_with("separator") {
                    assert_eq!(lines.len(), 1, "{name}: {lines:?}");
                }
            }
        }
    }
}

#[test]
fn what_python_does_not_see_is_named() {
    for trees in trees() {
        let (lines, _) = json("trees", &["-n", "9999"], &trees.path());
        let of = |name: &str| -> Vec<&Value> {
            lines.iter().filter(|line| line["tree"] == trees.oid(name)).collect()
        };
        let what = of("circle")[0]["what"].as_str().unwrap();
        assert_eq!(what, "the root of the tree is a node of itself", "{}", trees.environment);
        let what = of("second owner")[0]["what"].as_str().unwrap();
        let first = u64::from_str_radix(trees.oid("first owner"), 16).unwrap();
        let expected = format!("it is a child of two nodes: the other one is {}", repr(first));
        assert_eq!(what, expected, "{}", trees.environment);
    }
}

fn repr(oid: u64) -> String {
    let digits = format!("{oid:x}");
    if digits.len() % 2 == 1 { format!("0x0{digits}") } else { format!("0x{digits}") }
}

/// All that the package has written is whole, with the keys that were put in.
#[test]
fn whole_trees_are_whole() {
    let files = made().iter().flat_map(|made| made.files.clone());
    for path in files.chain(fixtures().into_iter().map(|(_, path)| path)) {
        let (lines, status) = json("trees", &[], &path);
        assert_eq!((lines.len(), status), (1, 0), "{}: {lines:?}", path.display());
    }
    for made in made() {
        let (lines, _) = json("trees", &[], &made.file("plain.fs"));
        // 100 keys in the OOBTree; the IOBTree with 200 is garbage.
        assert_eq!((lines[0]["trees"].as_u64(), lines[0]["keys"].as_u64()), (Some(2), Some(300)));
    }
}

#[test]
fn words_for_people() {
    let Some(trees) = trees().first() else { return };
    let (text, status) = run("trees", &["-o", trees.oid("oo swap_keys")], &trees.path());
    assert_eq!(status, 4);
    assert!(text.contains(" BTrees.OOBTree.OOBTree: node 0x"), "{text}");
    assert!(text.contains(" BTrees.OOBTree.OOBucket\n    path 0x"), "{text}");
    assert!(text.ends_with("\nfindings: 1\n"), "{text}");
    let (text, status) = run("trees", &["-o", trees.oid("oo")], &trees.path());
    assert!(status == 0 && text.ends_with("keys: 500\nnothing is wrong\n"), "{text}");
    let (text, _) = run("trees", &["-n", "3"], &trees.path());
    assert!(text.contains("\n... and ") && text.contains("an instance of datetime.date"), "{text}");
    let (text, status) = run("trees", &["-o", "777777"], &trees.path());
    assert!(status == 4 && text.contains("0x777777\n    does not exist\n"), "{text}");
    let (text, status) = run("trees", &["-o", "0"], &trees.path());
    assert!(status == 4 && text.contains("a class of the BTrees package is expected"), "{text}");
}

/// A link with the name of ZODB's tool is this command.
#[test]
fn checkbtrees_is_this_command() {
    let (_, file) = &fixtures()[0];
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("checkbtrees.py");
    symlink(env!("CARGO_BIN_EXE_zeofs"), &link).unwrap();
    let output = Command::new(&link).arg(file).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), run("trees", &[], file).0);
    assert_eq!(Command::new(&link).output().unwrap().status.code(), Some(1));
    if let Some(trees) = trees().first() {
        assert_eq!(Command::new(&link).arg(trees.path()).output().unwrap().status.code(), Some(4));
    }
}
