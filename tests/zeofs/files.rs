//! Files that ZODB has made, and the program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

pub use runzeo::internal::commands::zeofs::zeofs;

use crate::support::pythons::python;

/// Files of one environment.
pub struct Made {
    pub environment: &'static str,
    pub files: Vec<PathBuf>,
    pub dir: TempDir,
}

impl Made {
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Files of Python 2 and 3, made once; fewer if an environment is missing.
pub fn made() -> &'static [Made] {
    static MADE: OnceLock<Vec<Made>> = OnceLock::new();
    MADE.get_or_init(|| ["zeo6-py311", "zeo4-py27"].into_iter().filter_map(make).collect())
}

fn make(environment: &'static str) -> Option<Made> {
    let python = python(environment)?;
    let dir = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zeofs/make_files.py");
    let output = Command::new(python).arg(script).arg(dir.path()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = ["plain", "packed", "small", "unusual", "unpacked"];
    let files = names.iter().map(|name| dir.path().join(format!("{name}.fs"))).collect();
    Some(Made { environment, files, dir })
}

/// A directory in memory, if the system has that: there each of thousands of syncs takes no time.
pub fn dir_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// The files of `python-fixtures`: each environment, and its `Data.fs`.
pub fn fixtures() -> Vec<(String, PathBuf)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/data-fs");
    let entries = std::fs::read_dir(dir).expect("it reads").map(|entry| entry.expect("an entry"));
    let mut found: Vec<_> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| (entry.file_name().into_string().expect("text"), entry.path().join("Data.fs")))
        .collect();
    found.sort();
    assert!(found.len() >= 6, "{found:?}");
    found
}

/// What the program prints, and its exit status.
pub fn run(command: &str, options: &[&str], file: &Path) -> (String, u8) {
    let file = file.to_str().expect("text");
    let arguments: Vec<&str> = [&[command], options, &[file]].concat();
    let (out, status) = zeofs(&arguments);
    (String::from_utf8(out).expect("text"), status)
}

/// What it prints with `--json`, and its exit status.
pub fn json(command: &str, options: &[&str], file: &Path) -> (Vec<serde_json::Value>, u8) {
    let options = [options, &["--json"]].concat();
    let (text, status) = run(command, &options, file);
    (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), status)
}
