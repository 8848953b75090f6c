//! What `zeoctl` says about itself.

use std::io::Write;

use super::control::list;
use super::settings::Settings;
use crate::commands::subcommand::Trouble;
use crate::config::zconfig::quoted;

/// Each action with its help.
const ACTIONS: &[(&str, &str)] = &[
    ("fg", FOREGROUND),
    ("foreground", FOREGROUND),
    (
        "help",
        "help          -- Print a list of available actions.\nhelp <action> -- Print help for <action>.\n",
    ),
    (
        "kill",
        "kill [sig] -- Send signal sig to the daemon process.\n              The default signal is SIGTERM.\n",
    ),
    (
        "logreopen",
        "logreopen -- Send a SIGUSR2 signal to the daemon process: it opens its log\n             \
         files again. The transcript is opened again, too.\n",
    ),
    (
        "logtail",
        "logtail [logfile] -- Show the end of the logfile, and what is added to it.\n                     \
         Hit ^C to end this.\n",
    ),
    (
        "reload",
        "reload -- Have the server read its configuration again (zeoadmin reload).\n          \
         The configuration must have an admin-socket.\n",
    ),
    ("reopen_transcript", "reopen_transcript -- Open the transcript again, after it was moved away.\n"),
    ("restart", "restart -- Stop and then start the daemon process.\n"),
    ("show", "show options -- show the options of the daemon manager\n"),
    ("start", "start -- Start the daemon process.\n         If it is already running, do nothing.\n"),
    (
        "status",
        "status [-l] -- Print status for the daemon process.\n               With -l, show raw status output as \
         well.\n",
    ),
    ("stop", "stop -- Stop the daemon process.\n        If it is not running, do nothing.\n"),
    ("wait", "wait -- Wait for the daemon process to exit.\n"),
];

const FOREGROUND: &str = "foreground -- Run the program in the foreground.\nfg -- an alias for foreground.\n";

/// The output of `--help`.
pub(super) fn help(program: &str) -> String {
    format!(
        "\
Start, stop and watch the server of a configuration file.

Usage: {program} -C FILE [options] ACTION [ARGUMENT...]

Actions:
  start              start the daemon manager, and it the program; ARGUMENT...
                     are added to the command line of the program
  stop               stop the program: SIGTERM, and SIGKILL after stop-timeout
  restart            stop it and start it again
  status [-l]        say whether it runs; -l: with all that the manager says
  wait               wait until it has ended
  kill [SIGNAL]      send it a signal, TERM if none is given
  logreopen          have it open its log files again, after they were moved
  reload             have it read its configuration again: zeoadmin reload
  fg, foreground     run it without a manager
  logtail [LOGFILE]  show the end of a log, and what is added to it
  show, help         show the options; what an action does

Options, which win over <runner> of the file:
  -C, --configure FILE         the server's configuration file
  -X SECTION/KEY=VALUE         use VALUE instead of what the file says
  -p, --program PROGRAM        the command to run
  -s, --socket-name SOCKET     the control socket (default: zdsock)
  -z, --directory DIRECTORY    where to run
  -b, --backoff-limit SECONDS  longest pause before a restart (default: 10)
  -f, --forever                never give up restarting
  -x, --exit-codes LIST        do not restart after these (default: 0,2)
  -T, --start-timeout SECONDS  how long to wait for a start (default: 300)
  -u, --user USER              run as this user
  -m, --umask UMASK            modes that new files do not get (default: 022)
  -l, --logfile FILE           what logtail shows
  -t, --transcript FILE        the program's output (default: thrown away)
  -d, --daemon                 run in the background (default)
  -h, --help; --version        print this, or the version

Exit status: 0 done, or there was nothing to do; 1 the program does not start;
2 the command line or the configuration cannot be used; 3 status: the daemon
manager does not run.
"
    )
}

/// The help of an action, or the list of actions.
pub(super) fn help_on(out: &mut dyn Write, action: &str) -> Result<u8, Trouble> {
    match ACTIONS.iter().find(|(name, _)| *name == action) {
        Some((_, text)) => write!(out, "{text}")?,
        None if action.is_empty() => {
            writeln!(out, "\nDocumented commands (type help <topic>):\n{}", "=".repeat(40))?;
            let names: Vec<&str> = ACTIONS.iter().map(|(name, _)| *name).collect();
            for row in names.chunks(7) {
                writeln!(out, "{}", row.join("  "))?;
            }
            writeln!(out)?;
        }
        None => writeln!(out, "*** No help on {action}")?,
    }
    Ok(0)
}

/// The options as Python's `zeoctl show` shows them.
pub(super) fn options(out: &mut dyn Write, settings: &Settings) -> Result<u8, Trouble> {
    let runner = &settings.runner;
    let text = |text: Option<String>| text.map_or("None".into(), |text| quoted(&text));
    let path = |path: &Option<std::path::PathBuf>| text(path.as_ref().map(|path| path.display().to_string()));
    let truth = |is: bool| if is { "True" } else { "False" }.to_string();
    let codes: Vec<String> = runner.exit_codes.iter().map(i32::to_string).collect();
    writeln!(out, "zdctl/zdrun options:")?;
    for (name, value) in [
        ("configfile", text(settings.configuration.clone())),
        ("program", list(&runner.program)),
        ("backofflimit", runner.backoff_limit.as_secs().to_string()),
        ("daemon", truth(runner.daemon)),
        ("forever", truth(runner.forever)),
        ("sockname", quoted(&runner.socket_name.display().to_string())),
        ("exitcodes", format!("[{}]", codes.join(", "))),
        ("user", text(runner.user.clone())),
        ("umask", format!("0o{:o}", runner.umask)),
        ("directory", path(&runner.directory)),
        ("logfile", path(&runner.logfile)),
        ("transcript", runner.transcript.as_ref().map_or("'/dev/null'".into(), |_| path(&runner.transcript))),
    ] {
        writeln!(out, "{:<13} {value}", format!("{name}:"))?;
    }
    Ok(0)
}
