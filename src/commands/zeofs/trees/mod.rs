//! `zeofs trees`: whether the BTrees of a database are whole, without the application.
//!
//! The newest records are read as data, by the reader of BTrees that clients have ([`crate::client::records`]). `roots`
//! finds the trees. Buckets and sets outside of trees are checked last: those are all that no tree has.

mod roots;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::sync::Arc;

use getopts::{Matches, Options};
use serde_json::json;

use super::refs::why;
use super::selection::{OpenedFile, oid_argument};
use super::served::names;
use super::text::{file_line, oid_repr};
use crate::base::ids::{Oid, Tid};
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::client::records::{
    ObjectSource, Objects, ObjectsError, RecordError, TreeCheck, TreeFlaw, TreeSums,
};
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::data_file::DataFile;
use crate::inspect::objects::Newest;
use crate::inspect::record::{class_of, plain};
use crate::storage::{Result, StorageError};
use roots::{Roots, each_current, form_of};

pub(super) const COMMAND: Subcommand = Subcommand { name: "trees", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

Checks the BTrees, TreeSets, buckets and sets of all families, without the code
of the application: keys ascend and are between those of the node above; each
bucket refers to the next one, each node to its first bucket; no node is missing
or in two places; keys and values are of the types of the family.

  -o, --oid OID     only this tree or bucket; may be repeated
  -n, --max N       print at most N findings, and their number (default: 100)
  -C, --configure CONF  FILE is a storage of this configuration
      --json        a JSON object for each finding, then one with the sums
      --help        print this

Keys that only their class can compare are counted. Classes that derive from
those of the package are not looked at. FILE may be a server,
zeo://HOST:PORT?storage=NAME, or with -C the name of a <zeoclient>.
Exit status: 0 nothing is wrong; 1 FILE cannot be read; 2 the command line is
wrong; 4 something is wrong with a tree.
";

/// Pairs of types that are named of keys that cannot be compared.
const TYPES_MAX: usize = 5;

fn options(options: &mut Options) {
    names::options(options);
    options.optmulti("o", "oid", "", "").optopt("n", "max", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> std::result::Result<u8, Trouble> {
    let max = matches.opt_str("max").map_or(Ok(100), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of findings")))
    })?;
    let oids: Vec<Oid> = matches
        .opt_strs("oid")
        .iter()
        .map(|text| oid_argument(text))
        .collect::<std::result::Result<_, _>>()?;
    let file = OpenedFile::fetched(names::source(matches)?, Tid(u64::MAX))?;
    report(out, file, &oids, max, matches.opt_present("json"))
}

/// Checks and prints. `oids`: if there are any, only these.
pub(super) fn report(
    out: &mut dyn Write,
    file: OpenedFile,
    oids: &[Oid],
    max: u64,
    is_json: bool,
) -> std::result::Result<u8, Trouble> {
    if !is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    let end = file.data.end();
    // The file is read four times.
    let mut progress = Progress::on_terminal(&file.name, Some(end * 4), true);
    let mut at = |pass: u64, pos: u64| {
        if let Some(progress) = &mut progress {
            progress.show(pass * end + pos);
        }
    };
    let data = Arc::new(file.data);
    let newest = Arc::new(Newest::read(&data, &mut |pos| at(0, pos))?);
    let roots = Roots::find(&data, &newest, &mut |pass, pos| at(pass + 1, pos))?;
    let source = FileObjects { file: Arc::clone(&data), newest: Arc::clone(&newest) };
    let mut run = TreeRun { out, is_json, max, newest: &newest, file: &data, found: TreeReport::default() };
    let objects = Objects::new(source);
    let mut seen = HashMap::new();
    if oids.is_empty() {
        for oid in roots.roots() {
            run.tree(&objects, &mut seen, oid, roots.may_be_part(oid))?;
        }
        // Nodes of each other, and those below a node that cannot be one of its tree.
        for oid in roots.parts() {
            if !seen.contains_key(&oid) {
                run.tree(&objects, &mut seen, oid, true)?;
            }
        }
        let mut alone = Vec::new();
        each_current(&data, &newest, &mut |record, data, pos| {
            let oid = record.header.oid;
            if form_of(data).is_some_and(|form| !form.is_tree()) && !seen.contains_key(&oid) {
                alone.push(oid);
            }
            at(3, pos);
            Ok(())
        })?;
        for oid in alone {
            run.alone(&objects, oid)?;
        }
    }
    for &oid in oids {
        run.tree(&objects, &mut HashMap::new(), oid, roots.may_be_part(oid))?;
    }
    if let Some(progress) = &mut progress {
        progress.end();
    }
    run.end()
}

/// The newest records of a file.
struct FileObjects {
    file: Arc<DataFile>,
    newest: Arc<Newest>,
}

impl ObjectSource for FileObjects {
    fn load(&self, oid: Oid) -> Result<Option<(Vec<u8>, Tid)>> {
        let mut data = Vec::new();
        let Some(tid) = self.newest.load(&self.file, oid, &mut data)? else { return Ok(None) };
        match plain(&data) {
            Ok(data) => Ok(Some((data.into_owned(), tid))),
            Err(what) => Err(self.file.log().corrupt(self.newest.pos(oid), what)),
        }
    }

    fn new_oid(&self) -> Result<Oid> {
        Err(StorageError::Unsupported("the file is only read".into()))
    }
}

/// What was found so far.
#[derive(Default)]
struct TreeReport {
    trees: u64,
    alone: u64,
    sums: TreeSums,
    findings: u64,
    /// Nodes whose keys cannot be compared.
    unsure: u64,
    /// Of them by the reason.
    types: BTreeMap<String, u64>,
}

struct TreeRun<'a> {
    out: &'a mut dyn Write,
    is_json: bool,
    max: u64,
    newest: &'a Newest,
    file: &'a DataFile,
    found: TreeReport,
}

impl From<ObjectsError> for Trouble {
    fn from(error: ObjectsError) -> Trouble {
        Trouble::Failed(error.to_string())
    }
}

impl TreeRun<'_> {
    fn tree(
        &mut self,
        objects: &Objects,
        seen: &mut HashMap<Oid, Oid>,
        oid: Oid,
        may_be_part: bool,
    ) -> std::result::Result<(), Trouble> {
        let mut found = |flaw: TreeFlaw<'_>| self.flaw(&flaw);
        let check = TreeCheck::new(objects, seen, &mut found);
        let sums = if may_be_part { check.of_part() } else { check }.check(oid)?;
        self.found.trees += 1;
        self.add(sums);
        Ok(())
    }

    fn alone(&mut self, objects: &Objects, oid: Oid) -> std::result::Result<(), Trouble> {
        let mut seen = HashMap::new();
        let sums = TreeCheck::new(objects, &mut seen, &mut |flaw| self.flaw(&flaw)).check(oid)?;
        self.found.alone += 1;
        self.add(sums);
        Ok(())
    }

    fn add(&mut self, sums: TreeSums) {
        self.found.sums.records += sums.records;
        self.found.sums.keys += sums.keys;
    }

    fn flaw(&mut self, flaw: &TreeFlaw<'_>) -> std::result::Result<(), Trouble> {
        if let ObjectsError::Record { error: RecordError::Incomparable { what }, .. } = &flaw.error {
            self.found.unsure += 1;
            if self.found.types.contains_key(what) || self.found.types.len() < TYPES_MAX {
                *self.found.types.entry(what.clone()).or_default() += 1;
            }
            return Ok(());
        }
        self.found.findings += 1;
        if self.found.findings <= self.max {
            self.print(flaw)?;
        }
        Ok(())
    }

    fn print(&mut self, flaw: &TreeFlaw<'_>) -> std::result::Result<(), Trouble> {
        let (Some(&tree), Some(&oid)) = (flaw.path.first(), flaw.path.last()) else { return Ok(()) };
        let what = match &flaw.error {
            ObjectsError::NotInView(oid) => {
                self.newest.not_there(*oid).map_or("cannot be loaded", why).to_string()
            }
            ObjectsError::Record { error: RecordError::Damaged(what), .. } => what.clone(),
            ObjectsError::Record { error, .. } => error.to_string(),
            error @ ObjectsError::Storage(_) => error.to_string(),
        };
        let (class, tree_class) = (self.class(oid), self.class(tree));
        if self.is_json {
            let path: Vec<_> = flaw.path.iter().map(ToString::to_string).collect();
            let value = json!({
                "kind": "finding",
                "oid": oid.to_string(),
                "class": class,
                "tree": tree.to_string(),
                "tree_class": tree_class,
                "path": path,
                "what": what,
            });
            writeln!(self.out, "{value}")?;
            return Ok(());
        }
        let named = |oid, class: Option<String>| match class {
            Some(class) => format!("{} {}", oid_repr(oid), one_line(200, format_args!("{class}"))),
            None => oid_repr(oid),
        };
        let what = one_line(1000, format_args!("{what}"));
        write!(self.out, "{}", named(tree, tree_class))?;
        if flaw.path.len() > 1 {
            let path: Vec<String> = flaw.path.iter().map(|oid| oid_repr(*oid)).collect();
            write!(self.out, ": node {}\n    path {}", named(oid, class), path.join(" > "))?;
            writeln!(self.out, "\n    {what}")?;
        } else {
            writeln!(self.out, "\n    {what}")?;
        }
        Ok(())
    }

    fn class(&self, oid: Oid) -> Option<String> {
        let mut data = Vec::new();
        // An object that cannot be loaded has no class; that is what is reported of it.
        let found = self.newest.load(self.file, oid, &mut data).ok()?;
        found.map(|_| class_of(&data))
    }

    fn end(self) -> std::result::Result<u8, Trouble> {
        let TreeRun { out, is_json, max, found, .. } = self;
        if is_json {
            let sums = json!({
                "kind": "sums",
                "trees": found.trees,
                "alone": found.alone,
                "records": found.sums.records,
                "keys": found.sums.keys,
                "unsure": found.unsure,
                "findings": found.findings,
            });
            writeln!(out, "{sums}")?;
        } else {
            found.print(out, max)?;
        }
        Ok(if found.findings > 0 { FINDINGS } else { 0 })
    }
}

impl TreeReport {
    fn print(&self, out: &mut dyn Write, max: u64) -> io::Result<()> {
        if self.findings > max {
            writeln!(out, "... and {} more", grouped(self.findings - max))?;
        }
        let [trees, alone, records, keys] =
            [self.trees, self.alone, self.sums.records, self.sums.keys].map(grouped);
        writeln!(
            out,
            "trees: {trees}, buckets and sets outside of trees: {alone}, records: {records}, keys: {keys}"
        )?;
        if self.unsure > 0 {
            writeln!(out, "records whose keys only the application can compare: {}", grouped(self.unsure))?;
            for (what, count) in &self.types {
                writeln!(out, "    {}  {}", grouped(*count), one_line(200, format_args!("{what}")))?;
            }
        }
        match self.findings {
            0 => writeln!(out, "nothing is wrong"),
            count => writeln!(out, "findings: {}", grouped(count)),
        }
    }
}
