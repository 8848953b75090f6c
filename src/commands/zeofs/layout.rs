//! `zeofs layout`: how a blob directory distributes blobs, and another way.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use getopts::{Matches, Options};
use serde_json::json;

use crate::base::numbers::grouped;
use crate::commands::holder::user_of;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::storage::blob::Layout;
use crate::storage::blob::relayout::{LayoutSums, Relayout};
use crate::storage::file::lock_file::LockFile;
use crate::storage::media::RealMedia;

pub(super) const COMMAND: Subcommand = Subcommand { name: "layout", options, help: HELP, run };

const HELP: &str = "\
[options] DIR [bushy|lawn]

Shows the layout of the blob directory DIR, or changes it in place: each blob
gets a second name, then the marker changes, then the former names are removed.
If it is interrupted, run it again; until then the blobs can be used.

  -f, --file FILE   the Data.fs of these blobs: its lock is held, so
                    that no server uses the blobs
      --unused      nothing uses the blobs: there is no such file
      --json        a JSON object
      --help        print this

To change it, give one of -f and --unused. Programs that share the directory
with a server (shared-blob-dir) must be stopped, too.
Exit status: 0 done; 1 DIR cannot be read, or is in use; 2 the command line is
wrong; 4 shown, and a change was interrupted.
";

fn options(options: &mut Options) {
    options.optopt("f", "file", "", "").optflag("", "unused", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let (dir, target) = match matches.free.as_slice() {
        [dir] => (dir, None),
        [dir, target] => (dir, Some(target_layout(target)?)),
        _ => return Err(Trouble::Usage("give a blob directory, and a layout to change it".into())),
    };
    let is_json = matches.opt_present("json");
    let path = Path::new(dir);
    let mut progress = Progress::on_terminal(dir, None, true);
    let mut at = |done: u64| {
        if let Some(progress) = &mut progress {
            progress.show_count(done, "names");
        }
    };
    let Some(target) = target else {
        let sums = Relayout::open(&RealMedia, path, &mut at)?.sums()?;
        print(out, dir, &sums, is_json)?;
        return Ok(if sums.underway.is_some() { FINDINGS } else { 0 });
    };
    let _lock = match (matches.opt_str("file"), matches.opt_present("unused")) {
        (Some(file), false) => {
            if !Path::new(&file).exists() {
                return Err(Trouble::Failed(format!(
                    "{file} does not exist: give the Data.fs of these blobs"
                )));
            }
            Some(LockFile::acquire(Path::new(&file))?)
        }
        (None, true) => None,
        _ => {
            let what = "give the Data.fs of these blobs (-f), or --unused if there is none";
            return Err(Trouble::Usage(what.into()));
        }
    };
    require_free(path, dir)?;
    let mut relayout = Relayout::open(&RealMedia, path, &mut at)?;
    let before = relayout.sums()?;
    let blobs = relayout.change(target)?;
    let after = relayout.sums()?;
    if let Some(progress) = &mut progress {
        progress.end();
    }
    if is_json {
        let value = json!({
            "kind": "changed",
            "from": before.layout.name(),
            "to": after.layout.name(),
            "blobs": blobs,
        });
        writeln!(out, "{value}")?;
        return Ok(0);
    }
    match before.layout == after.layout {
        true => writeln!(out, "{dir}: the layout is {} already", target.name())?,
        false => writeln!(
            out,
            "{dir}: {} blobs have their names of the layout {} now, instead of {}",
            grouped(blobs),
            target.name(),
            before.layout.name()
        )?,
    }
    Ok(0)
}

fn target_layout(name: &str) -> Result<Layout, Trouble> {
    match Layout::from_name(name) {
        Some(layout @ (Layout::Bushy | Layout::Lawn)) => Ok(layout),
        _ => Err(Trouble::Usage(format!("'{name}' is not a layout: give bushy or lawn"))),
    }
}

/// A directory that seems to be in use is looked at again: a program that is being started has the files of its parent
/// open for a moment.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Refuses a directory that another process has open, and one of another user, who could not use what is made here.
fn require_free(path: &Path, dir: &str) -> Result<(), Trouble> {
    let mut user = user_of(path);
    for _ in 1..LOOKS {
        if user.is_none() {
            break;
        }
        thread::sleep(BETWEEN_LOOKS);
        user = user_of(path);
    }
    if let Some(process) = user {
        return Err(Trouble::Failed(format!("{dir} is in use by process {process}: stop it")));
    }
    let failed = |error: io::Error| Trouble::Failed(format!("cannot open {dir}: {error}"));
    let owner = fs::metadata(path).map_err(failed)?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(Trouble::Failed(format!(
            "{dir} belongs to the user with the id {owner}: run this as that user, who must be able to use the new \
             directories"
        )));
    }
    Ok(())
}

fn print(out: &mut dyn Write, dir: &str, sums: &LayoutSums, is_json: bool) -> io::Result<()> {
    let LayoutSums { layout, has_marker, objects, blobs, underway } = sums;
    if is_json {
        let value = json!({
            "kind": "layout",
            "layout": layout.name(),
            "marker": has_marker,
            "objects": objects,
            "blobs": blobs,
            "underway": underway.map(|underway| underway.to.name()),
        });
        return writeln!(out, "{value}");
    }
    let marker = if *has_marker { "" } else { " (without a marker)" };
    writeln!(out, "{dir}: {}{marker}", layout.name())?;
    writeln!(out, "objects with blobs: {}, blobs: {}", grouped(*objects), grouped(*blobs))?;
    if let Some(underway) = underway {
        let (from, to) = (underway.from.name(), underway.to.name());
        writeln!(out, "a change from {from} to {to} was interrupted: run it again")?;
    }
    Ok(())
}
