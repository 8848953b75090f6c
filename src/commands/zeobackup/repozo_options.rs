//! The command line of repozo: the options of Python's, which abbreviate and combine as Python's getopt has it.

use std::ffi::OsString;
use std::path::PathBuf;

use getopts::{HasArg, Occur, Options, ParsingStyle};

use crate::backup::repozo::backup::BackupOptions;
use crate::backup::repozo::restore::RestoreOptions;
use crate::config::options::explain;

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RepozoMode {
    Backup(BackupOptions),
    Recover(RestoreOptions),
    Verify { quick: bool },
}

/// The command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RepozoOptions {
    pub mode: RepozoMode,
    pub repository: PathBuf,
    pub verbose: bool,
    /// Long names of options that the mode ignores, in the order of the table.
    pub ignored: Vec<&'static str>,
}

/// Short name, long name, and whether a value follows.
const TABLE: [(&str, &str, bool); 14] = [
    ("B", "backup", false),
    ("R", "recover", false),
    ("V", "verify", false),
    ("v", "verbose", false),
    ("h", "help", false),
    ("r", "repository", true),
    ("f", "file", true),
    ("F", "full", false),
    ("Q", "quick", false),
    ("z", "gzip", false),
    ("k", "kill-old-on-full", false),
    ("D", "date", true),
    ("o", "output", true),
    ("w", "with-verify", false),
];

/// Reads the command line. `Ok(None)`: help is asked for. The error is a message of Python's repozo.
pub fn read_command_line(arguments: &[OsString]) -> Result<Option<RepozoOptions>, String> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree);
    for (short, long, has_value) in TABLE {
        let has_value = if has_value { HasArg::Yes } else { HasArg::No };
        options.opt(short, long, "", "", has_value, Occur::Multi);
    }
    let matches = options.parse(unabbreviated(arguments)?).map_err(|problem| explain(&problem))?;
    let is_given = |long: &str| matches.opt_present(long);
    let value = |long: &str| matches.opt_strs(long).pop();
    if is_given("help") {
        return Ok(None);
    }
    let modes: usize = ["backup", "recover", "verify"].iter().map(|mode| matches.opt_count(mode)).sum();
    if modes > 1 {
        return Err("-B, -R, and -V are mutually exclusive".into());
    }
    if !matches.free.is_empty() {
        return Err(format!("Invalid arguments: {}", matches.free.join(", ")));
    }
    if modes == 0 {
        return Err("Either --backup, --recover or --verify is required".into());
    }
    let repository = value("repository").ok_or("--repository is required")?;
    let (mode, foreign): (RepozoMode, &[&'static str]) = if is_given("backup") {
        let file =
            value("file").filter(|file| !file.is_empty()).ok_or("--file is required in backup mode")?;
        let mode = RepozoMode::Backup(BackupOptions {
            file: file.into(),
            full: is_given("full"),
            quick: is_given("quick"),
            gzip: is_given("gzip"),
            kill_old: is_given("kill-old-on-full"),
        });
        (mode, &["date", "output", "with-verify"])
    } else if is_given("recover") {
        // As in Python, an empty date is none.
        let date = value("date").filter(|date| !date.is_empty());
        if let Some(date) = date.as_ref().filter(|date| !is_date(date)) {
            return Err(format!("--date is '{date}', and not yyyy-mm-dd[-hh[-mm[-ss]]]"));
        }
        let mode = RepozoMode::Recover(RestoreOptions {
            date,
            output: value("output").map(PathBuf::from),
            with_verify: is_given("with-verify"),
        });
        (mode, &["file", "kill-old-on-full"])
    } else {
        let foreign = &["date", "output", "full", "gzip", "file", "kill-old-on-full", "with-verify"];
        (RepozoMode::Verify { quick: is_given("quick") }, foreign)
    };
    let ignored = foreign.iter().copied().filter(|long| is_given(long)).collect();
    Ok(Some(RepozoOptions { mode, repository: repository.into(), verbose: is_given("verbose"), ignored }))
}

/// Whether a date has the form that names of backups are compared with. Python's repozo compares any text, and so
/// restores the newest backup as of `2026/11/28`.
fn is_date(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let is_number = |(at, word): (usize, &&str)| {
        word.len() == if at == 0 { 4 } else { 2 } && word.bytes().all(|byte| byte.is_ascii_digit())
    };
    (3..=6).contains(&words.len()) && words.iter().enumerate().all(is_number)
}

/// The arguments with unabbreviated long options: getopts wants these, Python's getopt any unique beginning.
fn unabbreviated(arguments: &[OsString]) -> Result<Vec<OsString>, String> {
    let mut whole = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(text) =
            argument.to_str().filter(|text| text.len() > 1 && text.starts_with('-') && *text != "--")
        else {
            whole.push(argument.clone());
            whole.extend(arguments.cloned());
            break;
        };
        let value_follows = match text.strip_prefix("--") {
            Some(long) => {
                let (name, value) =
                    long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let (long, has_value) = long_option(name)?;
                whole.push(value.map_or(format!("--{long}"), |value| format!("--{long}={value}")).into());
                has_value && value.is_none()
            }
            None => {
                whole.push(argument.clone());
                // The value of the first option that has one is the rest of the argument, or the next argument.
                let has_value =
                    |short: &str| TABLE.iter().any(|(name, _, has_value)| *name == short && *has_value);
                let taker = text.char_indices().skip(1).find(|(_, short)| has_value(&short.to_string()));
                taker.is_some_and(|(at, _)| at + 1 == text.len())
            }
        };
        if value_follows {
            whole.extend(arguments.next().cloned());
        }
    }
    Ok(whole)
}

fn long_option(written: &str) -> Result<(&'static str, bool), String> {
    let mut candidates = TABLE.iter().filter(|(_, long, _)| long.starts_with(written));
    match (candidates.clone().find(|(_, long, _)| *long == written), candidates.next(), candidates.next()) {
        (Some((_, long, has_value)), ..) | (None, Some((_, long, has_value)), None) => Ok((long, *has_value)),
        (None, None, _) => Err(format!("option --{written} not recognized")),
        (None, Some(_), Some(_)) => Err(format!("option --{written} not a unique prefix")),
    }
}

/// The output of `--help`.
pub fn help(program: &str) -> String {
    format!(
        "\
Back up a Data.fs, restore it, or verify the backups, in a repository of
Python's repozo.

Usage: {program} -B -r DIR -f FILE [-F] [-Q] [-z] [-k]
       {program} -R -r DIR [-o FILE] [-D DATE] [-w]
       {program} -V -r DIR [-Q]

  -B, --backup            back up what is new in a Data.fs, or all of it if
                          that is needed; a server may be running
  -R, --recover           restore a Data.fs
  -V, --verify            verify all backups
  -r, --repository DIR    where the backups are; it must exist
  -v, --verbose           say on the standard error what is done
  -h, --help              print this

With -B:
  -f, --file FILE         the Data.fs
  -F, --full              back up all of it
  -Q, --quick             compare Data.fs with the last backup only; without,
                          with all since the last full one
  -z, --gzip              compress, at level 1
  -k, --kill-old-on-full  after a full backup, which is read again first,
                          remove all older ones

With -R:
  -o, --output FILE       put the restored file here, once it is complete and
                          verified, and its index beside it. A running server
                          is an error. A file that is there is kept as
                          FILE.before-restore. Default: the standard output
  -D, --date DATE         as of yyyy-mm-dd[-hh[-mm[-ss]]], in UTC: the last
                          backup that is not later. A day alone is its begin
  -w, --with-verify       a backup without a sum to compare with is an error

With -V:
  -Q, --quick             verify sizes only

Exit status: 0 done, or nothing has changed; 1 otherwise, stderr says why.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<RepozoOptions, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        read_command_line(&arguments).map(|options| options.expect("no help"))
    }

    #[test]
    fn options_combine_and_abbreviate_as_in_python() {
        let options = read(&["-BvQzr", "repo", "--fil=Data.fs", "--kill"]).unwrap();
        let backup =
            BackupOptions { file: "Data.fs".into(), full: false, quick: true, gzip: true, kill_old: true };
        let expected = RepozoOptions {
            mode: RepozoMode::Backup(backup),
            repository: "repo".into(),
            verbose: true,
            ignored: vec![],
        };
        assert_eq!(options, expected);
        for date in ["2026-11-28", "2026-11-28-03", "2026-11-28-03-14", "2026-11-28-03-14-49"] {
            assert!(read(&["-R", "-r", "x", "-D", date]).is_ok(), "{date}");
        }
        let options =
            read(&["--rec", "-r", "a", "-r", "-b", "-D", "", "-oX", "-f", "y", "--with", "-k"]).unwrap();
        let restore = RestoreOptions { date: None, output: Some("X".into()), with_verify: true };
        assert_eq!((options.mode, options.repository), (RepozoMode::Recover(restore), "-b".into()));
        assert_eq!(options.ignored, ["file", "kill-old-on-full"]);
        assert_eq!(read(&["-Vr", "x", "-Q"]).unwrap().mode, RepozoMode::Verify { quick: true });
        assert_eq!(read_command_line(&["-h".into()]), Ok(None));
    }

    #[test]
    fn mistakes_have_the_messages_of_python() {
        for (arguments, expected) in [
            (&["-B", "-R"] as &[&str], "-B, -R, and -V are mutually exclusive"),
            (&["-B", "-B"], "-B, -R, and -V are mutually exclusive"),
            (&["-r", "x"], "Either --backup, --recover or --verify is required"),
            (&[], "Either --backup, --recover or --verify is required"),
            (&["-B"], "--repository is required"),
            (&["-Br", "x"], "--file is required in backup mode"),
            (&["-Br", "x", "a", "b", "-f", "y"], "Invalid arguments: a, b, -f, y"),
            (&["-Y"], "option -Y not recognized"),
            (&["--full=3"], "option --full must not have an argument"),
            (&["-r"], "option -r requires argument"),
            (&["--re"], "option --re not a unique prefix"),
            (&["-Rrx", "-D2026/11/28"], "--date is '2026/11/28', and not yyyy-mm-dd[-hh[-mm[-ss]]]"),
            (&["-Rrx", "-D2026-11-28-3"], "--date is '2026-11-28-3', and not yyyy-mm-dd[-hh[-mm[-ss]]]"),
            (&["--nothing"], "option --nothing not recognized"),
        ] {
            assert_eq!(read(arguments).unwrap_err(), expected, "{arguments:?}");
        }
    }
}
