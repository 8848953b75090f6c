//! `zeoadmin promote`, `demote` and `follow`: another role for this server of a cluster.

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::{Value, json};

use super::call::{self, Target, no_argument, one_argument, print_json};
use super::shown::{field, text};
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const PROMOTE: Subcommand =
    Subcommand { name: "promote", options: promote_options, help: PROMOTE_HELP, run: promote };
pub(super) const DEMOTE: Subcommand =
    Subcommand { name: "demote", options: call::options, help: DEMOTE_HELP, run: demote };
pub(super) const FOLLOW: Subcommand =
    Subcommand { name: "follow", options: call::options, help: FOLLOW_HELP, run: follow };

const PROMOTE_HELP: &str = "\
[options]

Makes a replica the primary of its cluster: clients can write then, and the
other servers follow it. It publishes what it has received before. While the
primary is connected it refuses: demote that first. Transactions that only the
lost primary has are not in the cluster any more.

  -w, --wait SECONDS    how long it waits for a connected primary to be demoted,
                        or to go (default: 30)
  -f, --force           also if the primary is connected, or this replica has not
                        met its cluster yet
  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 it is the primary now; 1 it is not, and stderr says why; 2 the
command line is wrong.
";

const DEMOTE_HELP: &str = "\
[options]

Makes the primary a replica: it accepts no writes any more, and follows the one
of its peers that is promoted. Until then the cluster has no primary.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 it is a replica now; 1 it is not, and stderr says why; 2 the
command line is wrong.
";

const FOLLOW_HELP: &str = "\
[options] ADDRESS

Makes the server a replica of the one at ADDRESS, HOST:PORT or the path of a
Unix socket, whatever it has been. Transactions that the other one lacks are
taken back, and kept in a database beside the file.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 done; 1 not done, and stderr says why; 2 the command line is
wrong.
";

fn promote_options(options: &mut Options) {
    call::options(options);
    options.optopt("w", "wait", "", "").optflag("f", "force", "");
}

fn promote(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    no_argument(matches)?;
    let seconds = |text: String| match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86400.0).contains(&seconds) => Ok(seconds),
        _ => Err(Trouble::Usage(format!("'{text}' is no number of seconds between 0 and 86400"))),
    };
    let wait = matches.opt_str("wait").map(seconds).transpose()?;
    ask(out, matches, &json!({ "command": "promote", "wait": wait, "force": matches.opt_present("force") }))
}

fn demote(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    no_argument(matches)?;
    ask(out, matches, &json!({ "command": "demote" }))
}

fn follow(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let address = one_argument(matches)?;
    let address = address.ok_or_else(|| Trouble::Usage("no address is given: HOST:PORT".into()))?;
    ask(out, matches, &json!({ "command": "follow", "address": address }))
}

/// Prints what was done.
fn ask(out: &mut dyn Write, matches: &Matches, request: &Value) -> Result<u8, Trouble> {
    let result = Target::of(matches)?.call(request, |_| ())?;
    if !print_json(out, matches, &result)? {
        writeln!(out, "{}", text(field(&result, &["done"])))?;
    }
    Ok(0)
}
