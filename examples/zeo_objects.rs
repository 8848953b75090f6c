//! Walks through the objects of a database that Python programs use, and changes a value.
//!
//! ```text
//! cargo run --example zeo_objects -- localhost 8100                    what the root has
//! cargo run --example zeo_objects -- localhost 8100 users              the items of root['users'], a BTree or mapping
//! cargo run --example zeo_objects -- localhost 8100 users anna 5       sets root['users']['anna'] = 5
//! ```

use std::error::Error;
use std::process::ExitCode;

use runzeo::client::records::{BTree, ObjectRecord, Objects, PersistentMapping, PyValue};
use runzeo::client::{Address, Client, ClientOptions};
use runzeo::storage::TransactionMeta;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Items that are printed of a BTree.
const ITEMS_MAX: usize = 20;

/// A value in a few words: of an object, its class.
fn shown(objects: &Objects, value: &PyValue) -> Result<String> {
    if let Some(text) = value.as_text() {
        return Ok(format!("{text:?}"));
    }
    if let Some(number) = value.as_integer() {
        return Ok(number.to_string());
    }
    match value.as_oid() {
        Some(oid) => {
            let record = objects.load(oid)?;
            let class = record.class_name().map_or("an object".into(), ToString::to_string);
            Ok(format!("{class} at {oid}"))
        }
        None => Ok(value.type_name()),
    }
}

/// A line for each item of the root, or of a BTree or mapping in it.
pub fn listed(objects: &Objects, name: Option<&str>) -> Result<Vec<String>> {
    let root = objects.root()?;
    let line = |(key, value): &(PyValue, PyValue)| {
        Ok(format!("{}: {}", shown(objects, key)?, shown(objects, value)?))
    };
    let Some(name) = name else { return root.items().iter().map(line).collect() };
    let oid = root.reference(name).ok_or("the root has no such object")?;
    match BTree::open(objects, oid) {
        Ok(tree) => tree.items(objects)?.take(ITEMS_MAX).map(|item| line(&item?)).collect(),
        Err(_) => PersistentMapping::of(objects.load(oid)?)?.items().iter().map(line).collect(),
    }
}

/// Sets a value of a BTree or mapping in the root. Runs again if another program was faster.
pub fn set(client: &Client, name: &str, key: &str, value: i64) -> Result<()> {
    loop {
        let mut objects = client.objects();
        let root = objects.root()?;
        let oid = root.reference(name).ok_or("the root has no such object")?;
        // Keys are what Python calls `str`.
        let key = root.record().format.native(key);
        match BTree::open(&objects, oid) {
            Ok(tree) => _ = tree.insert(&mut objects, key, PyValue::Int(value))?,
            Err(_) => {
                let mut mapping = PersistentMapping::of(objects.load(oid)?)?;
                mapping.insert(key, PyValue::Int(value));
                objects.store(oid, ObjectRecord::from(mapping))?;
            }
        }
        let meta = TransactionMeta { description: b"zeo_objects".to_vec(), ..TransactionMeta::default() };
        match client.commit_objects(objects, meta) {
            Err(error) if error.is_conflict() => {}
            done => return done.map(drop).map_err(Into::into),
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let [host, port, rest @ ..] = arguments else { return Err("give a host and a port".into()) };
    let address = Address::Tcp { host: Some(host.clone()), port: Some(port.parse()?) };
    let client = Client::open(ClientOptions::new(vec![address]))?;
    if let [name, key, value] = rest {
        set(&client, name, key, value.parse()?)?;
    }
    let lines = listed(&client.objects(), rest.first().map(String::as_str))?;
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zeo_objects: {error}");
            ExitCode::FAILURE
        }
    }
}
