//! `zeofs gc`: objects of several databases that nothing refers to, in none of them.
//!
//! - `database`: one of them, as it is and as it becomes
//! - `delete`: takes the objects out
//! - `report`: what was found

mod database;
mod delete;
mod report;

use std::io::Write;

use getopts::{Matches, Options};

use self::database::Database;
use self::delete::Deletion;
use self::report::Report;
use super::served::names::{self, Names};
use crate::base::clock::since_1970;
use crate::base::ids::Tid;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::garbage::{Member, Search, SearchError};

pub(super) const COMMAND: Subcommand = Subcommand { name: "gc", options, help: HELP, run };

const HELP: &str = "\
[options] NAME=FILE [NAME=FILE ...]

Objects of databases that refer to each other which nothing refers to, in none
of them; and references to objects that are not there. NAME is the name of the
database in references: of <zodb_db NAME>. A pack sees one database alone: let
it keep garbage (pack-gc false), and use this. FILE may be a server,
zeo://HOST:PORT?storage=NAME, or with -C a storage of a configuration.

  -d, --days N          keep what was written in the last N days, and what that
                        refers to (default: 1)
  -C, --configure CONF  a configuration of runzeo, with storages
      --read NAME=FILE  of the server of NAME: read this file of it, and fetch
                        only the rest
  -i, --ignore NAME     pass over references to this database, which is gone
      --delete          delete the objects; the next pack removes them
      --force           delete although references from one database to another
                        lead to nothing, as they do if names are mixed up
  -n, --max N           print at most N classes and references (default: 20)
      --json            a JSON object for each such object and reference, then
                        one for each database
      --help            print this

References of all revisions that are still in a file count, so that an undo can
bring nothing back that is gone: pack before. Weak references do not count.
Exit status: 0 done; 1 a FILE cannot be read, or is damaged; 2 the command line
is wrong; 4 some references lead to nothing.
";

fn options(options: &mut Options) {
    names::options(options);
    options
        .optmulti("", "read", "", "")
        .optopt("d", "days", "", "")
        .optmulti("i", "ignore", "", "")
        .optflag("", "delete", "")
        .optflag("", "force", "");
    options.optopt("n", "max", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let max = matches.opt_str("max").map_or(Ok(20), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of lines")))
    })?;
    let since = since(matches)?;
    let deletes = matches.opt_present("delete");
    if matches.opt_present("force") && !deletes {
        return Err(Trouble::Usage("--force is for --delete".into()));
    }
    let mut databases = databases(matches)?;
    if deletes {
        // First of all: a file in use is noticed before the work, and nothing is committed to the others during it.
        databases.iter_mut().try_for_each(Database::open_to_delete)?;
    }
    let result = collect(out, &databases, since, matches, max);
    let closed = databases.iter().try_for_each(Database::close);
    let code = result?;
    closed?;
    Ok(code)
}

fn since(matches: &Matches) -> Result<Tid, Trouble> {
    let days = matches.opt_str("days").map_or(Ok(1.0), |text| {
        let days = text.parse().ok().filter(|days: &f64| days.is_finite() && *days >= 0.0);
        days.ok_or_else(|| Trouble::Usage(format!("-d: '{text}' is not a number of days")))
    })?;
    Ok(match days {
        // Not even what is committed right now.
        0.0 => Tid(u64::MAX),
        _ => Tid::from_unix((since_1970().as_secs_f64() - days * 86400.0).max(0.0)),
    })
}

fn databases(matches: &Matches) -> Result<Vec<Database>, Trouble> {
    let names = Names::of(matches)?;
    let given = pairs(&matches.free, "")?;
    let copies = pairs(&matches.opt_strs("read"), "--read ")?;
    if given.is_empty() {
        return Err(Trouble::Usage("give the databases that refer to each other, as NAME=FILE".into()));
    }
    if let Some((name, _)) = copies.iter().find(|(name, _)| !given.iter().any(|(given, _)| given == name)) {
        return Err(Trouble::Usage(format!("--read: there is no database '{name}'")));
    }
    let open = |(name, text): &(String, String)| {
        let copy = copies.iter().find(|(of, _)| of == name).map(|(_, path)| path.as_str());
        Database::open(&names, name, text, copy)
    };
    given.iter().map(open).collect()
}

/// `NAME=TEXT`, each name once.
fn pairs(texts: &[String], option: &str) -> Result<Vec<(String, String)>, Trouble> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Trouble::Usage(format!("{option}'{text}' is not NAME=FILE")));
        };
        if pairs.iter().any(|(other, _)| other == name) {
            return Err(Trouble::Usage(format!("{option}'{name}' is given twice")));
        }
        pairs.push((name.into(), value.into()));
    }
    Ok(pairs)
}

fn collect(
    out: &mut dyn Write,
    databases: &[Database],
    since: Tid,
    matches: &Matches,
    max: usize,
) -> Result<u8, Trouble> {
    let mut progress = Progress::on_terminal("gc", None, true);
    let members =
        databases.iter().map(|database| Member { name: database.name.clone(), file: &database.file.data });
    let mut search = Search::run(members.collect(), since, &matches.opt_strs("ignore"), &mut |count| {
        if let Some(progress) = &mut progress {
            progress.show_count(count, "records read");
        }
    })?;
    if let Some(progress) = &mut progress {
        progress.end();
    }
    let report = Report { databases, is_json: matches.opt_present("json"), max };
    report.found(out, &search)?;
    let dangling = search.dangling().0;
    if !matches.opt_present("delete") {
        report.nothing_deleted(out)?;
        return Ok(if dangling > 0 { FINDINGS } else { 0 });
    }
    let across = search.dangling_across();
    if across > 0 && !matches.opt_present("force") {
        return Err(Trouble::Failed(format!(
            "nothing was deleted: {across} references from one database to another lead to nothing. Is each file given \
             under the name of its database? If it is, use --force"
        )));
    }
    let mut deletion = Deletion::new(databases);
    let deleted = deletion.run(&mut search)?;
    report.deleted(out, &deleted)?;
    Ok(if dangling > 0 || !deleted.revived.is_empty() { FINDINGS } else { 0 })
}

impl From<SearchError> for Trouble {
    fn from(error: SearchError) -> Trouble {
        Trouble::Failed(error.to_string())
    }
}
