//! What is in a `Data.fs`, and whether it is whole: see `zeofs --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "zeofs".to_string());
    runzeo::commands::zeofs::run(&program, &arguments.collect::<Vec<_>>())
}
