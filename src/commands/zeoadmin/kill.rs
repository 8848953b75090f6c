//! `zeoadmin kill`: ends the connection of a client.

use std::io::Write;

use getopts::Matches;
use serde_json::{Value, json};

use super::call::{self, Target, one_argument, print_json};
use super::shown::{field, text};
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "kill", options: call::options, help: HELP, run };

const HELP: &str = "\
[options] CLIENT

Ends the connection of a client: CLIENT is its number, the first column of
zeoadmin clients. Its transaction is aborted, unless the disk has it already,
and others get its locks. The client may connect again at once, and does so by
itself if it is a ZEO client.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 the connection has ended; 1 it has not; 2 the command line is
wrong.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let number = one_argument(matches)?.ok_or_else(|| Trouble::Usage("no client is given".into()))?;
    let number: u64 =
        number.parse().map_err(|_| Trouble::Usage(format!("'{number}' is not the number of a client")))?;
    let result = Target::of(matches)?.call(&json!({ "command": "kill", "client": number }), |_| ())?;
    let is_ended = result.get("ended").and_then(Value::as_bool).unwrap_or(false);
    if !print_json(out, matches, &result)? {
        let label = text(field(&result, &["label"]));
        match is_ended {
            true => writeln!(out, "client {number} ({label}) is disconnected")?,
            false => writeln!(
                out,
                "client {number} ({label}) is cut off; what it has begun takes longer than five seconds to end"
            )?,
        }
    }
    Ok(u8::from(!is_ended))
}
