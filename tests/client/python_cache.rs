//! The cache of ZEO's own client, for tests of ours.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::pythons::python;

/// ZEO's cache in a process of its own.
pub struct PythonCache {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl PythonCache {
    pub fn start(environment: &str) -> Option<PythonCache> {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/cache_driver.py");
        let mut child = Command::new(python(environment)?)
            .arg(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(PythonCache { child, to, from })
    }

    pub fn call(&mut self, call: Value) -> Value {
        writeln!(self.to, "{call}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{call}: {error}: {line}"))
    }
}

impl Drop for PythonCache {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
