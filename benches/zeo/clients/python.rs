//! Python's client, in a process of its own: `client.py`.

use crate::client::Result;
use crate::outcome::Outcome;
use crate::sys;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What `client.py` is told.
pub struct Task<'a> {
    pub workload: &'a str,
    pub address: &'a str,
    /// The directory with the oids; for `open` the cache file.
    pub path: &'a Path,
    pub threads: usize,
    pub measured: Duration,
    pub cache_len: u64,
    pub object_len: usize,
}

/// The command that does it.
pub fn command(python: &Path, task: &Task<'_>) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/zeo/clients/client.py");
    let mut command = Command::new(python);
    command.arg(script).args([task.workload, task.address]).arg(task.path);
    command.args([
        task.threads.to_string(),
        task.measured.as_secs_f64().to_string(),
        task.cache_len.to_string(),
        task.object_len.to_string(),
    ]);
    sys::tie_to_us(&mut command);
    command
}

/// Runs it, and takes the figures that it prints.
pub fn run(python: &Path, task: &Task<'_>, outcome: &mut Outcome) -> Result<()> {
    let mut command = command(python, task);
    let done = command.stdin(Stdio::null()).output();
    take_figures(done.map_err(|e| format!("{}: {e}", python.display()))?, outcome)
}

/// Takes the figures that a process has printed.
pub fn take_figures(done: std::process::Output, outcome: &mut Outcome) -> Result<()> {
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        return Err(said.lines().last().unwrap_or("it failed, and said nothing").into());
    }
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        if let Some((figure, value)) = line.split_once(' ')
            && let Ok(value) = value.parse()
        {
            outcome.set(figure, value);
        }
    }
    Ok(())
}
