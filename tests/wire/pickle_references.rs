//! References in records: the results of `ZODB.serialize.referencesf` for random records, made by every pickler of
//! Python 2 and 3, compared with this server's.
//!
//! A pack treated every record without a byte that could be a reference as one without references, even a damaged one,
//! and removed the objects that the record had referred to. So everything that Python refuses must be refused, for all
//! bytes.

use std::path::Path;
use std::process::Command;

use crate::support::pythons::python;
use runzeo::ids::Oid;
use runzeo::internal::pickle::refs::references;

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_same_references_as_zodb() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/data-fs/references.py");
    // More of them on request.
    let count = std::env::var("RUNZEO_RECORDS").unwrap_or("3000".into());
    for name in ["zeo6-py311", "zeo4-py36", "zeo4-py27", "zodb310-py27"] {
        let Some(python) = python(name) else { continue };
        let mut command = Command::new(&python);
        command.arg(&script).args(["5", &count]).env("PYTHONDONTWRITEBYTECODE", "1");
        let output = command.output().unwrap();
        // Some truncated records crash zodbpickle: its output before the crash counts.
        let crashed = output.status.code().is_none();
        assert!(crashed || output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let (mut with_some, mut refused, mut strict) = (0, 0, 0);
        let mut count = 0;
        let stdout = String::from_utf8(output.stdout).unwrap();
        let whole = stdout.rfind('\n').map_or("", |end| &stdout[..end]);
        for line in whole.lines() {
            count += 1;
            let (record, expected) = line.split_once(' ').unwrap();
            let record = from_hex(record);
            let mut oids = Vec::new();
            let found = references(&record, &mut oids);
            let what = || format!("{name}: {}: {found:?} {oids:?}, ZODB: {expected}", record.escape_ascii());
            let lengths_fit = expected.split(',').all(|oid| oid.len() == 16 || oid.is_empty());
            if expected.starts_with('!') || !lengths_fit {
                refused += 1;
                assert!(found.is_err(), "{}", what());
            } else {
                let hex: Vec<String> = oids.iter().map(Oid::to_string).collect();
                assert!(found.is_err() || hex.join(",") == expected, "{}", what());
                // Damaged records may be refused although Python accepts them.
                strict += usize::from(found.is_err());
                with_some += usize::from(!oids.is_empty());
            }
        }
        assert!(
            with_some > 100 && refused > 10 && strict < count / 20,
            "{name}: {with_some} {refused} {strict}"
        );
    }
}
