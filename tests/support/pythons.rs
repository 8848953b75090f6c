//! The Pythons with ZODB that `compat-tests/make-environments` makes.

use std::io::Write as _;
use std::path::PathBuf;

/// The interpreter of the environment `name`, or None, and a line on stderr that `scripts/test` shows.
pub fn python(name: &str) -> Option<PathBuf> {
    let environments = std::env::var_os("RUNZEO_VENVS")
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/runzeo").into()))
        .map_or_else(PathBuf::new, PathBuf::from);
    let python = environments.join(name).join("bin/python");
    if !python.exists() {
        // Not with eprintln!, which the test harness keeps to itself while a test passes.
        _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: no {}; see compat-tests/make-environments",
            python.display()
        );
        return None;
    }
    Some(python)
}
