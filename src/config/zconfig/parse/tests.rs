use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Files in memory.
#[derive(Default)]
struct Memory {
    files: HashMap<PathBuf, Vec<u8>>,
}

impl Memory {
    fn with(files: &[(&str, &str)]) -> Memory {
        Memory { files: files.iter().map(|(name, text)| (name.into(), text.as_bytes().to_vec())).collect() }
    }
}

impl Surroundings for Memory {
    fn environment(&self, name: &str) -> Option<String> {
        (name == "HERE").then(|| "there".into())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn import(&self, package: &str) -> Result<(), String> {
        if package == "known" { Ok(()) } else { Err(format!("package '{package}' is unknown")) }
    }
}

/// The tree on one line: `key=text@line`, `<type name>{...}@start-end`.
fn summary(section: &Section) -> String {
    let line = |location: &Location| match location {
        Location::File { path, line } if &**path == "zeo.conf" => line.to_string(),
        other => other.to_string(),
    };
    let items: Vec<String> = section
        .items
        .iter()
        .map(|item| match item {
            Item::Value(value) => format!("{}={}@{}", value.key, value.text, line(&value.location)),
            Item::Section(section) => {
                let name = section.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
                let (start, end) = (line(&section.start), line(&section.end));
                format!("<{}{name}>{{{}}}@{start}-{end}", section.type_name, summary(section))
            }
        })
        .collect();
    items.join(" ")
}

fn check(text: &str, expected: Result<&str, &str>) {
    check_files(&[("zeo.conf", text)], expected);
}

fn check_files(files: &[(&str, &str)], expected: Result<&str, &str>) {
    let got = load("zeo.conf", &Memory::with(files)).map(|tree| summary(&tree)).map_err(|e| e.to_string());
    assert_eq!(got.as_deref().map_err(String::as_str), expected, "{files:?}");
}

#[test]
fn sections_and_keys() {
    check("", Ok(""));
    check("# comment\n\n  # another\r\n", Ok(""));
    check("key value  with  blanks \r\nother\n", Ok("key=value  with  blanks@1 other=@2"));
    check("key(value)\n", Ok("key=(value)@1"));
    check("<ZEO>\n address 1 # no comment\n</zeo >\n", Ok("<zeo>{address=1 # no comment@2}@1-3"));
    check("<File Main/>\n<a/>", Ok("<file main>{}@1-1 <a>{}@2-2"));
    check("<a>\n<b  c >\n</B>\n</a>", Ok("<a>{<b c>{}@2-3}@1-4"));
    check("<a b/ >\n</a>", Ok("<a b/>{}@1-2"));
}

#[test]
fn malformed_lines() {
    check("<a>\n<b>\n</b>\n", Err("zeo.conf:1: <a> is not closed"));
    check("x y\n</a>\n", Err("zeo.conf:2: </a> closes nothing"));
    check("<a>\n</b>\n", Err("zeo.conf:2: </b> where </a> is expected (opened at zeo.conf:1)"));
    check("<a", Err("zeo.conf:1: '<a' does not end with '>'"));
    check("</a", Err("zeo.conf:1: '</a' does not end with '>'"));
    check("<>", Err("zeo.conf:1: malformed section header '<>'; expected <type> or <type name>"));
    check("< a>", Err("zeo.conf:1: malformed section header '< a>'; expected <type> or <type name>"));
    check("<a b c>", Err("zeo.conf:1: malformed section header '<a b c>'; expected <type> or <type name>"));
    check("<a(b)>", Err("zeo.conf:1: malformed section header '<a(b)>'; expected <type> or <type name>"));
    check("(x) y", Err("zeo.conf:1: '(x) y' is neither a key with a value nor a section"));
    check("%", Err("zeo.conf:1: '%' is not followed by define, include or import"));
    check("%if x", Err("zeo.conf:1: unknown directive '%if'; there are %define, %include and %import"));
    check("%define", Err("zeo.conf:1: %define lacks its argument"));
    check("a $b", Err("zeo.conf:1: 'b' is not defined"));
    check("%import other", Err("zeo.conf:1: package 'other' is unknown"));
    check("%define x known\n%import $x", Ok(""));
}

#[test]
fn bytes_that_are_no_text() {
    let mut memory = Memory::default();
    memory.files.insert("zeo.conf".into(), b"a b\nc \xff\n".to_vec());
    let error = load("zeo.conf", &memory).unwrap_err().to_string();
    assert_eq!(error, "zeo.conf:2: not UTF-8 text");
}

#[test]
fn includes() {
    let inner = ("sub/inner.conf", "%define later 5\n<b>\nx $(HERE)\n</b>\n%include more.conf\n");
    let more = ("sub/more.conf", "y $outer");
    let outer = ("zeo.conf", "%define outer 1\n<a>\n%include sub/inner.conf\nz $later\n</a>");
    check_files(
        &[outer, inner, more],
        Ok(
            "<a>{<b>{x=there@sub/inner.conf:3}@sub/inner.conf:2-sub/inner.conf:4 y=1@sub/more.conf:1 z=5@4}@2-5",
        ),
    );
    check_files(
        &[("zeo.conf", "<a>\n%include inner"), ("inner", "</a>")],
        Err("inner:1: </a> closes nothing"),
    );
    check_files(&[("zeo.conf", "\n%include gone")], Err("zeo.conf:2: cannot read gone: entity not found"));
    check_files(&[("zeo.conf", "%include zeo.conf")], Err("zeo.conf:1: zeo.conf includes itself"));
    check_files(
        &[("zeo.conf", "%include b"), ("b", "\n%include ./zeo.conf")],
        Err("b:2: zeo.conf includes itself"),
    );
    check_files(&[("zeo.conf", "%include b\n%include b"), ("b", "x y")], Ok("x=y@b:1 x=y@b:1"));
}

#[test]
fn limits() {
    let deep = "<a>\n".repeat(100_000);
    check(&deep, Err("zeo.conf:101: sections nest deeper than 100"));
    let chain: Vec<(String, String)> =
        (0..100).map(|i| (format!("f{i}"), format!("%include f{}", i + 1))).collect();
    let mut files: Vec<(&str, &str)> = chain.iter().map(|(name, text)| (&**name, &**text)).collect();
    files.push(("zeo.conf", "%include f0"));
    check_files(&files, Err("f63:1: includes are nested deeper than 64"));
    // Every file includes the next one eight times: without a limit, 8^20 files would be read.
    let tree: Vec<(String, String)> =
        (0..20).map(|i| (format!("f{i}"), format!("%include f{}\n", i + 1).repeat(8))).collect();
    let mut files: Vec<(&str, &str)> = tree.iter().map(|(name, text)| (&**name, &**text)).collect();
    files.extend([("zeo.conf", "%include f0"), ("f20", "")]);
    let error = load("zeo.conf", &Memory::with(&files)).unwrap_err().to_string();
    assert!(error.ends_with("more than 10000 files are included"), "{error}");
}

#[test]
fn a_large_file() {
    let text = "<a>\nkey value\n</a>\n".repeat(200_000);
    let tree = load("zeo.conf", &Memory::with(&[("zeo.conf", &text)])).unwrap();
    assert_eq!(tree.items.len(), 200_000);
    assert_eq!(tree.end, Location::File { path: "zeo.conf".into(), line: 600_000 });
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut memory = Memory::default();
        memory.files.insert("zeo.conf".into(), bytes);
        let _ = load("zeo.conf", &memory);
    }

    #[test]
    fn no_lines_panic(lines in proptest::collection::vec("[<>/%$(){}#]{0,3}(define|include|import|é|a)?[ \\x1c]?[<>/%$(){}a]{0,4}", 0..12)) {
        let text = lines.join("\n");
        if let Err(error) = load("zeo.conf", &Memory::with(&[("zeo.conf", &text)])) {
            prop_assert!(error.location.is_some());
        }
    }
}
