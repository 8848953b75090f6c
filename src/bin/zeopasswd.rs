//! Users and passwords of a server with authentication: see `zeopasswd --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "zeopasswd".to_string());
    runzeo::commands::zeopasswd::run(&program, &arguments.collect::<Vec<_>>())
}
