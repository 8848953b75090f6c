//! `zeofs refs` and `zeofs oid`, beside what a dump says.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::files::{fixtures, json, made, run, zeofs};

/// The newest record of each object, from a dump: what it refers to, or `None` if the object is gone.
fn newest(path: &Path) -> BTreeMap<String, Option<Vec<String>>> {
    let (lines, _) = json("dump", &["--refs"], path);
    let records = lines.iter().filter(|line| line["kind"] == "record");
    let refs = |line: &Value| {
        let refs = line["refs"].as_array()?;
        Some(refs.iter().map(|oid| oid.as_str().unwrap().to_string()).collect())
    };
    records.map(|line| (line["oid"].as_str().unwrap().to_string(), refs(line))).collect()
}

fn files() -> Vec<PathBuf> {
    let files = made().iter().flat_map(|made| made.files.clone());
    files.chain(fixtures().into_iter().map(|(_, path)| path)).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|oid| oid.as_str().unwrap()).collect()
}

#[test]
fn dangling_references_are_those_of_the_dump() {
    let mut found = 0;
    for path in files() {
        let objects = newest(&path);
        let expected: BTreeSet<(&str, &str, &str)> = objects
            .iter()
            .flat_map(|(from, refs)| refs.iter().flatten().map(move |to| (from.as_str(), to.as_str())))
            .filter_map(|(from, to)| match objects.get(to) {
                Some(Some(_)) => None,
                Some(None) => Some((from, to, "gone")),
                None => Some((from, to, "missing")),
            })
            .collect();
        let (lines, status) = json("refs", &[], &path);
        let (sums, lines) = lines.split_last().unwrap();
        let printed: BTreeSet<(&str, &str, &str)> = lines
            .iter()
            .flat_map(|line| line["refs"].as_array().unwrap().iter().map(move |to| (line, to)))
            .map(|(line, to)| {
                (line["oid"].as_str().unwrap(), to["oid"].as_str().unwrap(), to["why"].as_str().unwrap())
            })
            .collect();
        assert_eq!(printed, expected, "{}", path.display());
        assert_eq!(status, if expected.is_empty() { 0 } else { 4 });
        assert_eq!(sums["dangling"].as_u64(), Some(expected.len() as u64));
        assert_eq!(sums["objects"].as_u64(), Some(objects.len() as u64));
        let references: usize = objects.values().flatten().map(Vec::len).sum();
        assert_eq!(sums["references"].as_u64(), Some(references as u64));
        found += expected.len();
    }
    assert!(found > 3 || made().is_empty(), "{found}");
}

/// Steps from the root, for objects that can be reached.
fn distances(objects: &BTreeMap<String, Option<Vec<String>>>) -> HashMap<&str, usize> {
    let root = objects.keys().next().unwrap().as_str();
    let mut distances = HashMap::from([(root, 0)]);
    let mut open = VecDeque::from([root]);
    while let Some(oid) = open.pop_front() {
        for to in objects[oid].iter().flatten() {
            let is_there = objects.get(to).is_some_and(Option::is_some);
            if is_there && !distances.contains_key(to.as_str()) {
                distances.insert(to, distances[oid] + 1);
                open.push_back(to);
            }
        }
    }
    distances
}

/// Revisions, references both ways, and a shortest way from the root, of each object.
#[test]
fn an_object_is_shown_with_all_that_belongs_to_it() {
    for made in made() {
        for path in ["plain.fs", "packed.fs", "unpacked.fs"].map(|name| made.file(name)) {
            let objects = newest(&path);
            let distances = distances(&objects);
            let (dumped, _) = json("dump", &[], &path);
            for (oid, refs) in &objects {
                let (text, status) = zeofs(&["oid", "--json", path.to_str().unwrap(), oid]);
                let lines: Vec<Value> = String::from_utf8(text)
                    .unwrap()
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
                let of_kind =
                    |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
                let oids_of = |kind: &str| -> Vec<String> {
                    of_kind(kind).iter().map(|line| line["oid"].as_str().unwrap().to_string()).collect()
                };
                let mut positions: Vec<u64> =
                    of_kind("revision").iter().map(|line| line["pos"].as_u64().unwrap()).collect();
                positions.reverse();
                let records =
                    dumped.iter().filter(|line| line["kind"] == "record" && line["oid"] == oid.as_str());
                assert_eq!(positions, records.map(|line| line["pos"].as_u64().unwrap()).collect::<Vec<_>>());
                assert_eq!(oids_of("refers_to"), refs.clone().unwrap_or_default());
                let expected = objects.iter().filter(|(_, refs)| refs.iter().flatten().any(|to| to == oid));
                assert_eq!(
                    oids_of("referred_by"),
                    expected.map(|(from, _)| from.clone()).collect::<Vec<_>>()
                );

                let way = &of_kind("path")[0]["oids"];
                match distances.get(oid.as_str()) {
                    Some(steps) => {
                        let way = texts(way);
                        assert_eq!((way.len(), status), (steps + 1, 0), "{oid} {way:?}");
                        assert_eq!(way.last(), Some(&oid.as_str()));
                        for step in way.windows(2) {
                            assert!(objects[step[0]].iter().flatten().any(|to| to == step[1]), "{way:?}");
                        }
                    }
                    None => assert!(way.is_null() && status == 4, "{oid} {way}"),
                }
            }
        }
    }
}

#[test]
fn words_for_people() {
    let Some(made) = made().first() else { return };
    let (text, status) = run("refs", &[], &made.file("unpacked.fs"));
    assert_eq!(status, 4);
    assert!(text.contains("    refers to 0x1234, which does not exist\n"), "{text}");
    let (text, _) = run("refs", &["-n", "0"], &made.file("unpacked.fs"));
    assert!(text.contains("\n... and ") && !text.contains("refers to"), "{text}");
    let plain = made.file("plain.fs");
    let of = |oid: &str| {
        let (text, status) = zeofs(&["oid", plain.to_str().unwrap(), oid]);
        (String::from_utf8(text).unwrap(), status)
    };
    assert!(of("0x9").0.contains("\nfrom the root: 0x00 > 0x02 > 0x09\n"), "{}", of("9").0);
    assert!(of("12345").0.contains("\nthe object does not exist\n") && of("12345").1 == 4);
    // Taken out of the root, and not packed yet.
    let garbage: Vec<_> =
        newest(&plain).into_keys().filter(|oid| of(oid).0.contains(": it is garbage\n")).collect();
    assert!(garbage.len() > 2, "{garbage:?}");
    let (_, status) = zeofs(&["oid", "--no-path", plain.to_str().unwrap(), &garbage[0]]);
    assert_eq!(status, 0);
}
