//! `zeoadmin pack`: packs a storage, or cancels its pack.

use std::io::{IsTerminal, Write};

use getopts::{Matches, Options};
use serde_json::{Value, json};

use super::call::{self, Target, one_argument, print_json};
use super::shown::{field, text};
use crate::base::numbers::grouped;
use crate::commands::pack_time::PackTime;
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "pack", options, help: HELP, run };

const HELP: &str = "\
[options] [STORAGE]

Packs a storage of the server, and waits for the end. STORAGE may be left out if
there is only one.

  -d, --days N          keep what was current N days ago and since (default: 0)
  -t, --time HH[:MM[:SS]]  at this time of the day, local
      --cancel          end the pack that is running: all stays as it was
  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

The pack goes on if this command is interrupted. zeopack packs over the network.
Exit status: 0 it is packed, or no pack is running any more; 1 it is not; 2 the
command line is wrong.
";

fn options(options: &mut Options) {
    call::options(options);
    options.optopt("d", "days", "", "").optopt("t", "time", "", "").optflag("", "cancel", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let target = Target::of(matches)?;
    let storage = one_argument(matches)?;
    let (days, time) = (matches.opt_str("days"), matches.opt_str("time"));
    if matches.opt_present("cancel") {
        if days.is_some() || time.is_some() {
            return Err(Trouble::Usage("--cancel has no time".into()));
        }
        return cancel(out, matches, &target, storage);
    }
    let time = PackTime::of(days.as_deref(), time.as_deref()).map_err(Trouble::Usage)?.seconds();
    let is_shown = std::io::stderr().is_terminal();
    let result = target.call(&json!({ "command": "pack", "storage": storage, "time": time }), |progress| {
        let part = |key| progress.get(key).and_then(Value::as_u64);
        if let (Some(done), Some(total), true) = (part("done"), part("total"), is_shown) {
            // Without a terminal to write to there is no progress to show.
            _ = write!(std::io::stderr(), "\r{} %\x1b[K", u128::from(done) * 100 / u128::from(total.max(1)));
        }
    });
    if is_shown {
        _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let result = result?;
    if !print_json(out, matches, &result)? {
        let number = |key| result.get(key).and_then(Value::as_u64).map_or_else(|| "?".into(), grouped);
        let seconds = result.get("seconds").and_then(Value::as_f64).unwrap_or_default();
        let name = text(field(&result, &["storage"]));
        let [before, after] = ["size_before", "size_after"].map(number);
        writeln!(out, "{name}: packed in {seconds:.1} s, {before} bytes before, {after} after")?;
    }
    Ok(0)
}

fn cancel(
    out: &mut dyn Write,
    matches: &Matches,
    target: &Target,
    storage: Option<&str>,
) -> Result<u8, Trouble> {
    let result = target.call(&json!({ "command": "cancel-pack", "storage": storage }), |_| ())?;
    let cancelled = result.get("cancelled").unwrap_or(&Value::Null).as_bool();
    if !print_json(out, matches, &result)? {
        let name = text(field(&result, &["storage"]));
        let outcome = match cancelled {
            Some(true) => "the pack is cancelled",
            Some(false) => "the pack was complete before it could be cancelled",
            None => "no pack is running",
        };
        writeln!(out, "{name}: {outcome}")?;
    }
    Ok(u8::from(cancelled == Some(false)))
}
