//! BTrees that both programs change: the same changes make the same trees, node for node, and Python's checks pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runzeo::client::records::{
    BTree, Class, Format, ObjectRecord, ObjectSource, Objects, ObjectsError, PersistentMapping, PyValue,
    RecordError,
};
use runzeo::client::{Client, ClientOptions};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::{StorageError, TransactionMeta};
use serde_json::{Value, json};

use crate::pythons::python;
use crate::servers::tcp;
use crate::support::dice::Dice;
use crate::support::process::Server;

/// A tree of each kind of family; behind the dash: which keys it gets.
const TREES: &[&str] = &[
    "IFBTree",
    "IIBTree",
    "IITreeSet",
    "IOBTree",
    "LFBTree",
    "LLBTree",
    "LOBTree",
    "LOTreeSet",
    "OIBTree",
    "OLBTree",
    "OOBTree",
    "OOBTree-ints",
    "OOBTree-tuples",
    "OOTreeSet",
    "OQBTree",
    "OUTreeSet",
    "QQBTree",
    "UIBTree",
    "UUBTree",
    "fsBTree",
];
/// One with several levels.
const LARGE: &str = "OOBTree-large";

/// Runs the driver; returns what it prints.
fn driver(environment: &str, server: &Server, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/btrees_driver.py");
    let output = Command::new(python(environment).expect("Python"))
        .arg(script)
        .arg(server.address.port().to_string())
        .args(arguments)
        .output()
        .expect("Python");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{environment}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What Python sees: by whose tree and name, its buckets and its shape.
fn dump(environment: &str, server: &Server) -> BTreeMap<(String, String), (Value, Value)> {
    let lines = driver(environment, server, &["dump"]);
    let parsed = lines.lines().map(|line| {
        let (whose, name, buckets, shape): (String, String, Value, Value) =
            serde_json::from_str(line).expect("JSON");
        ((whose, name), (buckets, shape))
    });
    parsed.collect()
}

/// A value of the changes, as Python makes it.
fn value_of(value: &Value, format: Format) -> PyValue {
    match value {
        Value::Null => PyValue::None,
        Value::Bool(value) => PyValue::Bool(*value),
        Value::String(text) => format.native(text),
        Value::Array(items) => PyValue::Tuple(items.iter().map(|item| value_of(item, format)).collect()),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => PyValue::Int(number),
            (None, Some(number)) => PyValue::BigInt(i128::from(number).to_le_bytes()[..9].into()),
            _ => PyValue::Float(number.as_f64().expect("a number")),
        },
        Value::Object(object) => match (&object.get("b"), &object.get("u")) {
            (Some(Value::String(hex)), _) => {
                let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
                let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
                if format.is_python2() { PyValue::str2(&bytes) } else { PyValue::bytes(&bytes) }
            }
            (_, Some(Value::String(text))) => PyValue::text(text),
            other => panic!("{other:?}"),
        },
    }
}

/// The same the other way round.
fn json_of(value: &PyValue, format: Format) -> Value {
    let hex = |bytes: &[u8]| json!({"b": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()});
    match value.plain() {
        PyValue::None => Value::Null,
        PyValue::Bool(value) => json!(value),
        PyValue::Float(value) => json!(value),
        PyValue::Text(text) if format.is_python2() => json!({"u": **text}),
        PyValue::Text(text) => json!(**text),
        PyValue::Bytes(bytes) => hex(bytes),
        PyValue::Str(bytes) if bytes.iter().all(|byte| (32..128).contains(byte)) => json!(value.as_text()),
        PyValue::Str(bytes) => hex(bytes),
        PyValue::Tuple(items) => items.iter().map(|item| json_of(item, format)).collect(),
        other => {
            let number = other.as_integer().unwrap_or_else(|| panic!("{other:?}"));
            i64::try_from(number)
                .map_or_else(|_| json!(u64::try_from(number).expect("64 bits")), |n| json!(n))
        }
    }
}

/// Random changes, as lines of JSON, and the keys that are there after them.
struct Changes {
    dice: Dice,
    keys: BTreeMap<String, BTreeSet<String>>,
    lines: Vec<Value>,
}

impl Changes {
    fn key(&mut self, name: &str) -> Value {
        let number = self.dice.below(600);
        let signed = i64::try_from(number).unwrap() - 300;
        match name {
            "OOBTree-ints" => json!(signed),
            "OOBTree-tuples" => json!([signed % 7, format!("k{number}")]),
            _ if name.starts_with('O') => json!(format!("key{number}")),
            _ if name.starts_with("fs") => json!({ "b": format!("{number:04x}") }),
            _ if name.starts_with('U') => json!(4_000_000_000u64 + number),
            _ if name.starts_with('Q') => json!(u64::MAX - number),
            _ if name.starts_with('L') => json!(signed * 5_000_000_000),
            _ => json!(signed),
        }
    }

    fn value(&mut self, name: &str) -> Value {
        let number = self.dice.below(1000);
        match &name[1..2] {
            "O" => match number % 3 {
                0 => json!(number),
                1 => json!(format!("value{number}")),
                _ => json!([number, null, {"u": "t\u{e4}xt"}]),
            },
            "F" => json!(number as f64 / 8.0),
            "Q" => json!(u64::MAX - number),
            "U" => json!(4_000_000_000u64 + number),
            "L" => json!(-5_000_000_000i64 - number as i64),
            "s" => json!({ "b": format!("{number:012x}") }),
            _ => json!(number),
        }
    }

    /// A change of a tree: `growing` of ten are insertions.
    fn change(&mut self, name: &str, growing: u64) {
        let key = self.key(name);
        let known = self.keys.entry(name.to_string()).or_default();
        if self.dice.below(10) < growing {
            known.insert(key.to_string());
            self.insert(name, key);
        } else if let Some(first) = known.range(key.to_string()..).next().cloned() {
            known.remove(&first);
            self.lines.push(json!([name, "-", serde_json::from_str::<Value>(&first).expect("JSON")]));
        }
    }

    fn insert(&mut self, name: &str, key: Value) {
        let line = match name.contains("Set") {
            true => json!([name, "+", key]),
            false => json!([name, "+", key, self.value(name)]),
        };
        self.lines.push(line);
    }

    fn commit(&mut self) {
        self.lines.push(json!(["commit"]));
    }

    fn write(&self, path: &Path) {
        let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(path, text).expect("a file");
    }
}

/// Applies changes to the trees of a mapping of the root.
fn apply(client: &Client, whose: &str, lines: &[Value]) {
    let mut view = client.view();
    view.refresh_from_server().expect("a view");
    let mut objects = client.objects_in(view);
    let mut trees: HashMap<&str, (BTree, Format)> = HashMap::new();
    for (number, line) in lines.iter().chain([&json!(["commit"])]).enumerate() {
        if line[0] == "commit" {
            client.commit_objects(objects, TransactionMeta::default()).expect("a commit");
            objects = client.objects();
            continue;
        }
        let name = line[0].as_str().expect("a name");
        let (tree, format) = *trees.entry(name).or_insert_with(|| tree_of(&objects, whose, name));
        let key = value_of(&line[2], format);
        let is_inserted = line[1] == "+";
        if is_inserted {
            let value = line.get(3).map_or(PyValue::None, |value| value_of(value, format));
            tree.insert(&mut objects, key.clone(), value).expect("an insertion");
        } else {
            assert!(tree.remove(&mut objects, &key).expect("a removal").is_some(), "{line}");
        }
        if number % 10 == 0 {
            assert_eq!(tree.contains(&objects, &key).expect("a tree"), is_inserted);
        }
    }
}

fn tree_of(objects: &Objects, whose: &str, name: &str) -> (BTree, Format) {
    let root = objects.root().expect("a root");
    let trees = root.reference(whose).expect("trees");
    let trees = PersistentMapping::of(objects.load(trees).expect("trees")).expect("a mapping");
    let tree = BTree::open(objects, trees.reference(name).expect("a tree")).expect("a tree");
    (tree, trees.record().format)
}

/// Both sides are alike for Python, and this program reads what Python does.
fn compare(environment: &str, server: &Server, client: &Client, names: &[&str]) {
    let found = dump(environment, server);
    assert_eq!(found.len(), 2 * names.len());
    let mut view = client.view();
    view.refresh_from_server().expect("a view");
    let objects = client.objects_in(view);
    for name in names {
        let of = |whose: &str| &found[&(whose.to_string(), name.to_string())];
        let (ours, theirs) = (of("rust"), of("python"));
        assert_eq!(ours, theirs, "{environment}: {name}");
        let expected: Vec<&Value> = ours
            .0
            .as_array()
            .expect("buckets")
            .iter()
            .flat_map(|b| b.as_array().expect("a bucket"))
            .collect();
        for whose in ["rust", "python"] {
            let (tree, format) = tree_of(&objects, whose, name);
            let json_of = |value: &PyValue| json_of(value, format);
            let items: Vec<Value> = tree
                .items(&objects)
                .expect("items")
                .map(|item| {
                    let (key, value) = item.expect("an item");
                    if tree.has_values() { json!([json_of(&key), json_of(&value)]) } else { json_of(&key) }
                })
                .collect();
            assert_eq!(items.iter().collect::<Vec<_>>(), expected, "{environment}: {name}");
            assert_eq!(tree.check(&objects).expect("a good tree"), expected.len(), "{environment}: {name}");
            assert_eq!(tree.count(&objects).expect("a count"), expected.len());
        }
    }
}

fn random_trees(environment: &str, seed: u64) {
    if python(environment).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("changes");
    let server = Server::start();
    driver(environment, &server, &[&["create"], TREES].concat());
    let client = Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection");
    let mut changes = Changes { dice: Dice::new(seed, 1), keys: BTreeMap::new(), lines: Vec::new() };
    // Growing, then shrinking until nearly nothing is left, and again; each program goes on with the other's trees.
    for (round, growing) in [9, 5, 1, 0, 7].into_iter().enumerate() {
        changes.lines.clear();
        for _ in 0..3 {
            for name in TREES {
                (0..80).for_each(|_| changes.change(name, growing));
            }
            changes.commit();
        }
        changes.write(&file);
        let (ours, theirs) = if round % 2 == 0 { ("rust", "python") } else { ("python", "rust") };
        apply(&client, ours, &changes.lines);
        driver(environment, &server, &["apply", file.to_str().expect("a path"), theirs]);
        compare(environment, &server, &client, TREES);
    }
}

#[test]
fn random_changes_make_pythons_trees_python3() {
    random_trees("zeo6-py311", 1);
}

#[test]
fn random_changes_make_pythons_trees_python2() {
    random_trees("zeo4-py27", 2);
}

/// A tree of three levels: the root is split, whole nodes are emptied, at the beginning, in the middle, at the end.
fn large_tree(environment: &str) {
    if python(environment).is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("changes");
    let server = Server::start();
    driver(environment, &server, &["create", LARGE]);
    let client = Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection");
    let mut changes = Changes { dice: Dice::new(3, 3), keys: BTreeMap::new(), lines: Vec::new() };
    let delete = |changes: &mut Changes, keys: std::ops::Range<u32>| {
        keys.for_each(|key| changes.lines.push(json!([LARGE, "-", format!("k{key:05}")])));
        changes.commit();
    };
    (0..8000).for_each(|key| changes.insert(LARGE, json!(format!("k{key:05}"))));
    let mut rounds = vec![std::mem::take(&mut changes.lines)];
    delete(&mut changes, 2000..6000);
    rounds.push(std::mem::take(&mut changes.lines));
    delete(&mut changes, 0..1900);
    delete(&mut changes, 7400..8000);
    rounds.push(std::mem::take(&mut changes.lines));
    delete(&mut changes, 1900..2000);
    delete(&mut changes, 6000..7400);
    rounds.push(std::mem::take(&mut changes.lines));
    for (round, lines) in rounds.into_iter().enumerate() {
        changes.lines = lines;
        changes.write(&file);
        let (ours, theirs) = if round % 2 == 0 { ("rust", "python") } else { ("python", "rust") };
        apply(&client, ours, &changes.lines);
        driver(environment, &server, &["apply", file.to_str().expect("a path"), theirs]);
        compare(environment, &server, &client, &[LARGE]);
    }
}

#[test]
fn large_trees_are_pythons_python3() {
    large_tree("zeo6-py311");
}

#[test]
fn large_trees_are_pythons_python2() {
    large_tree("zeo4-py27");
}

/// Records without a storage.
#[derive(Clone, Default)]
struct Memory {
    records: HashMap<Oid, Vec<u8>>,
    last: Arc<AtomicU64>,
}

impl Memory {
    fn after(&self, objects: &Objects) -> Memory {
        let mut memory = self.clone();
        memory
            .records
            .extend(objects.stores().expect("records").into_iter().map(|(oid, _, data)| (oid, data)));
        memory
    }
}

impl ObjectSource for Memory {
    fn load(&self, oid: Oid) -> Result<Option<(Vec<u8>, Tid)>, StorageError> {
        let data = self.records.get(&oid).cloned().ok_or(StorageError::PosKey(oid))?;
        Ok(Some((data, Tid(1))))
    }

    fn new_oid(&self) -> Result<Oid, StorageError> {
        Ok(Oid(1 + self.last.fetch_add(1, Ordering::Relaxed)))
    }
}

#[test]
fn random_changes_make_what_a_map_has() {
    for seed in 0..4 {
        let mut dice = Dice::new(seed, 7);
        let mut memory = Memory::default();
        let mut objects = Objects::new(memory.clone());
        let tree = BTree::create(&mut objects, "OOBTree", Format::PYTHON3).expect("a tree");
        let mut model = BTreeMap::new();
        for step in 0..2000 {
            let key = i64::try_from(dice.below(1000)).unwrap();
            let growing = if step % 1000 < 600 { 9 } else { 2 };
            let old = if dice.below(10) < growing {
                let value = step;
                let old = tree.insert(&mut objects, key.into(), value.into()).expect("an insertion");
                (old, model.insert(key, value))
            } else {
                (tree.remove(&mut objects, &key.into()).expect("a removal"), model.remove(&key))
            };
            assert_eq!(old.0, old.1.map(PyValue::Int), "seed {seed}");
            if dice.one_in(300) {
                memory = memory.after(&objects);
                objects = Objects::new(memory.clone());
                assert_eq!(tree.check(&objects).expect("a good tree"), model.len(), "seed {seed}");
                let (low, high) =
                    (i64::try_from(dice.below(1000)).unwrap(), i64::try_from(dice.below(1100)).unwrap());
                if low <= high {
                    let found =
                        tree.range(&objects, PyValue::Int(low)..=PyValue::Int(high)).expect("a range");
                    let found: Vec<_> = found.map(|item| item.expect("an item")).collect();
                    let expected: Vec<_> = model
                        .range(low..=high)
                        .map(|(key, value)| ((*key).into(), (*value).into()))
                        .collect();
                    assert_eq!(found, expected, "seed {seed}");
                }
                let last = model.last_key_value().map(|(key, _)| PyValue::Int(*key));
                assert_eq!(tree.last_key(&objects).expect("a key"), last, "seed {seed}");
            }
        }
    }
}

#[test]
fn what_a_tree_does_not_take_is_an_error_and_changes_nothing() {
    let mut objects = Objects::new(Memory::default());
    let tree = BTree::create(&mut objects, "OOBTree", Format::PYTHON3).expect("a tree");
    for number in 0..100 {
        tree.insert(&mut objects, PyValue::text(&format!("{number:02}")), PyValue::None)
            .expect("an insertion");
    }
    let before = objects.stores().expect("records");
    let refused = |objects: &mut Objects, tree: BTree, key: PyValue, value: PyValue| match tree
        .insert(objects, key, value)
    {
        Err(ObjectsError::Record { error, .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let message = refused(&mut objects, tree, PyValue::Int(1), PyValue::None);
    assert_eq!(message, "these keys cannot be compared: a text and an int");
    let message = refused(&mut objects, tree, PyValue::Float(1.0), PyValue::None);
    assert_eq!(message, "these keys cannot be compared: a float");
    assert_eq!(objects.stores().expect("records"), before);

    let ints = BTree::create(&mut objects, "IIBTree", Format::PYTHON3).expect("a tree");
    let message = refused(&mut objects, ints, PyValue::Int(1 << 31), PyValue::Int(1));
    assert_eq!(message, "the BTree takes integers of 32 bits, not Int(2147483648)");
    let message = refused(&mut objects, ints, PyValue::Int(1), PyValue::text("1"));
    assert!(message.starts_with("the BTree takes integers of 32 bits, not Text"), "{message}");
    assert_eq!(ints.get(&objects, &PyValue::Bool(true)).expect("a tree"), None);

    // A class that derives from one of the package may order its keys otherwise.
    let other = ObjectRecord::new(Class::new("myapp", "MyBTree"), PyValue::None, Format::PYTHON3);
    let other = objects.add(other).expect("an object");
    let error = BTree::open(&objects, other).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("object {other}: a class of the BTrees package is expected, not myapp.MyBTree")
    );
}

#[test]
fn a_damaged_tree_is_an_error_and_is_left_as_it_is() {
    let mut objects = Objects::new(Memory::default());
    let tree = BTree::create(&mut objects, "IITreeSet", Format::PYTHON3).expect("a tree");
    (0..400).for_each(|number| assert!(tree.add(&mut objects, PyValue::Int(number)).expect("a new key")));
    let stores = objects.stores().expect("records");
    assert!(stores.len() > 4);
    let buckets: Vec<Oid> = stores.iter().map(|(oid, ..)| *oid).filter(|oid| *oid != tree.oid()).collect();
    for oid in buckets {
        let good = objects.load(oid).expect("a bucket");
        for state in [
            PyValue::None,
            PyValue::Tuple(vec![PyValue::Tuple(vec![])]),
            PyValue::Tuple(vec![PyValue::Tuple(vec![PyValue::Int(-5), PyValue::Int(-6)])]),
            PyValue::Tuple(vec![PyValue::Tuple(vec![PyValue::Int(999)]), PyValue::Int(1)]),
        ] {
            objects.store(oid, ObjectRecord { state, ..good.clone() }).expect("a record");
            let error = tree.check(&objects).unwrap_err();
            let is_record = matches!(
                &error,
                ObjectsError::Record { error: RecordError::Damaged(_) | RecordError::Unexpected { .. }, .. }
            );
            assert!(is_record, "{error:?}");
            let before = objects.stores().expect("records");
            for number in (0..400).step_by(13) {
                if tree.remove(&mut objects, &PyValue::Int(number)).is_err() {
                    assert_eq!(objects.stores().expect("records"), before);
                }
                // Back to where the damage began.
                for (oid, _, data) in &before {
                    objects.store(*oid, ObjectRecord::decode(data).expect("a record")).expect("a record");
                }
            }
        }
        objects.store(oid, good).expect("a record");
        assert_eq!(tree.check(&objects).expect("a good tree"), 400);
    }
}

#[test]
fn the_example_walks_and_changes() {
    let environment = "zeo6-py311";
    if python(environment).is_none() {
        return;
    }
    let server = Server::start();
    driver(environment, &server, &["create", "OOBTree"]);
    let client = Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection");
    let lines = crate::zeo_objects::listed(&client.objects(), None).expect("the root");
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("\"rust\": persistent.mapping.PersistentMapping at 0000"), "{lines:?}");
    crate::zeo_objects::set(&client, "rust", "number", 5).expect("a commit");
    let lines = crate::zeo_objects::listed(&client.objects(), Some("rust")).expect("a mapping");
    assert!(lines[0].starts_with("\"OOBTree\": BTrees.OOBTree.OOBTree at 0000"), "{lines:?}");
    assert_eq!(lines[1], "\"number\": 5");
}
