//! `zeoadmin conflicts`: what clients have changed at the same time.

use std::collections::BTreeMap;
use std::io::Write;

use getopts::Matches;

use super::call::{self, Target, one_argument};
use super::shown::{Columns, field, list, text, time};
use super::status::{print_lists, report, storages_of};
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand =
    Subcommand { name: "conflicts", options: call::options, help: HELP, run };

const HELP: &str = "\
[options] [STORAGE]

The last conflicts that were refused, a hundred of each storage, the newest
first: when, the object and its class, whose transaction it was, and the serial
that it had read. Before them, how many of them each class has.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            an object for each storage, in a list
      --help            print this

zeofs oid -o OID shows the object. Conflicts that were merged are not among them.
Exit status: 0 done; 1 the server cannot be reached; 2 the command line is
wrong.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let storage = one_argument(matches)?;
    let report = report(&Target::of(matches)?)?;
    let storages = storages_of(&report, storage)?;
    if matches.opt_present("json") {
        return print_lists(out, &storages, "conflicts");
    }
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut table =
        Columns::new(&["TIME", "STORAGE", "OBJECT", "CLASS", ">CLIENT", "LABEL", "READ", "CURRENT"]);
    for one in storages {
        let name = text(field(one, &["name"]));
        for conflict in list(one, &["conflicts"]) {
            let of = |key: &str| text(field(conflict, &[key]));
            *counts.entry((name.clone(), of("class"))).or_default() += 1;
            table.row([
                time(field(conflict, &["time"])),
                name.clone(),
                of("oid"),
                of("class"),
                of("client"),
                of("label"),
                of("read"),
                of("committed"),
            ]);
        }
    }
    if !counts.is_empty() {
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|(one, more), (other, less)| less.cmp(more).then_with(|| one.cmp(other)));
        let mut sums = Columns::new(&[">CONFLICTS", "STORAGE", "CLASS"]);
        for ((storage, class), count) in counts {
            sums.row([count.to_string(), storage, class]);
        }
        sums.print(out, usize::MAX)?;
        writeln!(out)?;
    }
    table.print_or(out, "no conflicts were refused")?;
    Ok(0)
}
