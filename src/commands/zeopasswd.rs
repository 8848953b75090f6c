//! `zeopasswd`: add a user to a password file, change the password, remove the user.
//!
//! Exit codes: 0 if done; 1 if the file is unchanged, and stderr says why; 2 if the command line is wrong.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use getopts::{Matches, Options, ParsingStyle};

use crate::auth::password_file::{Passwords, UserError, check_realm};
use crate::auth::{self, Settings};
use crate::base::fs::dir_of;
use crate::commands::{Extensions, prompt};
use crate::config::{AuthenticationConfig, authentication_of};
use crate::storage::StorageKinds;

/// The action on the user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Action {
    Add,
    Change,
    Delete,
}

/// The command line.
#[derive(Debug, Eq, PartialEq)]
struct Task {
    action: Action,
    protocol: String,
    file: PathBuf,
    realm: Option<String>,
    user: String,
    password: Option<String>,
}

enum Failure {
    Usage(String),
    Other(String),
}

/// The program `zeopasswd`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    run_with(&Extensions::default(), program, arguments)
}

/// The same with other authentication protocols: `-p NAME` is one of these, and [`auth::Kind::hash`] makes the entry.
/// With `-C`, the configuration file may have the storages that the program adds.
///
/// ```
/// use runzeo::commands::{Extensions, zeopasswd::run_with};
///
/// let extensions = Extensions::default();
/// // extensions.protocols.register(..);
/// // In a program these are `std::env::args_os().skip(1).collect::<Vec<_>>()`.
/// let arguments = ["--help".into()];
/// run_with(&extensions, "my_passwords", &arguments);
/// ```
pub fn run_with(extensions: &Extensions, program: &str, arguments: &[OsString]) -> ExitCode {
    let failure = match read_command_line(&extensions.storages, arguments) {
        Ok(None) => {
            print!("{}", help(program));
            return ExitCode::SUCCESS;
        }
        Ok(Some(task)) => match perform(extensions, &task) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => failure,
        },
        Err(message) => Failure::Usage(message),
    };
    match failure {
        Failure::Usage(message) => {
            eprintln!("Error: {message}\nFor help, use {program} -h");
            ExitCode::from(2)
        }
        Failure::Other(message) => {
            eprintln!("Error: {message}");
            ExitCode::from(1)
        }
    }
}

/// The output of `--help`.
fn help(program: &str) -> String {
    format!(
        "\
Set who may connect to a ZEO server that demands authentication.

Usage: {program} -C FILE [-c | -d] USER [PASSWORD]
       {program} -p digest -f FILE [-r REALM] [-c | -d] USER [PASSWORD]

Adds USER, or with
  -c, --change            gives USER another password
  -d, --delete            removes USER

Where the passwords are:
  -C, --configure FILE    as the server's configuration says
  -p, --protocol NAME     authentication-protocol of the server: digest
  -f, --filename FILE     authentication-database of the server, created if
                          missing, readable by its owner alone
  -r, --realm REALM       authentication-realm of the server; a file that has
                          one knows it
  -h, --help; --version   print this, or the version

Without PASSWORD, which other users of the machine could see, it is asked for
twice at the terminal, or else is the first line of the standard input.
A running server reads a changed file by itself; who is connected stays so.
Exit status: 0 done; 1 the file is unchanged; 2 the command line is wrong.
"
    )
}

/// `None` if help is requested.
fn read_command_line(storages: &StorageKinds, arguments: &[OsString]) -> Result<Option<Task>, String> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree);
    options.optflag("h", "help", "").optflag("", "version", "");
    options.optflag("d", "delete", "").optflag("c", "change", "");
    options.optopt("C", "configure", "", "").optopt("", "configuration", "", "");
    options.optopt("p", "protocol", "", "").optopt("f", "filename", "", "").optopt("r", "realm", "", "");
    let matches = options.parse(arguments).map_err(|problem| problem.to_string())?;
    if matches.opt_present("help") {
        return Ok(None);
    }
    if matches.opt_present("version") {
        println!("zeopasswd {}", env!("CARGO_PKG_VERSION"));
        std::process::exit(0);
    }
    task(storages, &matches).map(Some)
}

fn task(storages: &StorageKinds, matches: &Matches) -> Result<Task, String> {
    let action = match (matches.opt_present("change"), matches.opt_present("delete")) {
        (false, false) => Action::Add,
        (true, false) => Action::Change,
        (false, true) => Action::Delete,
        (true, true) => return Err("use either -c or -d".into()),
    };
    let configuration = matches.opt_str("configure").or_else(|| matches.opt_str("configuration"));
    let parts = ["protocol", "filename", "realm"].map(|name| matches.opt_str(name));
    let (protocol, file, realm) = match (configuration, parts) {
        (Some(file), [None, None, None]) => {
            let environment = &|name: &str| std::env::var(name).ok();
            let Some(config) = authentication_of(storages, &file, environment)? else {
                return Err(format!("{file} does not specify an authentication-protocol"));
            };
            let AuthenticationConfig { protocol, settings: Settings { database, realm }, .. } = config;
            (protocol, database, realm)
        }
        (Some(_), _) => return Err("use either -C, or -p, -f and -r".into()),
        (None, [Some(protocol), Some(file), realm]) => (protocol, file.into(), realm),
        (None, _) => {
            return Err(
                "a configuration file (-C), or protocol (-p) and password file (-f) are needed".into()
            );
        }
    };
    let (user, password) = match (matches.free.as_slice(), action) {
        ([], _) => return Err("no user is given".into()),
        ([user], _) => (user.clone(), None),
        ([user, password], Action::Add | Action::Change) => (user.clone(), Some(password.clone())),
        _ => return Err("too many arguments".into()),
    };
    Ok(Task { action, protocol, file, realm, user, password })
}

fn perform(extensions: &Extensions, task: &Task) -> Result<(), Failure> {
    let kind = extensions.protocols.get(&task.protocol).map_err(Failure::Usage)?;
    if let Some(Err(why)) = task.realm.as_deref().map(check_realm) {
        return Err(Failure::Usage(format!("the realm {why}")));
    }
    let shown = task.file.display();
    // First all checks that need no password; then the password; then the lock.
    rewrite(task, kind, "").map_err(Failure::Other)?;
    let password = match (&task.password, task.action) {
        (_, Action::Delete) => String::new(),
        (Some(password), _) => password.clone(),
        (None, _) => prompt::new_password()
            .map_err(|error| Failure::Other(format!("no password: {error}; {shown} is unchanged")))?,
    };
    if password.is_empty() && task.action != Action::Delete {
        let why = "the password is empty, which ZEO's clients refuse to send";
        return Err(Failure::Other(format!("{why}; {shown} is unchanged")));
    }
    // Two programs at a time could overwrite each other's change. The file itself is replaced, so its directory is
    // locked.
    let failed = |error: io::Error| Failure::Other(format!("can't write {shown}: {error}"));
    let dir = File::open(dir_of(&task.file)).map_err(failed)?;
    dir.lock().map_err(failed)?;
    let passwords = rewrite(task, kind, &password).map_err(Failure::Other)?;
    passwords.save(&task.file).map_err(failed)
}

/// The new content of the file.
fn rewrite(task: &Task, kind: &auth::Kind, password: &str) -> Result<Passwords, String> {
    let mut passwords = load(&task.file)?;
    let shown = task.file.display();
    match (&passwords.realm, &task.realm) {
        (Some(realm), Some(wanted)) if realm != wanted.as_bytes() => {
            let realm = String::from_utf8_lossy(realm);
            return Err(format!("{shown} is for realm '{}', not '{wanted}'", realm.escape_debug()));
        }
        (None, Some(wanted)) if passwords.is_empty() => passwords.realm = Some(wanted.clone().into()),
        (None, Some(wanted)) => {
            return Err(format!(
                "{shown} is for no realm; its users would be locked out by the realm '{wanted}'"
            ));
        }
        _ => {}
    }
    let realm = match &passwords.realm {
        Some(realm) => Some(
            std::str::from_utf8(realm)
                .map_err(|_| format!("the realm of {shown} is not UTF-8 text"))?
                .to_string(),
        ),
        None => None,
    };
    let user = task.user.as_str();
    let hash = (kind.hash)(user, realm.as_deref(), password);
    let done = match task.action {
        Action::Add => passwords.add(user, hash),
        Action::Change => passwords.change(user, hash),
        Action::Delete => passwords.remove(user),
    };
    done.map_err(|error| {
        let hint = match error {
            UserError::Exists => "; use -c to change the password",
            UserError::Unknown | UserError::Unwritable(_) => "",
        };
        format!("user '{}' {error}{hint}; {shown} is unchanged", user.escape_debug())
    })?;
    Ok(passwords)
}

/// Loads the file; a missing file is empty.
fn load(path: &Path) -> Result<Passwords, String> {
    match Passwords::load(path) {
        Ok(passwords) => Ok(passwords),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Passwords::default()),
        Err(error) => Err(format!("can't read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Task, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        read_command_line(&StorageKinds::default(), &arguments).map(|task| task.expect("no help"))
    }

    #[test]
    fn command_lines() {
        let task = read(&["-p", "digest", "-f", "file", "foo", "bar"]).unwrap();
        let expected = Task {
            action: Action::Add,
            protocol: "digest".into(),
            file: "file".into(),
            realm: None,
            user: "foo".into(),
            password: Some("bar".into()),
        };
        assert_eq!(task, expected);
        let task =
            read(&["--filename=file", "--protocol", "digest", "--realm", "a realm", "-d", "foo"]).unwrap();
        assert_eq!((task.action, task.realm.as_deref()), (Action::Delete, Some("a realm")));
        for (arguments, expected) in [
            (
                &["foo"] as &[&str],
                "a configuration file (-C), or protocol (-p) and password file (-f) are needed",
            ),
            (
                &["-p", "digest", "foo"],
                "a configuration file (-C), or protocol (-p) and password file (-f) are needed",
            ),
            (&["-C", "x", "-f", "y", "foo"], "use either -C, or -p, -f and -r"),
            (&["-p", "digest", "-f", "y"], "no user is given"),
            (&["-p", "digest", "-f", "y", "a", "b", "c"], "too many arguments"),
            (&["-p", "digest", "-f", "y", "-d", "a", "b"], "too many arguments"),
            (&["-p", "digest", "-f", "y", "-c", "-d", "a"], "use either -c or -d"),
        ] {
            assert_eq!(read(arguments).unwrap_err(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_help_fits_a_screen() {
        let help = help("zeopasswd");
        assert!(help.lines().count() <= 30 && help.lines().all(|line| line.len() <= 79), "{help}");
    }
}
