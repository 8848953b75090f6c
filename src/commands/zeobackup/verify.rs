//! `zeobackup verify`

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::json;

use super::super::subcommand::{FINDINGS, Subcommand, Trouble};
use super::repository::{self, Opening, Reporter, counted, stamp_argument};
use crate::backup::repository::verify::verify;
use crate::base::numbers::grouped;

pub(super) const COMMAND: Subcommand = Subcommand { name: "verify", options, help: HELP, run };

const HELP: &str = "\
-r REPOSITORY [options] [BACKUP...]

Read backups as a restore would, and compare everything with its checksum. What
several backups have in common is read once.

  -r, --repository DIR    where backups are
      --newest            the newest backup; default: all, or those named
      --json              JSON objects: each finding, and a summary at the end
      --help              print this

Exit status: 0 all is whole; 1 a file cannot be read; 2 the command line is
wrong; 4 something is damaged, and is named.
";

fn options(options: &mut Options) {
    repository::options(options);
    options.optflag("", "newest", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let named = matches.free.iter().map(|text| stamp_argument(text)).collect::<Result<Vec<_>, _>>()?;
    let opened = repository::open(matches, Opening::Read)?;
    let all = opened.repository.backups()?;
    if let Some(unknown) = named.iter().find(|stamp| !all.contains(stamp)) {
        return Err(Trouble::Failed(format!("there is no backup {unknown}")));
    }
    let stamps = match (matches.opt_present("newest"), named.is_empty()) {
        (true, false) => return Err(Trouble::Usage("give either --newest or backups".into())),
        (true, true) => all.last().cloned().into_iter().collect(),
        (false, true) => all,
        (false, false) => named,
    };
    let reporter = Reporter::new("verify", None);
    let verified = verify(&opened.repository, &stamps, &reporter);
    reporter.end();
    let verified = verified?;
    let status = if verified.findings.is_empty() { 0 } else { FINDINGS };
    if matches.opt_present("json") {
        for (stamp, what) in &verified.findings {
            writeln!(out, "{}", json!({ "backup": stamp.as_str(), "damaged": what }))?;
        }
        let (backups, findings) = (verified.backups, verified.findings.len());
        let (objects, bytes) = (verified.objects, verified.len);
        let summary = json!({ "backups": backups, "objects": objects, "bytes": bytes, "findings": findings });
        writeln!(out, "{summary}")?;
        return Ok(status);
    }
    for (stamp, what) in &verified.findings {
        writeln!(out, "{stamp}: {what}")?;
    }
    let backups = counted(verified.backups, "backup");
    writeln!(
        out,
        "{backups}: {} of {} bytes were read",
        counted(verified.objects, "object"),
        grouped(verified.len)
    )?;
    match verified.findings.len() {
        0 => writeln!(out, "nothing is damaged")?,
        count => writeln!(out, "findings: {count}")?,
    }
    Ok(status)
}
