//! `zeoadmin save-index`.

use std::io::Write;

use getopts::Matches;
use serde_json::{Value, json};

use super::call::{self, Target, one_argument, print_json};
use super::shown::{field, text};
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand =
    Subcommand { name: "save-index", options: call::options, help: HELP, run };

const HELP: &str = "\
[options] [STORAGE]

Saves the index of a storage, or of all, beside its file: a server that starts
after a crash reads only what was committed since. The server does it by itself
when it stops and from time to time.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 done; 1 an index is not saved; 2 the command line is wrong.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let storage = one_argument(matches)?;
    let request = json!({ "command": "save-index", "storage": storage });
    let result = Target::of(matches)?.call(&request, |_| ())?;
    let each = result.as_array().map(Vec::as_slice).unwrap_or_default();
    if !print_json(out, matches, &result)? {
        for one in each {
            let name = text(field(one, &["storage"]));
            let is_saved = one.get("saved").and_then(Value::as_bool).unwrap_or(false);
            match one.get("error").filter(|error| !error.is_null()) {
                Some(error) => writeln!(out, "{name}: {}", text(error))?,
                None if is_saved => writeln!(out, "{name}: the index is saved")?,
                None => writeln!(out, "{name}: this storage keeps no index")?,
            }
        }
    }
    Ok(u8::from(each.iter().any(|one| one.get("error").is_some_and(|error| !error.is_null()))))
}
