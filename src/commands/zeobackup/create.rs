//! `zeobackup create`

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::json;

use super::super::subcommand::{FINDINGS, Subcommand, Trouble};
use super::databases;
use super::repository::{self, Opening, Reporter, counted, state};
use crate::backup::repository::create::{CreateOptions, Created, Source, Tempo, create};
use crate::backup::repository::manifest::Stay;
use crate::base::clock::TimeSource;
use crate::base::numbers::grouped;
use crate::config::zconfig::datatypes::byte_size;
use crate::config::{Databases, NamedDatabase};
use crate::process::priority::stand_back;

pub(super) const COMMAND: Subcommand = Subcommand { name: "create", options, help: HELP, run };

const HELP: &str = "\
-r REPOSITORY (-C FILE | -f DATA_FS [-b BLOB_DIR]) [options]

Make a backup of databases and their blobs, each as it is at one transaction. A
server may run, commit and pack at the same time. What is in the repository
already is not copied again. The repository is made if it is missing.

  -r, --repository DIR    where backups are
  -C, --configure FILE    all <filestorage>s of the configuration of the server
  -f, --filename DATA_FS  one file
  -b, --blob-dir DIR      its blobs; without it they are left out
  -S, --storage NAME      with -C: this storage alone; with -f: its name in the
                          repository (default: 1, as for runzeo -f)
      --gentle            take a third of the time of one core, in short pieces,
                          so that a server on this machine is hardly slower
      --max-rate SIZE     read no more in a second, for example 20MB
      --reread            read the files from the start, as after a pack, and
                          store again what is missing in the repository
      --until-next        remove the backup when there is a later one: to make
                          one every minute, and keep one of each day
      --json              a JSON object for each database
  -q, --quiet             print nothing unless something is wrong
      --help              print this

Exit status: 0 done; 1 not done; 2 the command line is wrong; 4 done, but a file
is damaged or a blob is missing: it was copied as it is.
";

fn options(options: &mut Options) {
    repository::options(options);
    databases::options(options);
    options
        .optflag("", "gentle", "")
        .optopt("", "max-rate", "", "")
        .optflag("", "reread", "")
        .optflag("", "until-next", "")
        .optflag("", "json", "");
    options.optflag("q", "quiet", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    if let Some(free) = matches.free.first() {
        return Err(Trouble::Usage(format!("'{free}' is not an option")));
    }
    let tempo = tempo(matches)?;
    let Databases { databases, left_out } = databases::of(matches)?;
    let source = |NamedDatabase { name, path, blob_dir }| Source { name, path, blob_dir };
    let options = CreateOptions {
        sources: databases.into_iter().map(source).collect(),
        reread: matches.opt_present("reread"),
        tempo,
        stay: if matches.opt_present("until-next") { Stay::UntilNext } else { Stay::Kept },
        ..CreateOptions::default()
    };
    let opened = repository::open(matches, Opening::Create)?;
    let is_quiet = matches.opt_present("quiet");
    if !is_quiet {
        left_out.iter().for_each(|what| eprintln!("{what}"));
    }
    // A server may be at work.
    stand_back();
    let reporter = Reporter::new("backup", None);
    let created = create(&opened.repository, &options, &TimeSource::SYSTEM, &reporter);
    reporter.end();
    let created = created?;
    if !is_quiet {
        report(out, matches.opt_present("json"), &created)?;
    }
    Ok(findings(&created))
}

fn tempo(matches: &Matches) -> Result<Tempo, Trouble> {
    match (matches.opt_str("max-rate"), matches.opt_present("gentle")) {
        (Some(_), true) => Err(Trouble::Usage("--gentle and --max-rate: give one of them".into())),
        (None, true) => Ok(Tempo::Gentle),
        (None, false) => Ok(Tempo::Full),
        (Some(text), false) => match byte_size(&text).map(u64::try_from) {
            Ok(Ok(rate)) if rate > 0 => Ok(Tempo::Rate(rate)),
            _ => Err(Trouble::Usage(format!("--max-rate: '{text}' is not a size such as 20MB"))),
        },
    }
}

fn report(out: &mut dyn Write, is_json: bool, created: &Created) -> Result<(), Trouble> {
    let Created { stamp, is_new, databases, added, .. } = created;
    if is_json {
        for database in databases {
            let value = json!({
                "backup": stamp.as_str(),
                "new": is_new,
                "database": database.name,
                "last_tid": database.last_tid.to_string(),
                "bytes": database.len,
                "added": added,
                "damaged": database.damaged(),
                "missing_blobs": database.missing_blobs(),
            });
            writeln!(out, "{value}")?;
        }
        return Ok(());
    }
    match is_new {
        true => writeln!(out, "{stamp}: {} bytes were added to the repository", grouped(*added))?,
        false => writeln!(out, "nothing has changed since {stamp}")?,
    }
    for database in databases {
        let count = database.segments.iter().map(|segment| segment.blobs.count).sum();
        let len: u64 = database.segments.iter().map(|segment| segment.blobs.len).sum();
        let blobs = match database.has_blobs {
            true => format!("{} of {} bytes", counted(count, "blob"), grouped(len)),
            false if count == 0 => "no blobs".into(),
            false => format!("without its {}: no blob directory was given", counted(count, "blob")),
        };
        let (name, last) = (&database.name, state(database.last_tid));
        writeln!(out, "database {name}: {} bytes up to {last}, {blobs}", grouped(database.len))?;
    }
    Ok(())
}

/// Says what is wrong with the databases. Returns the exit status.
fn findings(created: &Created) -> u8 {
    created.damage.iter().for_each(|what| eprintln!("Damaged: {what}"));
    let mut status = 0;
    for database in &created.databases {
        let (damaged, missing) = (database.damaged(), database.missing_blobs());
        if damaged > 0 {
            let places = counted(damaged, "damaged place");
            eprintln!(
                "Database {} has {places}, which were copied as they are: see 'zeofs test {}'",
                database.name, database.path
            );
        }
        if missing > 0 {
            let blobs = counted(missing, "blob");
            eprintln!(
                "Database {}: {blobs} had no file: see 'zeofs test -b BLOB_DIR {}'",
                database.name, database.path
            );
        }
        if damaged + missing > 0 {
            status = FINDINGS;
        }
    }
    status
}
