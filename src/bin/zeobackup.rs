//! Backups of a `Data.fs`: see `zeobackup --help`. As `repozo` it is Python's repozo.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "zeobackup".to_string());
    runzeo::commands::zeobackup::run(&program, &arguments.collect::<Vec<_>>())
}
