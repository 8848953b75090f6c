//! Records that ZODB has written mean the same to Python after they were read and written here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use runzeo::client::records::{
    Class, Construction, DateTime, Format, Length, ObjectRecord, PersistentList, PersistentMapping, PyValue,
    RecordError, Reference,
};
use runzeo::ids::Oid;

use crate::pythons::python;

/// Runs the driver; returns what it prints. `None`: the environment is not installed.
fn driver(environment: &str, arguments: &[&Path]) -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/records_driver.py");
    let output = Command::new(python(environment)?).arg(script).args(arguments).output().expect("Python");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{environment}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

fn read(path: &Path) -> Vec<Vec<u8>> {
    let data = fs::read(path).expect("records");
    let mut rest = data.as_slice();
    let mut records = Vec::new();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let (record, behind) = behind.split_at(u32::from_be_bytes(*len) as usize);
        records.push(record.to_vec());
        rest = behind;
    }
    records
}

fn write(path: &Path, records: &[Vec<u8>]) {
    let framed =
        |record: &Vec<u8>| [&u32::try_from(record.len()).unwrap().to_be_bytes(), record.as_slice()].concat();
    fs::write(path, records.iter().flat_map(framed).collect::<Vec<u8>>()).expect("a file");
}

/// The records of a database of this environment, also in the file that is returned.
fn python_records(dir: &Path, environment: &str, command: &str) -> Option<(PathBuf, Vec<Vec<u8>>)> {
    let path = dir.join(format!("{environment}.records"));
    driver(environment, &[Path::new(command), &path])?;
    let records = read(&path);
    assert!(records.len() > 20, "{environment}: {}", records.len());
    Some((path, records))
}

const SAMPLES: [(&str, &str); 8] = [
    ("zeo6-py311", "sample"),
    ("zeo5-py38", "sample"),
    ("zeo4-py36", "sample"),
    ("zeo4-py27", "sample"),
    ("zodb310-py27", "sample"),
    ("zodb38-py27", "sample"),
    ("zope6-py311", "zope"),
    ("zope4-py27", "zope"),
];

#[test]
fn what_is_read_is_written_with_the_same_meaning() {
    let dir = tempfile::tempdir().expect("a directory");
    for (environment, command) in SAMPLES {
        let Some((path, records)) = python_records(dir.path(), environment, command) else { continue };
        let again: Vec<Vec<u8>> = records
            .iter()
            .map(|data| {
                let record = ObjectRecord::decode(data)
                    .unwrap_or_else(|error| panic!("{environment}: {error}: {}", data.escape_ascii()));
                assert_eq!(record.format.is_python2(), environment.ends_with("py27"), "{environment}");
                let written = record.encode().expect("a record");
                assert_eq!(ObjectRecord::decode(&written).as_ref(), Ok(&record), "{environment}");
                let (mut before, mut after) = (
                    ObjectRecord::references_of(data).expect("references"),
                    ObjectRecord::references_of(&written).expect("references"),
                );
                before.sort();
                after.sort();
                assert_eq!(before, after, "{environment}");
                written
            })
            .collect();
        let written = dir.path().join("again.records");
        write(&written, &again);
        let compared = driver(environment, &[Path::new("compare"), &path, &written]).expect("Python");
        assert!(compared.contains(&format!("{} records", records.len())), "{environment}: {compared}");
    }
}

#[test]
fn the_comparison_sees_a_difference() {
    let dir = tempfile::tempdir().expect("a directory");
    let environment = "zeo4-py27";
    let Some((path, mut records)) = python_records(dir.path(), environment, "sample") else { return };
    let changed = records.iter_mut().find(|data| {
        let record = ObjectRecord::decode(data).expect("a record");
        record.class_name().is_some_and(|class| *class.name == *"Length")
    });
    let changed = changed.expect("a length");
    let mut record = ObjectRecord::decode(changed).expect("a record");
    assert_eq!(record.state, PyValue::Int(7));
    record.state = PyValue::Long(7);
    *changed = record.encode().expect("a record");
    let other = dir.path().join("other.records");
    write(&other, &records);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/records_driver.py");
    let output = Command::new(python(environment).expect("Python"))
        .arg(script)
        .args([Path::new("compare"), &path, &other])
        .output()
        .expect("Python");
    assert!(!output.status.success(), "int and long are different");
}

#[test]
fn values_of_every_type() {
    let dir = tempfile::tempdir().expect("a directory");
    for environment in ["zeo6-py311", "zeo4-py27"] {
        let Some((_, records)) = python_records(dir.path(), environment, "sample") else { continue };
        let records: Vec<_> =
            records.iter().map(|data| ObjectRecord::decode(data).expect("a record")).collect();
        let of_class = |name: &'static str| {
            records.iter().filter(move |record| record.class_name().is_some_and(|class| *class.name == *name))
        };
        let python2 = environment.ends_with("py27");
        let lists: Vec<_> =
            of_class("PersistentList").map(|r| PersistentList::of(r.clone()).unwrap()).collect();
        let values =
            lists.iter().map(|list| list.items()).find(|items| items.len() > 20).expect("the values");
        let has = |value: &PyValue| values.contains(value);
        let (native, plain) = match python2 {
            true => (PyValue::str2(b"native"), PyValue::str2(b"bytes")),
            false => (PyValue::text("native"), PyValue::bytes(b"bytes")),
        };
        assert!(has(&native) && has(&plain) && has(&PyValue::text("text")) && has(&PyValue::Float(-1.5)));
        assert!(has(&PyValue::Int(65536)) && has(&PyValue::Set(vec![PyValue::Int(1), PyValue::Int(2)])));
        assert_eq!(has(&PyValue::Long(5)), python2);
        assert!(values.iter().any(|value| value.as_integer() == Some(1 << 63)), "2 ** 63");
        assert!(values.iter().any(|value| matches!(value, PyValue::Surrogates(_))), "{environment}");
        let when = values.iter().find_map(PyValue::as_datetime).expect("a datetime");
        let expected = DateTime {
            year: 2026,
            month: 11,
            day: 28,
            hour: 23,
            minute: 59,
            second: 58,
            microsecond: 123_456,
        };
        assert_eq!(when, expected);
        assert_eq!(PyValue::datetime(when).as_datetime(), Some(when));
        let classic = values
            .iter()
            .filter_map(PyValue::as_instance)
            .find(|instance| matches!(&instance.class, PyValue::Class(class) if *class.name == *"Classic"));
        let classic = classic.expect("a classic instance");
        assert_eq!(classic.construction == Construction::Classic, python2);
        // One list, in several places.
        let shared: Vec<_> = values.iter().filter(|value| matches!(value, PyValue::Shared(_))).collect();
        assert!(shared.iter().any(|value| value.as_items() == Some(&[PyValue::Int(1), PyValue::Int(2)])));

        let mapping = of_class("PersistentMapping").find(|record| record.attribute("data").is_some());
        PersistentMapping::of(mapping.expect("a mapping").clone()).expect("a mapping");
        let length = Length::of(of_class("Length").next().expect("a length").clone()).expect("a length");
        assert_eq!(length.value(), 7);
        let with_arguments = of_class("WithArguments").next().expect("an object");
        let args = with_arguments.args.as_ref().and_then(PyValue::as_items).expect("arguments");
        assert_eq!(args.last(), Some(&PyValue::Int(2)));
        let weak = lists.iter().flat_map(|list| list.items()).filter_map(PyValue::as_instance).count();
        assert!(
            weak > 0
                || lists.iter().any(|list| list.items().iter().any(
                    |value| matches!(value, PyValue::Reference(r) if matches!(**r, Reference::Weak { .. }))
                ))
        );
        let arguments = lists.iter().flat_map(|list| list.items()).any(|value| {
            matches!(value, PyValue::Reference(r) if matches!(**r, Reference::Object { class: None, .. }))
        });
        assert!(arguments, "a reference without a class");
    }
}

/// All forms of references, as Python pickles them.
#[test]
fn references_of_every_form() {
    let state = |id: &[u8]| [b"cm\nC\n.", id, b"Q."].concat();
    let class = || Some(PyValue::Class(Class::new("m", "D")));
    let other = || PyValue::str2(b"other");
    for (id, expected) in [
        (&b"U\x08\0\0\0\0\0\0\0\x05"[..], Reference::Object { oid: Oid(5), class: None }),
        (b"(U\x08\0\0\0\0\0\0\0\x05cm\nD\nt", Reference::Object { oid: Oid(5), class: class() }),
        (b"]U\x08\0\0\0\0\0\0\0\x05a", Reference::Weak { oid: Oid(5), database: None }),
        (b"](U\x01w(U\x08\0\0\0\0\0\0\0\x05te", Reference::Weak { oid: Oid(5), database: None }),
        (
            b"](U\x01w(U\x08\0\0\0\0\0\0\0\x05U\x05otherte",
            Reference::Weak { oid: Oid(5), database: Some(other()) },
        ),
        (
            b"](U\x01n(U\x05otherU\x08\0\0\0\0\0\0\0\x05te",
            Reference::Foreign { database: other(), oid: Oid(5), class: None },
        ),
        (
            b"](U\x01m(U\x05otherU\x08\0\0\0\0\0\0\0\x05cm\nD\nte",
            Reference::Foreign { database: other(), oid: Oid(5), class: class() },
        ),
        (b"K\x05", Reference::Unknown(PyValue::Int(5))),
    ] {
        let record = ObjectRecord::decode(&state(id)).expect("a record");
        assert_eq!(record.state, PyValue::Reference(Arc::new(expected.clone())));
        let again = ObjectRecord::decode(&record.encode().expect("a record")).expect("a record");
        assert_eq!(again, record);
        let strong = matches!(expected, Reference::Object { .. });
        assert_eq!(record.state.as_oid(), strong.then_some(Oid(5)));
    }
}

/// The second pickle may refer to the memo of the first.
#[test]
fn both_pickles_have_one_memo() {
    let record = ObjectRecord::decode(b"\x80\x02cm\nC\nq\x01.\x80\x02h\x01.").expect("a record");
    assert_eq!(record.state, PyValue::Class(Class::new("m", "C")));
    assert_eq!(ObjectRecord::decode(&record.encode().unwrap()).unwrap(), record);
}

/// Records that cost much: deep, self-containing, growing when unfolded.
#[test]
fn hostile_records_are_refused_in_time() {
    let begun = Instant::now();
    let deep = [b"cm\nC\n.".to_vec(), vec![b']'; 100_000], vec![b'a'; 99_999], b".".to_vec()].concat();
    assert_eq!(ObjectRecord::decode(&deep), Err(RecordError::TooDeep));
    assert_eq!(ObjectRecord::decode(b"cm\nC\n.]q\x01h\x01a."), Err(RecordError::Cyclic));
    let mut bomb = b"cm\nC\n.]q\x00".to_vec();
    for level in 0..100u8 {
        bomb.extend_from_slice(&[b'h', level, b'h', level, 0x86, b'q', level + 1]);
    }
    bomb.push(b'.');
    assert_eq!(ObjectRecord::decode(&bomb), Err(RecordError::TooLarge));
    let many = [b"cm\nC\n.](".to_vec(), vec![b'N'; 3 << 20], b"e.".to_vec()].concat();
    assert!(matches!(ObjectRecord::decode(&many), Err(RecordError::Unreadable { .. })));
    for broken in [&b""[..], b"cm\nC\n.", b"cm\nC\n.(", b"N", b"\xff", b"cm\nC\n.a."] {
        assert!(matches!(ObjectRecord::decode(broken), Err(RecordError::Unreadable { .. })), "{broken:?}");
    }
    let mut value = PyValue::List(vec![]);
    for _ in 0..1000 {
        value = PyValue::List(vec![value]);
    }
    let record = ObjectRecord::new(Class::new("m", "C"), value, Format::PYTHON3);
    assert_eq!(record.encode(), Err(RecordError::TooDeep));
    assert!(begun.elapsed().as_secs() < 60);
}

#[test]
fn mappings_are_changed_as_python_would() {
    for format in [Format::PYTHON2, Format::PYTHON3] {
        let mut mapping = PersistentMapping::new(format);
        assert_eq!(mapping.insert("a", PyValue::Int(1)), None);
        assert_eq!(mapping.insert("a", PyValue::Int(2)), Some(PyValue::Int(1)));
        assert_eq!(mapping.insert(PyValue::Int(1), PyValue::Int(3)), None);
        assert_eq!(mapping.items()[0].0, format.native("a"));
        let record: ObjectRecord = mapping.into();
        let mut mapping =
            PersistentMapping::of(ObjectRecord::decode(&record.encode().unwrap()).unwrap()).unwrap();
        assert_eq!(mapping.get("a"), Some(&PyValue::Int(2)));
        assert_eq!(mapping.remove("a"), Some(PyValue::Int(2)));
        assert_eq!(mapping.remove("a"), None);
        assert_eq!(mapping.items().len(), 1);
    }
    let record = ObjectRecord::new(Class::new("m", "C"), PyValue::None, Format::PYTHON3);
    let error = PersistentMapping::of(record).unwrap_err();
    assert_eq!(error.to_string(), "a persistent mapping is expected, not a m.C whose state is None");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let whole = [b"cm\nC\n.".as_slice(), &data, b"."].concat();
        for record in [data.as_slice(), &whole] {
            if let Ok(record) = ObjectRecord::decode(record) {
                let again = ObjectRecord::decode(&record.encode().expect("what was read can be written"));
                prop_assert_eq!(format!("{:?}", again.as_ref().map(|r| &r.state)), format!("{:?}", Ok::<_, &RecordError>(&record.state)));
            }
        }
    }
}
