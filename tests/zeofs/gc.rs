//! `zeofs gc`, beside a model of three databases that refer to each other, and beside zc.zodbdgc.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::inspect::{DataFile, Member, Search};
use runzeo::storage::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use crate::files::zeofs;
use crate::served::Serving;
use crate::support::pythons::python;
use crate::support::storage::{commit, open, referring_to};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Databases, and the objects that the model says are garbage: `database oid`.
struct Databases {
    dir: TempDir,
    garbage: BTreeSet<String>,
}

impl Databases {
    /// `None`: there is no such environment.
    fn make(environment: &str, seed: u32, kind: &str) -> Option<Databases> {
        let python = python(environment)?;
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zeofs/make_databases.py");
        let output = Command::new(python)
            .arg(script)
            .arg(dir.path())
            .args([&seed.to_string(), kind])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let garbage: BTreeSet<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect();
        assert!(garbage.len() > 10, "{garbage:?}");
        Some(Databases { dir, garbage })
    }

    /// `one=DIR/one.fs` and so on.
    fn arguments(&self) -> Vec<String> {
        NAMES
            .iter()
            .map(|name| format!("{name}={}", self.dir.path().join(format!("{name}.fs")).display()))
            .collect()
    }

    fn gc(&self, options: &[&str]) -> (String, u8) {
        gc(&options.iter().map(|option| option.to_string()).chain(self.arguments()).collect::<Vec<_>>())
    }

    fn found(&self, options: &[&str]) -> (BTreeSet<String>, Vec<Value>, u8) {
        found(options, &self.arguments())
    }

    /// A server of copies of the files, and `one=zeo://...` and so on.
    fn serve(&self, environment: Option<&str>) -> Option<(Serving, Vec<String>)> {
        let paths: Vec<_> = NAMES.iter().map(|name| self.dir.path().join(format!("{name}.fs"))).collect();
        let serving = Serving::start(environment, &paths)?;
        let arguments =
            NAMES.iter().enumerate().map(|(number, name)| format!("{name}={}", serving.url(number)));
        let arguments = arguments.collect();
        Some((serving, arguments))
    }

    /// Runs a script that has the names and paths of the databases as arguments, and returns what it prints.
    fn run_script(&self, script: &str) -> Vec<String> {
        let paths = NAMES.map(|name| self.dir.path().join(format!("{name}.fs")));
        let output =
            Command::new(python("zeo6-py311").unwrap()).args(["-c", script]).args(paths).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
    }
}

/// The objects that are garbage, and the other lines.
fn found(options: &[&str], databases: &[String]) -> (BTreeSet<String>, Vec<Value>, u8) {
    let options = ["--json"].iter().chain(options).map(|option| option.to_string());
    let (text, status) = gc(&options.chain(databases.iter().cloned()).collect::<Vec<_>>());
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{text}"));
    let (garbage, other): (Vec<_>, Vec<_>) =
        text.lines().map(line).partition(|line| line["kind"] == "garbage");
    let name = |line: &Value| {
        let oid = u64::from_str_radix(line["oid"].as_str().unwrap(), 16).unwrap();
        format!("{} {oid}", line["database"].as_str().unwrap())
    };
    (garbage.iter().map(name).collect(), other, status)
}

/// What is printed, errors included, and the exit status.
fn gc<T: AsRef<std::ffi::OsStr>>(arguments: &[T]) -> (String, u8) {
    let output = Command::new(env!("CARGO_BIN_EXE_zeofs")).arg("gc").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (text, output.status.code().unwrap().try_into().unwrap())
}

#[test]
fn what_nothing_refers_to_is_found() {
    for environment in ["zeo6-py311", "zeo4-py27"] {
        for seed in 1..4 {
            let Some(databases) = Databases::make(environment, seed, "") else { continue };
            let (garbage, _, status) = databases.found(&["-d", "2"]);
            assert_eq!((&garbage, status), (&databases.garbage, 0), "{environment}, {seed}");
        }
    }
}

/// Prints the garbage that zc.zodbdgc has found and deleted.
const ZODBDGC: &str = r"
import sys, tempfile
import zc.zodbdgc
with tempfile.NamedTemporaryFile('w') as config:
    for name, path in zip(['one', 'two', 'three'], sys.argv[1:]):
        config.write('<zodb %s>\n<filestorage>\npath %s\n</filestorage>\n</zodb>\n' % (name, path))
    config.flush()
    for name, oid in zc.zodbdgc.gc(config.name, days=2, return_bad=True):
        print(name, oid)
";

#[test]
fn it_is_what_zodbdgc_finds() {
    for seed in 11..14 {
        let Some(databases) = Databases::make("zeo6-py311", seed, "plain") else { continue };
        let (garbage, _, _) = databases.found(&["-d", "2"]);
        let of_zodbdgc: BTreeSet<String> = databases.run_script(ZODBDGC).into_iter().collect();
        assert_eq!(garbage, of_zodbdgc, "{seed}");
        // Its records of deletions are understood.
        let (garbage, other, status) = databases.found(&["-d", "2"]);
        assert_eq!((garbage.len(), status), (0, 0), "{seed}: {other:?}");
    }
}

/// Prints `database oid` of each object that cannot be loaded, before and after a pack, and the numbers of objects.
const LOAD: &str = r"
import sys, time
import ZODB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import p64
def missing(label, storages):
    for name, storage in zip(['one', 'two', 'three'], storages):
        for oid in range(200):
            try:
                storage.load(p64(oid))
            except POSKeyError:
                print(label, name, oid)
storages = [FileStorage(path, pack_gc=False) for path in sys.argv[1:]]
missing('before', storages)
before = sum(map(len, storages))
for storage in storages:
    storage.pack(time.time() + 1, referencesf)
missing('after', storages)
print('removed', before - sum(map(len, storages)))
for storage in storages:
    storage.close()
";

#[test]
fn what_is_deleted_is_gone_for_python_too() {
    let Some(databases) = Databases::make("zeo6-py311", 21, "") else { return };
    let before = databases.run_script(LOAD.split("before = ").next().unwrap());
    let (text, status) = databases.gc(&["-d", "2", "--delete"]);
    assert_eq!(status, 0, "{text}");
    let (garbage, other, status) = databases.found(&["-d", "2"]);
    assert_eq!((garbage.len(), status), (0, 0), "{other:?}");
    let gone: BTreeSet<String> = databases.garbage.iter().cloned().collect();
    let lines = databases.run_script(LOAD);
    let expected: BTreeSet<String> =
        before.iter().map(|line| line.replacen("before ", "", 1)).chain(gone.iter().cloned()).collect();
    for label in ["before ", "after "] {
        let found: BTreeSet<String> =
            lines.iter().filter_map(|line| line.strip_prefix(label)).map(String::from).collect();
        assert_eq!(found, expected, "{label}");
    }
    // The pack has removed the deleted objects.
    assert!(lines.contains(&format!("removed {}", gone.len())), "{:?}", lines.last());
    // It has also removed former revisions. What they alone referred to is garbage now.
    let (garbage, _, status) = databases.found(&["-d", "2"]);
    assert!(!garbage.is_empty() && status == 0, "{status}");
}

#[test]
fn nothing_is_deleted_unless_it_is_wanted() {
    let Some(databases) = Databases::make("zeo6-py311", 22, "") else { return };
    let file = databases.dir.path().join("two.fs");
    let before = fs::read(&file).unwrap();
    let (text, status) = databases.gc(&["-d", "2"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("GARBAGE") && text.contains("nothing was deleted"), "{text}");
    assert!(fs::read(&file).unwrap() == before);
    // What was written lately is kept: with fewer days there is more garbage, with more days there is none.
    let of = |days: &str| databases.found(&["-d", days]).0;
    let (all, some) = (of("0"), of("2"));
    assert!(all.is_superset(&some) && all.len() > some.len(), "{} and {}", all.len(), some.len());
    assert_eq!(of("20").len(), 0);
}

#[test]
fn a_database_that_is_not_given_ends_it() {
    let Some(databases) = Databases::make("zeo6-py311", 23, "") else { return };
    let given = databases.arguments();
    let two: Vec<&str> = given[..2].iter().map(String::as_str).collect();
    let (text, status) = gc(&[&["-d", "2", "--delete"], &two[..]].concat());
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("refers to the database 'three', which is not given"), "{text}");
    let (text, status) = gc(&[&["-d", "2", "--ignore", "three"], &two[..]].concat());
    assert_eq!(status, 0, "{text}");
}

/// An object that another database refers to is deleted: the reference is found.
#[test]
fn references_that_lead_to_nothing_are_found() {
    const DELETE: &str = r"
import sys, transaction
import ZODB
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from persistent.mapping import PersistentMapping
databases = {}
for name, path in zip(['one', 'two'], sys.argv[1:]):
    ZODB.DB(FileStorage(path), database_name=name, databases=databases)
connection = databases['one'].open()
other = connection.get_connection('two')
lost = other.root()['lost'] = PersistentMapping()
transaction.commit()
holder = connection.root()['holder'] = PersistentMapping(lost=lost)
del other.root()['lost']
transaction.commit()
storage = other.db().storage
t = TransactionMetaData()
storage.tpc_begin(t)
storage.deleteObject(lost._p_oid, lost._p_serial, t)
storage.tpc_vote(t)
storage.tpc_finish(t)
print(int.from_bytes(holder._p_oid, 'big'), int.from_bytes(lost._p_oid, 'big'))
for database in databases.values():
    database.close()
";
    let Some(python) = python("zeo6-py311") else { return };
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(format!("{name}.fs")).display().to_string());
    let output = Command::new(python).args(["-c", DELETE, &one, &two]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let oids: Vec<u64> = text.split_whitespace().map(|oid| oid.parse().unwrap()).collect();
    let given = [format!("one={one}"), format!("two={two}")];
    let (text, status) = gc(&["-d", "0", &given[0], &given[1]]);
    assert_eq!(status, 4, "{text}");
    let line = format!("0x{:02x} of one refers to 0x{:02x} of two", oids[0], oids[1]);
    assert!(text.contains(&line), "{line}: {text}");
    // With a reference that leads nowhere the names may be wrong.
    let files = || [&one, &two].map(|path| fs::read(path).unwrap());
    let before = files();
    let (text, status) = gc(&["-d", "0", "--delete", &given[0], &given[1]]);
    assert!(status == 1 && text.contains("under the name of its database?"), "{status} {text}");
    assert!(files() == before);
    let (text, status) = gc(&["-d", "0", "--delete", "--force", &given[0], &given[1]]);
    assert!(status == 4 && text.contains("deleted from two: 0 objects"), "{status} {text}");
}

/// Each reference to another database leads to whatever has its oid in the wrong one.
#[test]
fn mixed_up_names_delete_nothing() {
    let Some(databases) = Databases::make("zeo6-py311", 26, "") else { return };
    let path = |name: &str| databases.dir.path().join(format!("{name}.fs")).display().to_string();
    let files = || NAMES.map(|name| fs::read(path(name)).unwrap());
    let before = files();
    let mixed = [("one", "two"), ("two", "three"), ("three", "one")];
    let given = mixed.map(|(name, file)| format!("{name}={}", path(file)));
    let (text, status) = gc(&[&["-d", "2", "--delete"], &given.each_ref().map(String::as_str)[..]].concat());
    assert!(status == 1 && text.contains("nothing was deleted"), "{status} {text}");
    assert!(files() == before);
}

/// What cannot be read may refer to anything.
#[test]
fn damage_ends_it() {
    let Some(databases) = Databases::make("zeo6-py311", 24, "") else { return };
    let path = databases.dir.path().join("two.fs");
    let whole = fs::read(&path).unwrap();
    // The opcode that begins the state of each record.
    let mut bytes = whole.clone();
    for at in (3..whole.len()).filter(|at| &whole[at - 3..=*at] == b".\x80\x03}") {
        bytes[at] = 0xff;
    }
    fs::write(&path, bytes).unwrap();
    let (text, status) = databases.gc(&["-d", "2", "--delete"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("nothing is garbage until it is mended"), "{text}");
    // All over the file: it always ends.
    let given = databases.arguments();
    let arguments: Vec<&str> =
        ["gc", "--json", "-d", "2"].into_iter().chain(given.iter().map(String::as_str)).collect();
    let mut refused = 0;
    for at in (4..whole.len()).step_by(whole.len() / 150) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        let (_, status) = zeofs(&arguments);
        assert!(matches!(status, 0 | 1 | 4), "{at}: {status}");
        refused += u32::from(status == 1);
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_file_in_use_is_looked_at_but_not_changed() {
    let Some(databases) = Databases::make("zeo6-py311", 25, "") else { return };
    let path = databases.dir.path().join("three.fs");
    let storage = open(&path);
    let (text, status) = databases.gc(&["-d", "2"]);
    assert_eq!(status, 0, "{text}");
    let (text, status) = databases.gc(&["-d", "2", "--delete"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("Couldn't lock"), "{text}");
    storage.close().unwrap();
}

/// The three databases in three storages of one server.
#[test]
fn storages_of_servers() {
    for (made_by, served_by) in [
        ("zeo6-py311", None),
        ("zeo6-py311", Some("zeo6-py311")),
        ("zeo4-py27", None),
        ("zeo4-py27", Some("zeo4-py27")),
    ] {
        let about = format!("{made_by}, served by {served_by:?}");
        let Some(databases) = Databases::make(made_by, 41, "") else { continue };
        let Some((serving, addresses)) = databases.serve(served_by) else { continue };
        let (garbage, _, status) = found(&["-d", "2"], &addresses);
        assert_eq!((&garbage, status), (&databases.garbage, 0), "{about}");
        // The files are read, and what the servers have is compared.
        let copies: Vec<String> = databases.arguments().iter().map(|file| format!("--read={file}")).collect();
        let options: Vec<&str> =
            ["-d", "2", "--delete"].into_iter().chain(copies.iter().map(String::as_str)).collect();
        let (garbage, other, status) = found(&options, &addresses);
        assert_eq!((&garbage, status), (&databases.garbage, 0), "{about}");
        let deleted: u64 = other
            .iter()
            .filter(|line| line["kind"] == "deleted")
            .map(|line| line["objects"].as_u64().unwrap())
            .sum();
        assert_eq!(deleted, garbage.len() as u64, "{about}: {other:?}");
        let (garbage, other, status) = found(&["-d", "2"], &addresses);
        assert_eq!((garbage.len(), status), (0, 0), "{about}: {other:?}");
        // The deletions were committed behind what the copies have, and are noticed when these are read.
        let (_, other, status) = found(&options, &addresses);
        let none = other.iter().filter(|line| line["kind"] == "deleted").all(|line| line["objects"] == 0);
        assert!(none && status == 0, "{about}: {other:?}");
        drop(serving);
    }
}

#[test]
fn the_copy_of_another_database_is_refused() {
    let Some(databases) = Databases::make("zeo6-py311", 42, "") else { return };
    let Some((_serving, addresses)) = databases.serve(None) else { return };
    let wrong = format!("--read=one={}", databases.dir.path().join("two.fs").display());
    let (text, status) = gc(&[vec!["-d2".to_string(), "--delete".into(), wrong], addresses.clone()].concat());
    assert!(status == 1 && text.contains("is not the file of zeo://"), "{status} {text}");
    let (text, status) = gc(&[vec!["--read=four=x".to_string()], addresses].concat());
    assert!(status == 2 && text.contains("there is no database 'four'"), "{status} {text}");
}

/// Garbage to which a reference is committed after the search, and what it refers to, is kept; so is garbage that is
/// written.
#[test]
fn what_is_committed_after_the_search_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    // 3 refers to 4, 5 to 6; nothing to 3, 5 and 7.
    for (oid, refers) in [(0, &[1][..]), (1, &[]), (3, &[4]), (4, &[]), (5, &[6]), (6, &[]), (7, &[])] {
        commit(&storage, &[(oid, Tid::ZERO, &referring_to(refers))]).unwrap();
    }
    let file = DataFile::open(&path).unwrap();
    let members = vec![Member { name: "one".into(), file: &file }];
    let mut search = Search::run(members, Tid::MAX, &[], &mut |_| {}).unwrap();
    let garbage = |search: &Search<'_>| {
        let mut oids = Vec::new();
        let mut next = search.next_garbage(0, Oid::ZERO);
        while let Some((oid, _)) = next {
            oids.push(oid.0);
            next = search.next_garbage(0, Oid(oid.0 + 1));
        }
        oids
    };
    assert_eq!(garbage(&search), [3, 4, 5, 6, 7]);
    let own = commit(&storage, &[(8, Tid::ZERO, &referring_to(&[7]))]).unwrap();
    let (_, serial) = crate::support::storage::load(&storage, 1).unwrap();
    commit(&storage, &[(1, serial, &referring_to(&[3]))]).unwrap();
    let (_, serial) = crate::support::storage::load(&storage, 6).unwrap();
    commit(&storage, &[(6, serial, &referring_to(&[]))]).unwrap();
    let now = DataFile::open(&path).unwrap();
    // Whether the transactions are looked for behind the former end, or in the whole file.
    for pos in [file.end(), 4] {
        search.keep_later(0, &now, pos, &[own].into()).unwrap();
        assert_eq!(garbage(&search), [5, 7], "{pos}");
    }
    storage.close().unwrap();
}

#[test]
fn wrong_command_lines() {
    for (arguments, what) in [
        (&["--delete"][..], "give the databases"),
        (&["Data.fs"], "'Data.fs' is not NAME=FILE"),
        (&["-d", "-1", "a=b"], "'-1' is not a number of days"),
        (&["-n", "x", "a=b"], "'x' is not a number of lines"),
        (&["--force", "a=b"], "--force is for --delete"),
    ] {
        let (text, status) = gc(arguments);
        assert!(status == 2 && text.contains(what), "{status} {text}");
    }
    let (text, status) = gc(&["a=/none/Data.fs"]);
    assert!(status == 1 && text.contains("/none/Data.fs"), "{status} {text}");
}
