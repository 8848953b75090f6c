//! `zeobackup send`, `zeobackup receive`

use std::io::{self, BufReader, BufWriter, Write};

use getopts::{Matches, Options};

use super::super::subcommand::{Subcommand, Trouble};
use super::repository::{self, Opening, counted, stamp_argument};
use crate::backup::repository::error::BackupError;
use crate::backup::repository::manifest::Stamp;
use crate::backup::repository::stream::{LEFT_OUT_STATUS, Streamed, receive, send};
use crate::base::numbers::grouped;

pub(super) const SEND: Subcommand =
    Subcommand { name: "send", options: send_options, help: SEND_HELP, run: run_send };

pub(super) const RECEIVE: Subcommand =
    Subcommand { name: "receive", options: receive_options, help: RECEIVE_HELP, run: run_receive };

const SEND_HELP: &str = "\
-r REPOSITORY [options] [BACKUP...] | ssh HOST zeobackup receive -r REPOSITORY

Write backups to the standard output, for a repository on another machine: the
newest one, or those that are named.

  -r, --repository DIR    where backups are
      --since BACKUP      leave out what this backup needs: the receiver has it
      --help              print this

Exit status: 0 done; 1 not done; 2 the command line is wrong.
";

const RECEIVE_HELP: &str = "\
-r REPOSITORY

Store what 'zeobackup send' writes, from the standard input. What is there
already is passed over; every checksum is checked, and a backup gets its name
when all of it is durable. The repository is made if it is missing.

  -r, --repository DIR    where backups are
      --existing          make no repository: a share that is not mounted is an
                          error
      --help              print this

Exit status: 0 done; 1 not done, but what has arrived need not be stored again;
2 the command line is wrong; 3 the stream leaves out what is not there: send
without --since.
";

fn send_options(options: &mut Options) {
    repository::options(options);
    options.optopt("", "since", "", "");
}

fn receive_options(options: &mut Options) {
    repository::options(options);
    options.optflag("", "existing", "");
}

fn run_send(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let named = matches.free.iter().map(|text| stamp_argument(text)).collect::<Result<Vec<_>, _>>()?;
    let since = matches.opt_str("since").map(|text| stamp_argument(&text)).transpose()?;
    let opened = repository::open(matches, Opening::Read)?;
    let all = opened.repository.backups()?;
    // As they are in the repository: they know how long they stay.
    let find = |stamp: Stamp| match all.iter().find(|found| **found == stamp) {
        Some(found) => Ok(found.clone()),
        None => Err(Trouble::Failed(format!("there is no backup {stamp}"))),
    };
    let since = since.map(find).transpose()?;
    let mut stamps = named.into_iter().map(find).collect::<Result<Vec<_>, _>>()?;
    if stamps.is_empty() {
        stamps.extend(all.last().cloned());
    }
    send(&opened.repository, &stamps, since.as_ref(), &mut BufWriter::with_capacity(1 << 20, out))?;
    Ok(0)
}

fn run_receive(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let opening = if matches.opt_present("existing") { Opening::Change } else { Opening::Create };
    let opened = repository::open(matches, opening)?;
    let mut from = BufReader::with_capacity(1 << 20, io::stdin().lock());
    let Streamed { backups, objects, len } = match receive(&opened.repository, &mut from) {
        Err(error @ BackupError::LeftOut(_)) => {
            eprintln!("Error: {error}");
            return Ok(LEFT_OUT_STATUS);
        }
        received => received?,
    };
    let objects = counted(objects, "object");
    writeln!(
        out,
        "received {} and {objects} of {} bytes",
        counted(backups.len() as u64, "backup"),
        grouped(len)
    )?;
    Ok(0)
}
