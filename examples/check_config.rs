//! The command line of the server with nothing behind it: says what would be served, or what is wrong.

use std::process::ExitCode;

use runzeo::config::{Invocation, from_command_line};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    match from_command_line(&program, &arguments, &|name| std::env::var(name).ok()) {
        Ok(Invocation::Serve(config) | Invocation::Check(config)) => print!("{}", config.describe()),
        Ok(Invocation::Print(text)) => print!("{text}"),
        Err(error) => {
            eprint!("{error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
