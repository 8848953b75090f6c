//! RelStorage's clients, in processes of their own: `relstorage_clients.py`.

use crate::client::Result;
use crate::clients::take_figures;
use crate::outcome::Outcome;
use crate::sys;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The interpreter of the tests' environment for RelStorage.
pub fn default_python() -> PathBuf {
    let environments = std::env::var_os("RUNZEO_VENVS").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/runzeo"),
        PathBuf::from,
    );
    environments.join("relstorage-py311/bin/python")
}

/// Whether the interpreter has RelStorage.
pub fn is_installed(python: &Path) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import relstorage, psycopg2"]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs the program with `arguments`, and takes the figures that it prints.
pub fn run(python: &Path, arguments: &[&str], outcome: &mut Outcome) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/zeo/postgres/relstorage_clients.py");
    let mut command = Command::new(python);
    command.arg(script).args(arguments).stdin(Stdio::null());
    sys::tie_to_us(&mut command);
    let done = command.output();
    take_figures(done.map_err(|e| format!("{}: {e}", python.display()))?, outcome)
}
