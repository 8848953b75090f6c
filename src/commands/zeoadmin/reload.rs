//! `zeoadmin reload`: the server reads its configuration again, and applies it.

use std::io::{self, Write};

use getopts::{Matches, Options};
use serde_json::{Value, json};

use super::call::{self, Target, no_argument, print_json};
use super::shown::{field, list, text};
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "reload", options, help: HELP, run };

/// The exit code if something waits for a restart.
const WAITING: u8 = 3;

const HELP: &str = "\
[options]

Has the server read its configuration again, with the command line and the
environment of its start, and apply what has changed. It says what it has
applied, key by key, and what waits for a restart. Nothing is changed if the
configuration cannot be used.

      --dry-run         say what a reload would do, and change nothing
      --partly          exit with 0 although something waits for a restart
  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 all is applied; 1 the server cannot be reached, or has refused; 2
the command line is wrong; 3 something waits for a restart; 4 the configuration
cannot be used, and the server goes on as before.
";

fn options(options: &mut Options) {
    call::options(options);
    options.optflag("", "dry-run", "").optflag("", "partly", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    no_argument(matches)?;
    let is_dry_run = matches.opt_present("dry-run");
    let request = json!({ "command": "reload", "dry_run": is_dry_run });
    let result = Target::of(matches)?.call(&request, |_| ())?;
    let error = field(&result, &["error"]);
    if !print_json(out, matches, &result)? {
        match error {
            Value::Null => print(out, &result, is_dry_run)?,
            error => writeln!(out, "nothing is changed: {}", text(error))?,
        }
    }
    let is_waiting = list(&result, &["changes"]).iter().any(|change| field(change, &["effect"]) == "restart");
    Ok(match (error, is_waiting && !matches.opt_present("partly")) {
        (Value::Null, false) => 0,
        (Value::Null, true) => WAITING,
        _ => FINDINGS,
    })
}

fn print(out: &mut dyn Write, result: &Value, is_dry_run: bool) -> io::Result<()> {
    let changes = list(result, &["changes"]);
    if changes.is_empty() {
        writeln!(out, "the configuration is the one that is in use")?;
    }
    let applied = if is_dry_run { "a reload would apply" } else { "applied" };
    for (effect, title) in
        [("applied", applied), ("restart", "waits for a restart"), ("none", "has no effect")]
    {
        let of_kind: Vec<&Value> =
            changes.iter().filter(|change| field(change, &["effect"]) == effect).collect();
        if !of_kind.is_empty() {
            writeln!(out, "{title}:")?;
        }
        for change in of_kind {
            let note = match text(field(change, &["note"])) {
                note if note.is_empty() => note,
                note => format!(" ({note})"),
            };
            writeln!(out, "  {}{note}", text(field(change, &["text"])))?;
        }
    }
    for note in list(result, &["notes"]) {
        writeln!(out, "{}", text(note))?;
    }
    for warning in list(result, &["warnings"]) {
        writeln!(out, "WARNING {}", text(warning))?;
    }
    Ok(())
}
