//! Starts, stops and watches the server of a configuration file: see `zeoctl --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "zeoctl".to_string());
    runzeo::commands::zeoctl::run(&program, &arguments.collect::<Vec<_>>())
}
