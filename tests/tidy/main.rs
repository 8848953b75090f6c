//! Rules for the repository that a program can check: imports between modules, files without a reference, leftovers,
//! circles of files, reads of the clock, lengths, dead references, names.
//!
//! A failure prints what to do about it. `exceptions.rs` lists violations that are still allowed.

mod circles;
mod clock;
mod exceptions;
mod face;
mod files;
mod names;
mod paths;
mod references;
mod sizes;

mod locks;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module imports only from lower steps; modules of one step do not import each other.
const LADDER: &[&[&str]] = &[
    &["base"],
    &["pickle"],
    &["wire", "conflict", "net"],
    &["postgres"],
    &["storage", "logging", "auth", "process"],
    &["exceptions"],
    &["server", "client", "replication", "inspect"],
    &["backup"],
    &["config"],
    &["commands"],
];

fn step(module: &str) -> Option<usize> {
    LADDER.iter().position(|step| step.contains(&module))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module of a file: its first folder, or its name.
fn module_of(file: &Path) -> String {
    let relative = file.strip_prefix(source()).expect("below src");
    let first = relative.components().next().expect("not empty").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_string()
}

/// The modules that a line of code names with `crate::`.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.insert(name);
        }
    }
    found
}

#[test]
fn modules_import_only_from_below() {
    let mut wrong = Vec::new();
    for file in rust_files(&source()) {
        let module = module_of(&file);
        let Some(own) = step(&module) else { continue };
        let text = fs::read_to_string(&file).expect("readable");
        for import in imports(&text) {
            let Some(other) = step(&import) else { continue };
            if import != module && other >= own {
                wrong.push(format!("{}: `{module}` must not import `{import}`", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "move the code down the ladder (see lib.rs), or hand it in:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_module_is_on_the_ladder() {
    let missing: BTreeSet<String> = rust_files(&source())
        .iter()
        .map(|file| module_of(file))
        .filter(|module| !["lib", "bin", "internal"].contains(&module.as_str()) && step(module).is_none())
        .collect();
    assert!(missing.is_empty(), "give these modules a step in tests/tidy/main.rs and lib.rs: {missing:?}");
}

#[test]
fn every_file_is_mentioned() {
    let files = rust_files(&source());
    let all: String = files.iter().map(|file| fs::read_to_string(file).expect("readable")).collect();
    let lost: Vec<_> = files
        .iter()
        .filter(|file| {
            let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
            !["lib", "mod"].contains(&name.as_str())
                && module_of(file) != "bin"
                && !all.contains(&format!("mod {name};"))
        })
        .collect();
    assert!(lost.is_empty(), "delete these files or mention them with `mod`: {lost:?}");
}

/// Only `server/client_log.rs` writes log lines about clients: it escapes data from clients and limits the rate. Other
/// log lines in the server are about events that no client can cause: their number in each file.
const OWN_LINES: &[(&str, usize)] = &[
    // Unreadable transactions, at the start.
    ("hosted.rs", 1),
    // Clients that did not leave, at the stop.
    ("mod.rs", 1),
    // Limits that exceed the limit of open files, at the start.
    ("descriptors.rs", 2),
    // The address, at the start.
    ("monitor.rs", 1),
    ("http/mod.rs", 1),
];

#[test]
fn lines_about_clients_go_through_one_door() {
    let macros =
        ["log::error!", "log::warn!", "log::info!", "log::log!", "critical!(", "log_at!(", "use log::"];
    let server = source().join("server");
    let mut wrong = Vec::new();
    for file in rust_files(&server) {
        let name = file.strip_prefix(&server).expect("in it").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("readable");
        let lines = text.lines().filter(|line| macros.iter().any(|word| line.contains(word))).count();
        let permitted = OWN_LINES.iter().find(|(own, _)| *own == name).map_or(0, |(_, count)| *count);
        if name != "client_log.rs" && lines != permitted {
            wrong.push(format!("{name}: {lines} lines, {permitted} permitted"));
        }
    }
    assert!(
        wrong.is_empty(),
        "use Peer::log or log_without_peer; or, if no client can bring the line about, note it in OWN_LINES:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn nothing_is_left_over() {
    // In two parts, so that this file does not match.
    let words = [concat!("dbg", "!("), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("to", "do!(")];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for dir in ["src", "tests", "benches", "fuzz/src"] {
        let dir = root.join(dir);
        if !dir.is_dir() {
            continue;
        }
        for file in rust_files(&dir) {
            let text = fs::read_to_string(&file).expect("readable");
            for (number, line) in text.lines().enumerate() {
                if words.iter().any(|word| line.contains(word)) {
                    found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "finish or remove:\n{}", found.join("\n"));
}

/// docs/security.md names the tests that hold its promises.
#[test]
fn the_tests_that_hold_promises_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).expect("docs/security.md");
    let start = page.find("## Which test holds which promise").expect("the chapter");
    let (mut named, mut wrong) = (0, Vec::new());
    for word in page[start..].split('`').skip(1).step_by(2).filter(|word| word.contains('/')) {
        let (file, test) = word.split_once("::").unwrap_or((word, ""));
        named += 1;
        match fs::read_to_string(root.join(file)) {
            Ok(text) if test.is_empty() || text.contains(&format!("fn {test}()")) => {}
            _ => wrong.push(word),
        }
    }
    assert!(named > 30, "{named} tests");
    assert!(wrong.is_empty(), "there is no such test: {wrong:?}");
}
