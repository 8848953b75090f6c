//! The messages about every configuration of `compat-tests/config/cases`, compared with `messages.txt` there.
//!
//! `compat-tests/config/run`, which needs Python, shows that the verdicts are Python's; this test shows that they do
//! not change, and puts every changed message into the diff. `UPDATE_MESSAGES=1` rewrites the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::child::{child, is_child};
use runzeo::internal::config::{Invocation, from_command_line};

struct Case {
    name: String,
    /// The file for `-C`.
    file: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Case {
    /// Reads a case. Comments in the file have its arguments and environment.
    fn read(area: &str, stem: &str, file: PathBuf) -> Case {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        let said = |label: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(label)).map(String::from).collect()
        };
        let arguments =
            said("#: args ").iter().flat_map(|line| line.split_whitespace().map(String::from)).collect();
        let environment = said("#: env ")
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Case { name: format!("{area}/{stem}"), file, arguments, environment }
    }

    fn answer(&self) -> String {
        let mut arguments = vec![OsString::from("-C"), self.file.clone().into()];
        arguments.extend(self.arguments.iter().map(OsString::from));
        let directory = format!("{}/", self.file.parent().unwrap().display());
        match from_command_line("runzeo", &arguments, &|name| self.environment.get(name).cloned()) {
            Ok(Invocation::Serve(config)) => {
                config.describe().trim_end().replace('\n', " | ").replace(&directory, "")
            }
            Ok(other) => panic!("{}: {other:?}", self.name),
            Err(error) => format!("Error: {}", error.message.replace(&directory, "")),
        }
    }
}

fn cases(root: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for area in fs::read_dir(root).unwrap() {
        let area = area.unwrap();
        for entry in fs::read_dir(area.path()).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let file = if path.is_dir() { path.join("zeo.conf") } else { path };
            cases.push(Case::read(&area.file_name().to_string_lossy(), &stem, file));
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

#[test]
fn every_case_gets_its_message() {
    // The current directory belongs to the whole process.
    if !is_child() {
        let output = child("corpus::every_case_gets_its_message").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/config");
    let cases = cases(&corpus.join("cases"));
    let scratch = tempfile::tempdir().unwrap();
    for directory in ["var", "log"] {
        fs::create_dir(scratch.path().join(directory)).unwrap();
    }
    std::env::set_current_dir(scratch.path()).unwrap();
    // The home directory differs from machine to machine.
    let got: String = cases
        .iter()
        .filter(|case| !case.name.ends_with("-home"))
        .map(|case| format!("{}: {}\n", case.name, case.answer()))
        .collect();
    let golden = corpus.join("messages.txt");
    if std::env::var_os("UPDATE_MESSAGES").is_some() {
        fs::write(&golden, &got).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    for (got, expected) in got.lines().zip(expected.lines()) {
        assert_eq!(got, expected);
    }
    assert_eq!(
        got.lines().count(),
        expected.lines().count(),
        "{golden:?} lacks cases; see the head of this file"
    );
}
