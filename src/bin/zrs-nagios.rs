//! A plug-in for Nagios, Icinga and others: see `zrs-nagios --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "zrs-nagios".to_string());
    runzeo::commands::zrs_nagios::run(&program, &arguments.collect::<Vec<_>>())
}
