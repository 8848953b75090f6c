//! `zeoadmin check`: what a restart would make of the configuration.

use std::io::Write;

use getopts::Matches;
use serde_json::{Value, json};

use super::call::{self, Target, no_argument, print_json};
use super::shown::{field, list, text};
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "check", options: call::options, help: HELP, run };

const HELP: &str = "\
[options]

Has the server read its configuration again, with the command line and the
environment of its start, and says whether a restart would succeed with it, and
what it would change: lines of runzeo --check that go (-) and come (+). Nothing
is changed.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 the configuration can be used; 1 the server cannot be reached; 2
the command line is wrong; 4 the configuration cannot be used: a restart would
fail.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    no_argument(matches)?;
    let result = Target::of(matches)?.call(&json!({ "command": "check" }), |_| ())?;
    let error = field(&result, &["error"]);
    if !print_json(out, matches, &result)? {
        let [removed, added] = ["removed", "added"].map(|key| list(&result, &[key]));
        match error {
            Value::Null if removed.is_empty() && added.is_empty() => {
                writeln!(out, "the configuration is the one that the server runs with")?;
            }
            Value::Null => writeln!(out, "a restart changes")?,
            error => writeln!(out, "a restart would fail: {}", text(error))?,
        }
        for (sign, lines) in [("-", removed), ("+", added)] {
            for line in lines {
                writeln!(out, "{sign} {}", text(line))?;
            }
        }
    }
    Ok(if error.is_null() { 0 } else { FINDINGS })
}
