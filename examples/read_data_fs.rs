//! Reads a `Data.fs` without a server: its transactions, or the revisions of one object.
//!
//! ```text
//! cargo run --example read_data_fs -- Data.fs
//! cargo run --example read_data_fs -- Data.fs 0x1
//! ```
//!
//! The file is opened read-only, so a server may have it open at the same time; transactions that it commits later are
//! not seen. Ends with status 1 and a message if the file is damaged; what could be read before is printed.

use std::error::Error;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{StorageError, TransactionMeta, class_name};

type Outcome = Result<(), Box<dyn Error>>;

/// One line for the file and one for each transaction, oldest first.
fn print_transactions(storage: &FileStorage, out: &mut dyn Write) -> Outcome {
    let (objects, size) = (storage.object_count(), storage.size());
    writeln!(out, "objects: {objects}, {size} bytes, last transaction {}", storage.last_transaction())?;
    let mut transactions = storage.iterate(None, None)?;
    while let Some(transaction) = transactions.next_transaction()? {
        let (mut count, mut len) = (0_u64, 0_u64);
        let mut records = transactions.records()?;
        while let Some(record) = records.next_record()? {
            count += 1;
            // A deletion has no data.
            len += record.data.map_or(0, |data| data.len() as u64);
        }
        let (tid, meta) = (transaction.tid, shown(&transaction.meta));
        writeln!(out, "{tid} {} records: {count}, {len} bytes, {meta}", tid.to_text())?;
    }
    Ok(())
}

/// One line for an object and one for each of its revisions, newest first.
fn print_object(storage: &FileStorage, oid: Oid, out: &mut dyn Write) -> Outcome {
    // An error if it has never existed.
    storage.history(oid, 1)?;
    let mut data = Vec::new();
    match storage.load_before(oid, Tid::MAX, 0, &mut data) {
        Ok(Some(loaded)) => {
            let record = data.get(loaded.start..).unwrap_or_default();
            let class = class_name(record).map_or("an unknown class".into(), |class| class.to_string());
            writeln!(out, "{oid} is {class}, {} bytes, of {}", record.len(), loaded.serial)?;
        }
        Ok(None) | Err(StorageError::PosKey(_)) => writeln!(out, "{oid} has no current state")?,
        Err(error) => return Err(error.into()),
    }
    let mut written = Ok(());
    storage.revisions(oid, &mut |revision| {
        let (tid, meta) = (revision.tid, shown(&revision.meta));
        written = writeln!(out, "{tid} {} {} bytes, {meta}", tid.to_text(), revision.size);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(written?)
}

/// User and description, which clients may have encoded in any way.
fn shown(meta: &TransactionMeta) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    format!("by '{}': {}", text(&meta.user), text(&meta.description))
}

/// An oid in hexadecimal digits, with or without `0x`.
fn oid(text: &str) -> Result<Oid, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map(Oid).map_err(|error| format!("'{text}' is not an object id: {error}"))
}

fn run(path: &str, object: Option<&str>, out: &mut dyn Write) -> Outcome {
    let object = object.map(oid).transpose()?;
    let options = FileStorageOptions { read_only: true, ..FileStorageOptions::new(path) };
    let storage = FileStorage::open(options)?;
    match object {
        None => print_transactions(&storage, out),
        Some(oid) => print_object(&storage, oid, out),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, object) = match arguments.as_slice() {
        [path] => (path, None),
        [path, object] => (path, Some(object.as_str())),
        _ => {
            eprintln!("Usage: read_data_fs FILE [OID]");
            return ExitCode::from(2);
        }
    };
    match run(path, object, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python-fixtures/data-fs/zeo6-py311/Data.fs");

    fn output(path: &str, object: Option<&str>) -> (String, Result<(), String>) {
        let mut out = Vec::new();
        let outcome = run(path, object, &mut out).map_err(|error| error.to_string());
        (String::from_utf8(out).expect("text"), outcome)
    }

    #[test]
    fn transactions() {
        let expected = "\
objects: 8, 30538 bytes, last transaction 03f47f959aaaaaaa
03f47f956aaaaaaa 2023-11-14 22:13:25.000000 records: 1, 57 bytes, by '': initial database creation
03f47f957aaaaaaa 2023-11-14 22:13:28.750000 records: 2, 135 bytes, by '': after the pack
03f47f9580000000 2023-11-14 22:13:30.000000 records: 2, 57 bytes, by '': undo
03f47f9585555555 2023-11-14 22:13:31.250000 records: 3, 175 bytes, by '': more objects
03f47f958aaaaaaa 2023-11-14 22:13:32.500000 records: 3, 0 bytes, by '': undo creation
03f47f9590000000 2023-11-14 22:13:33.750000 records: 3, 29162 bytes, by '': large
03f47f9595555555 2023-11-14 22:13:35.000000 records: 1, 0 bytes, by '': delete
03f47f959aaaaaaa 2023-11-14 22:13:36.250000 records: 0, 0 bytes, by '':\x20
";
        assert_eq!(output(FILE, None), (expected.into(), Ok(())));
    }

    #[test]
    fn an_object() {
        let expected = "\
0000000000000000 is persistent.mapping.PersistentMapping, 57 bytes, of 03f47f9580000000
03f47f9580000000 2023-11-14 22:13:30.000000 0 bytes, by '': undo
03f47f957aaaaaaa 2023-11-14 22:13:28.750000 63 bytes, by '': after the pack
03f47f956aaaaaaa 2023-11-14 22:13:25.000000 57 bytes, by '': initial database creation
";
        assert_eq!(output(FILE, Some("0x0")), (expected.into(), Ok(())));
    }

    #[test]
    fn an_object_without_current_state() {
        let expected = "\
0000000000000001 has no current state
03f47f9580000000 2023-11-14 22:13:30.000000 0 bytes, by '': undo
03f47f957aaaaaaa 2023-11-14 22:13:28.750000 72 bytes, by '': after the pack
";
        assert_eq!(output(FILE, Some("1")), (expected.into(), Ok(())));
    }

    #[test]
    fn what_there_is_not() {
        let none = |message: &str| (String::new(), Err(message.to_string()));
        assert_eq!(output(FILE, Some("ffff")), none("no object 0x000000000000ffff"));
        assert_eq!(
            output(FILE, Some("root")),
            none("'root' is not an object id: invalid digit found in string")
        );
        assert_eq!(
            output("/nowhere", None),
            none("opening /nowhere: No such file or directory (os error 2)")
        );
    }

    /// Cut off or changed anywhere, the file is read without a panic.
    #[test]
    fn damage() {
        let whole = std::fs::read(FILE).expect("the file");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("Data.fs");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            let path = path.to_str().expect("a path");
            ["0", "1", "5"].iter().for_each(|object| drop(output(path, Some(object))));
            output(path, None).1
        };
        assert_eq!(read(&whole), Ok(()));
        let mut errors = 0;
        // Most of the file is one large record; its head has everything else.
        for at in (0..1500).step_by(7).chain((1500..whole.len()).step_by(501)) {
            let _ = read(&whole[..at]);
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            errors += u32::from(read(&changed).is_err());
        }
        assert!(errors > 0);
    }
}
