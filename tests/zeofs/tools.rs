//! Under the name of a tool of ZODB the program prints what the tool prints, and ends with its status.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::files::{fixtures, made, zeofs};
use crate::support::pythons::python;

/// What a tool of ZODB prints for each of the files, and its exit status. `FILE` in the arguments is the file. None
/// without the environment.
pub fn of_python(
    environment: &str,
    module: &str,
    arguments: &[&str],
    files: &[PathBuf],
) -> Option<Vec<(Vec<u8>, u8)>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zeofs/run_tool.py");
    let mut child = Command::new(python(environment)?)
        .arg(script)
        .arg(module)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let paths: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let mut input = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || input.write_all(paths.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("written");
    assert!(output.status.success());
    let mut rest = output.stdout.as_slice();
    let mut results = Vec::new();
    while !rest.is_empty() {
        let line = rest.iter().position(|byte| *byte == b'\n').expect("a line");
        let (status, len) =
            str::from_utf8(&rest[..line]).expect("text").split_once(' ').expect("two numbers");
        let len: usize = len.parse().expect("a number");
        rest = &rest[line + 1..];
        results.push((rest[..len].to_vec(), status.parse().expect("a status")));
        rest = &rest[len..];
    }
    assert_eq!(results.len(), files.len());
    Some(results)
}

/// The same from this program.
pub fn of_ours(tool: &str, arguments: &[&str], file: &Path) -> (Vec<u8>, u8) {
    let file = file.to_str().expect("text");
    let arguments = arguments.iter().map(|argument| if *argument == "FILE" { file } else { argument });
    let arguments: Vec<&str> = [tool].into_iter().chain(arguments).collect();
    zeofs(&arguments)
}

/// The files with the environment whose tools can read them.
fn files() -> Vec<(&'static str, Vec<PathBuf>)> {
    let reader = |path: &Path| match &std::fs::read(path).expect("it reads")[..4] {
        b"FS21" => "zeo4-py27",
        _ => "zeo6-py311",
    };
    let all =
        made().iter().flat_map(|made| made.files.clone()).chain(fixtures().into_iter().map(|(_, path)| path));
    let all: Vec<PathBuf> = all.collect();
    ["zeo6-py311", "zeo4-py27"]
        .map(|environment| {
            (environment, all.iter().filter(|path| reader(path) == environment).cloned().collect())
        })
        .into()
}

fn check_same(tool: &str, module: &str, arguments: &[&str]) {
    for (environment, files) in files() {
        let Some(expected) = of_python(environment, module, arguments, &files) else { continue };
        for (file, expected) in files.iter().zip(expected) {
            let ours = of_ours(tool, arguments, file);
            let shown =
                |(text, status): &(Vec<u8>, u8)| format!("{status}\n{}", String::from_utf8_lossy(text));
            assert_eq!(
                shown(&ours),
                shown(&expected),
                "{environment} {tool} {arguments:?} {}",
                file.display()
            );
            assert_eq!(ours, expected);
        }
    }
}

#[test]
fn fsdump_prints_what_pythons_does() {
    check_same("fsdump", "ZODB.FileStorage.fsdump", &["FILE"]);
}

#[test]
fn fstail_prints_what_pythons_does() {
    for arguments in [&["FILE"][..], &["-n", "3", "FILE"], &["-n", "0", "FILE"], &["-n", "-1", "FILE"]] {
        check_same("fstail", "ZODB.scripts.fstail", arguments);
    }
}

#[test]
fn fstest_prints_what_pythons_does() {
    for arguments in [&["FILE"][..], &["-v", "FILE"], &["-v", "-v", "FILE"], &["-vv", "FILE"]] {
        check_same("fstest", "ZODB.scripts.fstest", arguments);
    }
}

#[test]
fn analyze_prints_what_pythons_does() {
    check_same("analyze", "ZODB.scripts.analyze", &["FILE"]);
}

#[test]
fn fsrefs_prints_what_pythons_does() {
    check_same("fsrefs", "ZODB.scripts.fsrefs", &["FILE"]);
    check_same("fsrefs", "ZODB.scripts.fsrefs", &["-v", "FILE"]);
}

/// ZODB 4 on Python 2 takes a reference without a class for the one before it. ZODB 6 crashes if there is anything to
/// print besides an object without record: then this program prints what the tool means to.
#[test]
fn fsoids_prints_what_pythons_does() {
    for (environment, files) in files() {
        let has_no_plain_reference = |path: &PathBuf| {
            !["plain.fs", "packed.fs"].contains(&path.file_name().unwrap().to_str().unwrap())
                || environment != "zeo4-py27"
        };
        let files: Vec<PathBuf> = files.into_iter().filter(has_no_plain_reference).collect();
        for oids in [&["0", "0x1", "2", "0o3"][..], &["0"], &["18", "9"], &["0x77"], &["1", "0x01"]] {
            let arguments = [&["FILE"], oids].concat();
            let Some(expected) = of_python(environment, "ZODB.scripts.fsoids", &arguments, &files) else {
                continue;
            };
            let mut same = 0;
            for (file, (text, status)) in files.iter().zip(expected) {
                let (ours, our_status) = of_ours("fsoids", &arguments, file);
                assert_eq!(our_status, 0, "{}", file.display());
                if status == 0 {
                    let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
                    assert_eq!(shown(&ours), shown(&text), "{environment} {oids:?} {}", file.display());
                    same += 1;
                } else {
                    assert_eq!(environment, "zeo6-py311");
                    assert!(String::from_utf8_lossy(&ours).contains("this oid was not defined"), "{oids:?}");
                }
            }
            assert!(same >= 2, "{environment} {oids:?}: {same}");
        }
    }
}

#[test]
fn fsoids_takes_oids_from_a_file() {
    let (_, file) = &fixtures()[0];
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("oids");
    std::fs::write(&list, "0x1\n2\n").unwrap();
    let list = list.to_str().unwrap();
    assert_eq!(of_ours("fsoids", &["-f", list, "FILE"], file), of_ours("fsoids", &["FILE", "1", "2"], file));
    for wrong in [&["FILE"][..], &["FILE", "x"], &["FILE", "-1"], &["-f", "/nonexistent", "FILE"], &[]] {
        assert_eq!(of_ours("fsoids", wrong, file), (Vec::new(), 1), "{wrong:?}");
    }
}

/// A link with the name of a tool is that tool, as a script expects it on the path.
#[test]
fn the_name_of_the_program_chooses_the_tool() {
    let (_, file) = &fixtures()[0];
    let dir = tempfile::tempdir().unwrap();
    for tool in ["fsdump", "fstail"] {
        let link = dir.path().join(tool);
        symlink(env!("CARGO_BIN_EXE_zeofs"), &link).unwrap();
        let output = Command::new(&link).arg(file).output().unwrap();
        assert_eq!((output.stdout, output.status.code()), (of_ours(tool, &["FILE"], file).0, Some(0)));
        // As Python's: a wrong command line ends with 1.
        let output = Command::new(&link).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("Usage: "), "{tool}");
    }
}
