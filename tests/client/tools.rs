//! Runs of `zeocache`, and of the doctest of ZEO that makes traces.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::pythons::python;

/// The output of `zeocache COMMAND OPTIONS FILE`, which must end with code 0.
pub fn zeocache(command: &str, options: &[&str], file: &Path) -> String {
    zeocache_with(&[], command, options, file, b"", 0)
}

/// The same with variables of the environment, a standard input and an exit code. If the code is not 0, what it writes
/// to stderr follows.
pub fn zeocache_with(
    environment: &[(&str, &str)],
    command: &str,
    options: &[&str],
    file: &Path,
    input: &[u8],
    code: i32,
) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_zeocache"))
        .envs(environment.iter().copied())
        .arg(command)
        .args(options)
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // A command that does not read its input may be gone.
    _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{command} {options:?}: {stderr}");
    let stdout = String::from_utf8(output.stdout).expect("text");
    if code == 0 {
        assert_eq!(stderr, "", "{command} {options:?}");
        stdout
    } else {
        stdout + &stderr
    }
}

/// The number behind a label.
pub fn count_after(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label)).expect(label);
    line.split_whitespace().next().expect(label).replace(',', "").parse().expect(label)
}

/// Runs the doctest `cache_trace_analysis` of ZEO 6 in a directory: each call of a script in it, and what it should
/// print. The first argument is the command. None without the environment.
pub fn upstream(dir: &Path) -> Vec<(Vec<String>, String)> {
    let Some(python) = python("zeo6-py311") else { return Vec::new() };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/upstream_traces.py");
    let output = Command::new(python).arg(script).arg(dir).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: String| std::fs::read_to_string(dir.join(name)).ok();
    let call = |number: usize| {
        let arguments = read(format!("{number}.arguments"))?;
        Some((arguments.lines().map(str::to_string).collect(), read(format!("{number}.expected"))?))
    };
    (0..).map_while(call).collect()
}
