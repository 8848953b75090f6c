//! `zeoadmin log-level`: what the log has.

use std::io::Write;

use getopts::Matches;
use serde_json::json;

use super::call::{self, Target, one_argument, print_json};
use super::shown::{field, text};
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand =
    Subcommand { name: "log-level", options: call::options, help: HELP, run };

const HELP: &str = "\
[options] [LEVEL]

Sets the level of the log until the server stops: debug, blather, info, warning,
error, critical, or another level of <eventlog>; default is the one of the
configuration. Without LEVEL, prints it. A handler with a higher level of its
own goes on leaving out what is below that.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 done; 1 the level is as it was; 2 the command line is wrong.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let level = one_argument(matches)?.map(str::to_lowercase);
    let request = json!({ "command": "log-level", "level": level });
    let result = Target::of(matches)?.call(&request, |_| ())?;
    if !print_json(out, matches, &result)? {
        let [level, configured] = ["level", "configured"].map(|key| text(field(&result, &[key])));
        match level == configured {
            true => writeln!(out, "{level}")?,
            false => writeln!(out, "{level} (configured: {configured})")?,
        }
    }
    Ok(0)
}
