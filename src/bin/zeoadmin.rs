//! Look at a running server, and steer it: see `zeoadmin --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "zeoadmin".to_string());
    runzeo::commands::zeoadmin::run(&program, &arguments.collect::<Vec<_>>())
}
