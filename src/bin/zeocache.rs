//! What the cache of a client does: see `zeocache --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "zeocache".to_string());
    runzeo::commands::zeocache::run(&program, &arguments.collect::<Vec<_>>())
}
