//! `zeoctl`: beside Python's, in turns with Python's, and what a daemon manager does with a program that crashes, does
//! not end, or does not start.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{RawClient, Speaks, record};
use crate::support::process::free_address;
use crate::support::pythons::python;

const PATIENCE: Duration = Duration::from_secs(60);
const OURS: &str = env!("CARGO_BIN_EXE_zeoctl");

/// A directory with a configuration. What it has started is stopped in the end.
struct Site {
    directory: tempfile::TempDir,
    address: std::net::SocketAddr,
}

impl Site {
    /// A site whose program is the server. `runner`: more keys.
    fn of_server(runner: &str) -> Site {
        let site = Site::empty();
        let program = format!("{} -C {}", env!("CARGO_BIN_EXE_runzeo"), site.path("zeo.conf").display());
        site.configure(&program, runner);
        site
    }

    /// A site whose program is a shell script.
    fn of_script(script: &str, runner: &str) -> Site {
        let site = Site::empty();
        site.script("program", script);
        site.configure(&site.path("program").display().to_string(), runner);
        site
    }

    fn empty() -> Site {
        Site { directory: tempfile::tempdir().unwrap(), address: free_address() }
    }

    fn script(&self, name: &str, script: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn configure(&self, program: &str, runner: &str) {
        let config = format!(
            "<zeo>\naddress {}\n</zeo>\n<filestorage 1>\npath Data.fs\n</filestorage>\n<eventlog>\n<logfile>\npath {}\n\
             </logfile>\n</eventlog>\n<runner>\nprogram {program}\nsocket-name {}\ndirectory {}\ntranscript {}\n{runner}\n\
             </runner>\n",
            self.address,
            self.path("zeo.log").display(),
            self.path("zdsock").display(),
            self.directory.path().display(),
            self.path("transcript").display(),
        );
        fs::write(self.path("zeo.conf"), config).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Calls a `zeoctl`. The exit code, the output and the standard error.
    fn call(&self, zeoctl: &Path, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(zeoctl);
        command.args(["-C", "zeo.conf"]).args(words).current_dir(self.directory.path()).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    fn ours(&self, words: &[&str]) -> (i32, String) {
        let (code, said, wrong) = self.call(Path::new(OURS), words);
        (code, said + &wrong)
    }

    /// A value of `status -l`; empty if the manager does not run.
    fn value(&self, name: &str) -> String {
        let (_, said) = self.ours(&["status", "-l"]);
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().to_string()
    }

    /// The process of the program, once there is another one than this.
    fn pid_after(&self, before: u32) -> u32 {
        let mut pid = 0;
        wait_for("another process", || {
            pid = self.value("application").parse().unwrap_or(0);
            pid != 0 && pid != before
        });
        pid
    }

    fn serves(&self) -> RawClient {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match RawClient::register(self.address, Speaks::Z5) {
                Ok((client, _)) => return client,
                Err(error) => assert!(Instant::now() < deadline, "{error}: {}", self.text("zeo.log")),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let said = self.ours(&["stop"]);
        let _ = writeln!(std::io::stderr(), "stop: {said:?}");
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The output without what differs from call to call: numbers of processes, seconds of waiting, the program's path.
fn normal(text: &str, zeoctl: &Path) -> String {
    let text = text.replace(&zeoctl.display().to_string(), "zeoctl").replace(". ", "");
    let mut normal = String::new();
    let mut digits = 0;
    for c in text.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        match digits {
            // A signal has two.
            3 => {
                normal.truncate(normal.len() - 2);
                normal.push('N');
            }
            4.. => {}
            _ => normal.push(c),
        }
    }
    normal
}

/// Each word, with the exit code and the output of both programs.
#[test]
fn words_and_exit_codes_are_pythons() {
    let Some(python) = python("zeo6-py311") else { return };
    let theirs = python.with_file_name("zeoctl");
    let said = [theirs.as_path(), Path::new(OURS)].map(|zeoctl| {
        let site = Site::of_server("");
        let mut said = Vec::new();
        let mut call = |words: &[&str]| {
            let (code, out, err) = site.call(zeoctl, words);
            // The path first: there may be numbers in it.
            let text = (out + &err).replace(&site.path("").display().to_string(), "");
            let text = normal(&text, zeoctl).replace(&site.address.to_string(), "ADDRESS");
            said.push(format!("{words:?}: {code}\n{text}"));
        };
        for words in [&["status"][..], &["stop"], &["kill"], &["logreopen"], &["reopen_transcript"], &[""]] {
            call(words);
        }
        for words in
            [&["kill", "foo"][..], &["kill", "-234"], &["kill", "65"], &["logtail"], &["status", "x"]]
        {
            call(words);
        }
        for word in ["start", "stop", "restart", "status", "kill", "wait", "help", "EOF", "nothing"] {
            call(&["help", word]);
        }
        for words in [&[][..], &["-q", "status"], &["-C"], &["--bogus", "status"]] {
            call(words);
        }
        call(&["-u", "no-such-user", "status"]);
        call(&["-u", "12345", "status"]);
        call(&["-b", "1", "-b", "2", "status"]);
        call(&["start"]);
        call(&["start"]);
        drop(site.serves());
        for words in [&["status"][..], &["status", "x"], &["fg"], &["kill", "usr2"], &["logreopen"]] {
            call(words);
        }
        call(&["-p", "/bin/other", "status"]);
        call(&["restart"]);
        drop(site.serves());
        for words in [&["stop"][..], &["status"], &["stop"], &["wait"], &["restart"]] {
            call(words);
        }
        // Before it serves it may not handle signals yet.
        drop(site.serves());
        call(&["kill"]);
        call(&["wait"]);
        (said, log_lines(&site))
    });
    let [(theirs, their_log), (ours, our_log)] = said;
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
    assert_eq!(their_log, our_log);
}

/// What the manager has logged. Python's announces a pause before a restart also if there is no restart.
fn log_lines(site: &Site) -> Vec<String> {
    let text = site.text("zeo.log");
    let lines = text.lines().filter_map(|line| line.split_once(" root ").map(|(_, line)| line));
    lines
        .filter(|line| !line.starts_with("sleep "))
        .map(|line| {
            normal(&line.replace(&site.directory.path().display().to_string(), "DIR"), Path::new(OURS))
        })
        .collect()
}

/// An operator changes over at any time: each `zeoctl` sees and steers what the other one has started.
#[test]
fn each_zeoctl_steers_what_the_other_has_started() {
    let Some(python) = python("zeo6-py311") else { return };
    let theirs = python.with_file_name("zeoctl");
    let ours = Path::new(OURS);
    for (first, second) in [(theirs.as_path(), ours), (ours, theirs.as_path())] {
        let site = Site::of_server("");
        let said = |zeoctl: &Path, words: &[&str], expected: &str| {
            let (code, said, wrong) = site.call(zeoctl, words);
            assert!(
                code == 0 && said.contains(expected),
                "{}: {words:?}: {code} {said} {wrong}",
                zeoctl.display()
            );
            assert!(!said.contains("different program"), "{said}");
        };
        said(first, &["start"], "daemon process started, pid=");
        said(second, &["status"], "program running; pid=");
        said(second, &["start"], "daemon process already running; pid=");
        let mut client = site.serves();
        client.commit(&[(0, 0, &record(b"first"))]).expect("connected").expect("a commit");
        fs::rename(site.path("zeo.log"), site.path("zeo.log.1")).unwrap();
        said(second, &["logreopen"], "signal SIGUSR2 sent to process");
        wait_for("a new log", || site.path("zeo.log").exists());
        said(second, &["restart"], "daemon process restarted, pid=");
        drop(site.serves());
        said(second, &["stop"], "daemon process stopped");
        wait_for("the end of the manager", || site.call(first, &["status"]).0 == 3);
    }
}

#[test]
fn a_server_that_was_killed_is_started_again() {
    let site = Site::of_server("");
    assert_eq!(site.ours(&["start"]).0, 0);
    drop(site.serves());
    let manager: u32 = site.value("manager").parse().unwrap();
    let first = site.pid_after(0);
    kill("KILL", first);
    let second = site.pid_after(first);
    drop(site.serves());
    kill("HUP", second);
    let third = site.pid_after(second);
    drop(site.serves());
    let log = site.text("zeo.log");
    assert!(log.contains(&format!("pid {first}: terminated by SIGKILL")), "{log}");
    assert!(log.contains("sleep 1 to avoid rapid restarts"), "{log}");
    assert!(log.contains(&format!("pid {second}: exit status 1")), "{log}");
    assert_eq!(site.value("manager"), manager.to_string());
    assert_ne!(site.ours(&["start"]).1.find("already running"), None);
    // In order, and nothing is left.
    kill("TERM", manager);
    wait_for("the end", || !is_alive(manager) && !is_alive(third));
    assert!(site.text("zeo.log").contains(&format!("pid {third}: exit status 0")));
    assert!(!site.path("zdsock").exists());
    assert_eq!(site.ours(&["status"]), (3, "daemon manager not running\n".into()));
}

/// A manager that is killed leaves its server, which goes on, and a socket, which the next one replaces.
#[test]
fn a_manager_that_was_killed_leaves_the_server() {
    let site = Site::of_script("echo $$ >> pids; exec sleep 1000", "");
    assert_eq!(site.ours(&["start"]).0, 0);
    let (manager, first) = (site.value("manager").parse().unwrap(), site.pid_after(0));
    kill("KILL", manager);
    wait_for("the end", || !is_alive(manager));
    assert!(is_alive(first));
    assert_eq!(site.ours(&["status"]).0, 3);
    let (code, said) = site.ours(&["start"]);
    assert!(code == 0 && said.contains("Unlinking stale socket"), "{said}");
    assert!(is_alive(first));
    kill("KILL", first);
}

#[test]
fn a_program_that_crashes_at_its_start_is_given_up() {
    let site = Site::of_script("echo run >> runs; exit 7", "backoff-limit 3\nexit-codes 0,2");
    let (code, said) = site.ours(&["start"]);
    assert!(code == 1 || code == 0, "{said}");
    wait_for("the end", || site.ours(&["status"]).0 == 3);
    // More if one took longer than the limit, on a busy machine.
    assert!(site.text("runs").lines().count() >= 3, "{}", site.text("zeo.log"));
    let log = site.text("zeo.log");
    assert!(log.contains("CRITICAL root restarting too frequently; quit"), "{log}");
}

#[test]
fn a_program_that_cannot_be_used_is_not_started_again() {
    // A test that never succeeds: a busy machine could find the program while it still runs.
    let script = "echo run >> runs; echo it is wrong >&2; exit 2";
    let site = Site::of_script(script, "start-test-program false");
    let (code, said) = site.ours(&["start"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("daemon manager not running"), "{said}");
    let hint =
        format!("the program does not start, exit status 2: see {}", site.path("transcript").display());
    assert!(said.contains(&hint), "{said}");
    assert_eq!(site.text("runs"), "run\n");
    wait_for("its output", || site.text("transcript") == "it is wrong\n");
    site.configure("/no/such/program", "");
    let (code, said) = site.ours(&["start"]);
    assert_eq!(code, 1);
    assert!(said.contains("Error: can't stat program '/no/such/program'"), "{said}");
}

#[test]
fn a_program_that_does_not_end_is_killed() {
    let site = Site::of_script("trap '' TERM; echo >> deaf; while :; do sleep 0.1; done", "stop-timeout 1");
    assert_eq!(site.ours(&["start"]).0, 0);
    wait_for("its trap", || site.text("deaf").lines().count() == 1);
    let first = site.pid_after(0);
    let (code, said) = site.ours(&["restart"]);
    assert!(code == 0 && said.contains("daemon process restarted"), "{said}");
    assert!(!is_alive(first));
    let second = site.pid_after(first);
    wait_for("its trap", || site.text("deaf").lines().count() == 2);
    assert_eq!(site.ours(&["stop"]).0, 0);
    assert!(!is_alive(second));
    let log = site.text("zeo.log");
    assert!(log.contains(&format!("pid {second} does not end: SIGKILL")), "{log}");
}

#[test]
fn a_start_lasts_until_its_test_succeeds() {
    let site = Site::of_script("exec sleep 1000", "");
    site.script("test", "echo tested >> tests; test -e ready");
    let runner = format!("start-test-program {}", site.path("test").display());
    site.configure(&site.path("program").display().to_string(), &runner);
    let (code, said) = site.ours(&["-T", "1", "start"]);
    assert!(code == 1 && said.contains("Program took too long to start"), "{said}");
    assert_eq!(site.value("testing"), "1");
    fs::write(site.path("ready"), "").unwrap();
    wait_for("a success", || site.value("testing") == "0");
    assert!(site.text("tests").lines().count() >= 2);
    let first = site.pid_after(0);
    assert_eq!(site.ours(&["restart"]).0, 0);
    assert_ne!(site.pid_after(first), first);
    assert_eq!(site.value("testing"), "0");
}

/// It has no terminal, no input, the directory, the mask and the arguments of the configuration and the command line.
#[test]
fn the_program_runs_in_the_background() {
    let site =
        Site::of_script("pwd; umask; echo \"$@\"; cat; env; echo the end; exec sleep 1000", "umask 027");
    fs::create_dir(site.path("zeo.conf.d")).unwrap();
    let variables = "<environment>\nSITE_Name main site\nSITE_EMPTY\n</environment>\n";
    fs::write(site.path("zeo.conf.d/environment.conf"), variables).unwrap();
    assert_eq!(site.ours(&["start", "more", "words"]).0, 0);
    wait_for("its output", || site.text("transcript").contains("the end"));
    let said = site.text("transcript");
    let directory = fs::canonicalize(site.directory.path()).unwrap();
    assert!(said.starts_with(&format!("{}\n0027\nmore words\n", directory.display())), "{said}");
    assert!(!said.contains("ZEOCTL"), "{said}");
    assert!(said.contains("\nSITE_Name=main site\n") && said.contains("\nSITE_EMPTY=\n"), "{said}");
    let manager: u32 = site.value("manager").parse().unwrap();
    let program = site.pid_after(0);
    for pid in [manager, program] {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        assert_eq!((fields[3], fields[4]), (&*manager.to_string(), "0"), "session and terminal: {stat}");
    }
    let descriptors = fs::read_dir(format!("/proc/{program}/fd")).unwrap().count();
    assert_eq!(descriptors, 3, "nothing of the manager is left open");
    fs::rename(site.path("transcript"), site.path("transcript.1")).unwrap();
    assert_eq!(site.ours(&["reopen_transcript"]), (0, String::new()));
    wait_for("another transcript", || site.path("transcript").exists());
}

/// In the foreground it is the program itself: its signals and its exit code.
#[test]
fn the_foreground_is_the_program() {
    let site = Site::of_script("echo \"$@\"; exit 5", "");
    let (code, said) = site.ours(&["fg", "a", "b"]);
    assert_eq!((code, said), (5, format!("{} a b\na b\n", site.path("program").display())));
    let (code, said) = site.ours(&["-X", "runner/daemon=off", "start"]);
    assert_eq!(code, 1, "{said}: it was given up");
    assert!(site.text("transcript").is_empty(), "its output is the terminal's");
}

#[test]
fn a_hostile_client_of_the_socket_delays_nothing() {
    let site = Site::of_script("exec sleep 1000", "");
    assert_eq!(site.ours(&["start"]).0, 0);
    let connect = || UnixStream::connect(site.path("zdsock")).unwrap();
    let ask = |text: &[u8]| {
        let mut stream = connect();
        // The manager may have answered and gone before all was sent.
        let _ = stream.write_all(text);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let mut silent = connect();
    silent.write_all(b"sta").unwrap();
    assert!(ask(b"status\n").starts_with("status=running\n"));
    let mut answer = String::new();
    silent.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "Command superseded by new command\n");
    assert_eq!(ask(b"\n"), "Empty command\n");
    assert_eq!(ask(b"kill x\n"), "Bad signal 'x'\n");
    assert_eq!(ask(b"kill 0\n"), "Bad signal '0'\n");
    assert_eq!(ask(b"explode now\n"), "Unknown command 'explode'; 'help' for a list\n");
    assert_eq!(ask(b"start\n"), "Application already started\n");
    drop(ask(&[b'x'; 100_000]));
    let mode = fs::metadata(site.path("zdsock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(site.ours(&["status"]).0, 0);
    // The socket of another program is left alone.
    assert_eq!(site.ours(&["stop"]).0, 0);
    wait_for("the end", || !site.path("zdsock").exists());
    let _other = UnixListener::bind(site.path("zdsock")).unwrap();
    fs::remove_file(site.path("zdsock")).unwrap();
    fs::write(site.path("zdsock"), "a file").unwrap();
    let (code, said) = site.ours(&["start"]);
    assert!(code == 1 && said.contains("is no socket: give another socket-name"), "{said}");
    assert_eq!(site.text("zdsock"), "a file");
    fs::remove_file(site.path("zdsock")).unwrap();
}

/// Two at once: one manager, one program.
#[test]
fn of_two_starts_at_once_one_starts() {
    let site = Site::of_script("echo run >> runs; exec sleep 1000", "");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (code, said) = site.ours(&["start"]);
                assert!(code == 0 && said.contains("pid="), "{said}");
            });
        }
    });
    assert_eq!(site.text("runs"), "run\n");
}

#[test]
fn mistakes_are_said_with_their_line() {
    let site = Site::of_script("exit 0", "backoff-limit -1");
    let line = site.text("zeo.conf").lines().position(|line| line.starts_with("backoff")).unwrap() + 1;
    let (code, said) = site.ours(&["status"]);
    assert_eq!(code, 2);
    let expected =
        format!("Error: zeo.conf:{line}: backoff-limit: '-1' is not between 0 and 31622400 seconds\n");
    assert!(said.starts_with(&expected), "{said}");
    site.configure("x", &format!("socket-name {}", "x".repeat(120)));
    fs::write(
        site.path("zeo.conf"),
        site.text("zeo.conf").replace(&format!("socket-name {}\n", site.path("zdsock").display()), ""),
    )
    .unwrap();
    let (code, said) = site.ours(&["status"]);
    assert!(code == 2 && said.contains("has 120 bytes, and a socket's has at most 107"), "{said}");
    let config = site.text("zeo.conf");
    fs::write(site.path("zeo.conf"), config.split("<runner>").next().unwrap()).unwrap();
    let (code, said) = site.ours(&["status"]);
    assert!(
        code == 2 && said.contains("zeo.conf has no <runner> section with a program; add one, or use -p"),
        "{said}"
    );
    assert_eq!(site.ours(&["-p", "/bin/true", "-s", "socket", "status"]).0, 3);
    site.configure("/bin/true", "");
    fs::create_dir(site.path("zeo.conf.d")).unwrap();
    fs::write(site.path("zeo.conf.d/a.conf"), "<environment>\nA=B c\n</environment>\n").unwrap();
    let (code, said) = site.ours(&["status"]);
    let expected = "Error: zeo.conf.d/a.conf:2: an environment variable has no = in its name\n";
    assert!(code == 2 && said.starts_with(expected), "{said}");
    fs::remove_file(site.path("zeo.conf.d/a.conf")).unwrap();
}
