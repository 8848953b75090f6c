//! Whether a ZEO server is up: see `zeoup --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "zeoup".to_string());
    runzeo::commands::zeoup::run(&program, &arguments.collect::<Vec<_>>())
}
