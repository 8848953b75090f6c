//! Under a service manager: what it hears, sockets that it passes on, and the real zdaemon.

mod reloads;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::backups::with_repository;
use crate::support::client::{RawClient, Speaks, record};
use crate::support::faults::{Faults, Kind};
use crate::support::pickle::{Value, text};
use crate::support::process::free_address;
use crate::support::pythons::python;
use crate::support::storage as helpers;
use runzeo::ids::Tid;
use runzeo::storage::prelude::*;

const PATIENCE: Duration = Duration::from_secs(60);
const FILE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>";

/// A service manager with a server that is to be started.
struct Manager {
    directory: tempfile::TempDir,
    address: SocketAddr,
    notices: UnixDatagram,
    child: Option<Child>,
}

impl Manager {
    fn new(zeo: &str, sections: &str) -> Manager {
        let directory = tempfile::tempdir().unwrap();
        let notices = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Manager::listening(directory, notices, zeo, sections)
    }

    fn listening(directory: tempfile::TempDir, notices: UnixDatagram, zeo: &str, sections: &str) -> Manager {
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = free_address();
        let config = format!("<zeo>\naddress {address}\n{zeo}\n</zeo>\n{sections}\n");
        fs::write(directory.path().join("zeo.conf"), config).unwrap();
        Manager { directory, address, notices, child: None }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let output = fs::File::create(self.path("output.log")).unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env_remove("INSTANCE_HOME")
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output);
        command
    }

    fn server(&self) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_runzeo"));
        command.args(["-C", "zeo.conf"]);
        command
    }

    /// The next notice.
    fn notice(&self) -> String {
        let mut notice = [0; 4096];
        let len = loop {
            match self.notices.recv(&mut notice) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                received => break received.unwrap_or_else(|error| panic!("{error}: {}", self.log())),
            }
        };
        String::from_utf8(notice[..len].to_vec()).unwrap()
    }

    /// The notices up to the first one with this line.
    fn until(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut notices = Vec::new();
        loop {
            let notice = self.notice();
            let is_wanted = notice.lines().any(&wanted);
            notices.push(notice);
            if is_wanted {
                return notices;
            }
            assert!(Instant::now() < deadline, "{notices:?}");
        }
    }

    fn until_ready(&self) -> Vec<String> {
        self.until(|line| line == "READY=1")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("output.log")).unwrap_or_default()
    }

    fn stop(&mut self) -> ExitStatus {
        let pid = self.child.as_ref().expect("it runs").id();
        assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let child = self.child.as_mut().expect("it runs");
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                panic!("it does not end: {}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The bytes of a file with some transactions.
fn transactions(directory: &Path) -> Vec<u8> {
    let path = directory.join("made.fs");
    let storage = helpers::open(&path);
    let mut serial = Tid::ZERO;
    for _ in 0..10 {
        serial = helpers::commit(&storage, &[(0, serial, b"root")]).unwrap();
    }
    storage.close().unwrap();
    fs::read(path).unwrap()
}

/// The file is scanned up to its zeros, and then cut off, which hangs: a long start. The manager hears how far it is,
/// and that it needs more time; a server that is not ready does not say so.
#[test]
fn a_long_start_is_told_in_order() {
    let mut manager = Manager::new("admin-socket admin", FILE);
    let mut bytes = transactions(manager.directory.path());
    let percent = 43;
    bytes.resize(bytes.len() * 100 / percent - 1, 0);
    fs::write(manager.path("Data.fs"), bytes).unwrap();
    let faults = Faults::default();
    let Some(child) = faults.spawn({
        // The first one empties the lock file.
        faults.order_to_hang(Kind::Disk, 2);
        manager.server()
    }) else {
        return;
    };
    manager.child = Some(child);
    let line = format!("STATUS=opening 1: {percent} % of Data.fs");
    let before = manager.until(|said| said == line);
    assert!(before.iter().all(|notice| notice.starts_with("STATUS=opening 1")), "{before:?}");
    let again = manager.notice();
    assert_eq!(again, format!("{line}\nEXTEND_TIMEOUT_USEC=30000000"));
    let mut zeoadmin = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
    let asked = zeoadmin.args(["save-index", "-s"]).arg(manager.path("admin")).output().unwrap();
    let answer = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(answer, format!("Error: the server is not ready: opening 1: {percent} % of Data.fs\n"));
    let mut zeoadmin = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
    let asked = zeoadmin.args(["status", "-s"]).arg(manager.path("admin")).output().unwrap();
    let answer = String::from_utf8(asked.stdout).unwrap();
    assert!(answer.ends_with(&format!(": opening 1: {percent} % of Data.fs\n")), "{answer}");
    faults.end();
    let rest = manager.until_ready();
    assert_eq!(rest.last().unwrap(), "READY=1\nSTATUS=serving 0 clients, 0.0 transactions a second");
    assert!(RawClient::register(manager.address, Speaks::Z5).is_ok());
    assert!(manager.stop().success());
    let stop = manager.until(|line| line == "STOPPING=1");
    assert_eq!(stop.last().unwrap(), "STOPPING=1\nSTATUS=stopping");
}

/// A long start that is to end is not given more time: the manager may kill it, which loses nothing.
#[test]
fn a_long_start_that_is_to_end_asks_for_no_more_time() {
    let mut manager = Manager::new("", FILE);
    fs::write(manager.path("Data.fs"), transactions(manager.directory.path())).unwrap();
    let faults = Faults::default();
    faults.order_to_hang(Kind::Disk, 2);
    let Some(child) = faults.spawn(manager.server()) else { return };
    let pid = child.id().to_string();
    manager.child = Some(child);
    manager.until(|line| line == "STATUS=opening 1: 100 % of Data.fs");
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    thread::sleep(Duration::from_millis(1500));
    drain(&manager.notices);
    assert_eq!(manager.notice(), "STATUS=opening 1: 100 % of Data.fs");
    faults.end();
    assert_eq!(manager.wait().code(), Some(0), "{}", manager.log());
    let rest = drain(&manager.notices);
    assert!(!rest.iter().any(|notice| notice.contains("READY")), "{rest:?}");
    assert!(rest.iter().any(|notice| notice == "STOPPING=1\nSTATUS=stopping"), "{rest:?}");
}

/// Each ten seconds, what it does.
#[test]
fn a_server_that_serves_says_what_it_does() {
    let mut manager = Manager::new("", FILE);
    manager.child = Some(manager.server().spawn().unwrap());
    manager.until_ready();
    let (mut client, _) = RawClient::register(manager.address, Speaks::Z5).expect("a client");
    for oid in 0..20 {
        client.commit(&[(oid, 0, &record(b"new"))]).expect("connected").expect("a commit");
    }
    let notice = manager.until(|line| line.starts_with("STATUS=serving 1 client, ")).pop().unwrap();
    let rate =
        notice.strip_prefix("STATUS=serving 1 client, ").unwrap().strip_suffix(" transactions a second");
    let rate: f64 = rate.unwrap_or_else(|| panic!("{notice}")).parse().unwrap();
    assert!((0.1..=2.5).contains(&rate), "{notice}");
    assert!(manager.stop().success());
}

/// Each second a sign of life, but not while the disk hangs: neither of an idle server, nor of one whose client waits
/// for its commit.
#[test]
fn a_disk_that_hangs_stops_the_signs_of_life() {
    for commits in [false, true] {
        let mut manager = Manager::new("", FILE);
        let faults = Faults::default();
        let Some(child) = faults.spawn({
            let mut command = manager.server();
            command.env("WATCHDOG_USEC", "1000000");
            command
        }) else {
            return;
        };
        manager.child = Some(child);
        manager.until_ready();
        let (mut client, _) = RawClient::register(manager.address, Speaks::Z5).expect("a client");
        client.commit(&[(0, 0, &record(b"first"))]).expect("connected").expect("a commit");
        for _ in 0..3 {
            manager.until(|line| line == "WATCHDOG=1");
        }
        faults.order_to_hang(Kind::Disk, 1);
        let committer =
            commits.then(|| thread::spawn(move || drop(client.commit(&[(1, 0, &record(b"second"))]))));
        let deadline = Instant::now() + PATIENCE;
        while faults.seen() == 0 {
            assert!(Instant::now() < deadline, "nothing reaches the disk");
            thread::sleep(Duration::from_millis(10));
        }
        // One may be sent before it is clear that the commit hangs.
        thread::sleep(Duration::from_millis(1500));
        drain(&manager.notices);
        thread::sleep(Duration::from_millis(2500));
        let late = drain(&manager.notices);
        assert!(!late.iter().any(|notice| notice.contains("WATCHDOG")), "commits: {commits}: {late:?}");
        faults.end();
        manager.until(|line| line == "WATCHDOG=1");
        committer.into_iter().for_each(|committer| committer.join().expect("the client"));
        assert!(manager.stop().success());
    }
}

/// The notices that have come.
fn drain(notices: &UnixDatagram) -> Vec<String> {
    notices.set_nonblocking(true).unwrap();
    let mut notice = [0; 4096];
    let mut all = Vec::new();
    while let Ok(len) = notices.recv(&mut notice) {
        all.push(String::from_utf8_lossy(&notice[..len]).into_owned());
    }
    notices.set_nonblocking(false).unwrap();
    all
}

#[test]
fn an_abstract_socket_and_a_watchdog_of_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("runzeo-notify-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let notices = UnixDatagram::bind_addr(&address).unwrap();
    let mut manager = Manager::listening(directory, notices, "", FILE);
    let mut command = manager.server();
    command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "200000").env("WATCHDOG_PID", "1");
    manager.child = Some(command.spawn().unwrap());
    manager.until_ready();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(drain(&manager.notices), [] as [String; 0]);
    assert!(manager.stop().success());
    assert!(manager.until(|line| line == "STOPPING=1").iter().all(|notice| !notice.contains("WATCHDOG")));
}

/// A manager that cannot be told anything does not keep the server from serving.
#[test]
fn a_server_that_cannot_start_says_why() {
    let mut manager = Manager::new("", FILE);
    fs::write(manager.path("Data.fs"), "no database").unwrap();
    manager.child = Some(manager.server().spawn().unwrap());
    assert_eq!(manager.wait().code(), Some(1));
    let notices = drain(&manager.notices);
    let last = notices.last().expect("a notice");
    assert!(last.starts_with("STATUS=storage '1': Data.fs: not a FileStorage"), "{notices:?}");
    assert!(!notices.iter().any(|notice| notice.contains("READY")), "{notices:?}");
}

/// Starts a server with these sockets as its descriptors from 3 on.
fn with_sockets(manager: &mut Manager, names: &str, first: OwnedFd, second: Option<OwnedFd>) {
    let count = 1 + usize::from(second.is_some());
    let script = format!(
        "exec 3<&0 </dev/null {}; LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names} exec \"$0\" -C zeo.conf",
        if second.is_some() { "4<&1 >/dev/null" } else { "" }
    );
    let mut command = manager.command("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_runzeo")]).stdin(Stdio::from(first));
    if let Some(second) = second {
        command.stdout(Stdio::from(second));
    }
    manager.child = Some(command.spawn().unwrap());
}

/// Clients that connect during a restart wait in the manager's socket, and the restarted server serves them.
#[test]
fn a_restart_behind_a_socket_of_the_manager_refuses_no_client() {
    let mut manager = Manager::new("", FILE);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // As systemd's are.
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let unix = UnixListener::bind(manager.path("zeo.sock")).unwrap();
    for round in 0..3 {
        let waiting = thread::spawn(move || RawClient::register(address, Speaks::Z5).map(drop));
        // It is in the queue.
        TcpStream::connect(address).unwrap();
        let (first, second) = (listener.try_clone().unwrap().into(), unix.try_clone().unwrap().into());
        with_sockets(&mut manager, "zeo:zeo", first, Some(second));
        manager.until_ready();
        waiting.join().unwrap().unwrap_or_else(|error| panic!("round {round}: {error}: {}", manager.log()));
        assert!(TcpStream::connect(manager.address).is_err(), "the address of the configuration is not used");
        std::os::unix::net::UnixStream::connect(manager.path("zeo.sock")).expect("the other socket");
        assert!(manager.stop().success());
        assert!(manager.path("zeo.sock").exists(), "the manager's socket is not removed");
        manager.until(|line| line == "STOPPING=1");
    }
}

/// Those that are called zeo count; without such a name, the first.
#[test]
fn sockets_are_chosen_by_name() {
    for (names, used) in [("other:zeo", 1), ("zeo.socket:other", 0), ("", 0)] {
        let mut manager = Manager::new("", FILE);
        let listeners =
            [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let address = listeners[used].local_addr().unwrap();
        let [first, second] = listeners.map(OwnedFd::from);
        with_sockets(&mut manager, names, first, Some(second));
        manager.until_ready();
        RawClient::register(address, Speaks::Z5).map(drop).unwrap_or_else(|error| panic!("{names}: {error}"));
        let is_said = manager.log().contains("of the service manager is not used");
        assert_eq!(is_said, !names.is_empty(), "{names}: {}", manager.log());
        assert!(manager.stop().success());
    }
}

/// Sockets with the name of a `<listen>` section are for that section; an address without a socket is bound. The server
/// is ready once it listens at all of them.
#[test]
fn sockets_of_sections_are_chosen_by_their_names() {
    for (names, office, zeo) in [("office:zeo", 0, Some(1)), ("main:OFFICE", 1, Some(0)), ("office", 0, None)]
    {
        let own = free_address();
        let listen = |name: &str, address, more: &str| {
            format!("<listen {name}>\naddress {address}\n{more}\n</listen>\n")
        };
        let sections = FILE.to_string()
            + "\n"
            + &listen("office", free_address(), "read-only yes")
            + &listen("bound", own, "read-only yes");
        let mut manager = Manager::new("", &sections);
        let listeners =
            [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let [first, second] = listeners.map(OwnedFd::from);
        with_sockets(&mut manager, names, first, zeo.map(|_| second));
        manager.until_ready();
        let registers = |address| {
            let mut client = RawClient::connect(address, Speaks::Z5).unwrap();
            let args = vec![text("1"), Value::Bool(false)];
            client.call("register", args).unwrap().map_err(|(class, _)| class)
        };
        for address in [addresses[office], own] {
            assert!(registers(address).unwrap_err().contains("ReadOnlyError"), "{names}: {}", manager.log());
        }
        let writing = zeo.map_or(manager.address, |zeo| addresses[zeo]);
        registers(writing).unwrap_or_else(|class| panic!("{names}: {class}: {}", manager.log()));
        let is_said = manager.log().contains("of the service manager is not used");
        assert!(!is_said, "{names}: {}", manager.log());
        assert!(manager.stop().success());
    }
}

#[test]
fn what_is_no_listening_socket_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = fs::File::create(directory.path().join("file")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for fd in [OwnedFd::from(file), connected.into(), datagrams.into()] {
        let mut manager = Manager::new("", FILE);
        with_sockets(&mut manager, "zeo", fd, None);
        assert_eq!(manager.wait().code(), Some(1), "{}", manager.log());
        assert!(
            manager.log().contains("the socket 'zeo' of the service manager is no "),
            "{}",
            manager.log()
        );
    }
}

/// The commands that the server runs have neither the sockets nor the variables.
#[test]
fn children_inherit_nothing() {
    let sections = format!(
        "{FILE}\n<backup>\nrepository repo\ncontinuous 1s\n\
         command env > env.part; ls -l /proc/self/fd > fds; mv env.part env; cat > /dev/null\n</backup>"
    );
    let mut manager = Manager::new("", &sections);
    with_repository(manager.directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    with_sockets(&mut manager, "zeo", listener.into(), None);
    manager.until_ready();
    let (mut client, _) = RawClient::register(address, Speaks::Z5).expect("a client");
    client.commit(&[(0, 0, &record(b"first"))]).expect("connected").expect("a commit");
    let deadline = Instant::now() + PATIENCE;
    while !manager.path("env").exists() {
        assert!(Instant::now() < deadline, "no backup is sent: {}", manager.log());
        thread::sleep(Duration::from_millis(20));
    }
    let environment = fs::read_to_string(manager.path("env")).unwrap();
    assert!(environment.contains("PATH="), "{environment}");
    for name in ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        assert!(!environment.contains(name), "{environment}");
    }
    let descriptors = fs::read_to_string(manager.path("fds")).unwrap();
    assert!(!descriptors.contains("socket:"), "{descriptors}");
    assert!(manager.stop().success());
}

/// zeoctl is zdaemon with the schema of Python's server, which refuses our keys in `zeo.conf`.
#[test]
fn zdaemon_runs_a_server_with_own_keys() {
    let Some(python) = python("zeo6-py311") else { return };
    let zeoctl = python.with_file_name("zeoctl");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let address = free_address();
    let config = format!(
        "<zeo>\naddress {address}\n</zeo>\n{FILE}\n<eventlog>\n<logfile>\npath zeo.log\n</logfile>\n</eventlog>\n\
         <runner>\nprogram {} -C {}\nsocket-name {}\ndirectory {}\n</runner>\n",
        env!("CARGO_BIN_EXE_runzeo"),
        path("zeo.conf").display(),
        path("zdsock").display(),
        directory.path().display()
    );
    fs::write(path("zeo.conf"), &config).unwrap();
    fs::create_dir(path("zeo.conf.d")).unwrap();
    let own = "<zeo>\nmax-connections 1\n</zeo>\n<filestorage 1>\npack-schedule daily 03:00\npack-days 3\n</filestorage>\n";
    fs::write(path("zeo.conf.d/own.conf"), own).unwrap();
    let control = |action: &str| {
        let mut command = Command::new(&zeoctl);
        let output = command.args(["-C", "zeo.conf", action]).current_dir(directory.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text + &String::from_utf8_lossy(&output.stderr))
    };
    // The reason for all this.
    fs::write(path("zeo.conf"), config.replace("</zeo>", "max-connections 1\n</zeo>")).unwrap();
    let (code, said) = control("status");
    assert!(code != Some(0) && said.contains("'max-connections' is not a known key name"), "{code:?} {said}");
    fs::write(path("zeo.conf"), &config).unwrap();

    let (code, said) = control("start");
    let stop = Stop(&control);
    assert!(code == Some(0) && said.contains("daemon process started, pid="), "{code:?} {said}");
    let deadline = Instant::now() + PATIENCE;
    let first = loop {
        match RawClient::register(address, Speaks::Z5) {
            Ok((client, _)) => break client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    let mut second = RawClient::connect(address, Speaks::Z5).expect("a connection");
    let refused =
        second.call("register", vec![Value::Text("1".into()), Value::Bool(false)]).expect("an answer");
    assert!(format!("{refused:?}").contains("max-connections (1)"), "{refused:?}");
    drop(first);
    let (code, said) = control("status");
    assert!(code == Some(0) && said.contains("program running; pid="), "{code:?} {said}");
    fs::rename(path("zeo.log"), path("zeo.log.1")).unwrap();
    let (code, said) = control("logreopen");
    assert_eq!(code, Some(0), "{said}");
    while !path("zeo.log").exists() {
        assert!(Instant::now() < deadline, "the log is not opened again");
        thread::sleep(Duration::from_millis(20));
    }
    drop(stop);
    let (code, said) = control("status");
    assert!(code == Some(3) && said.contains("daemon manager not running"), "{code:?} {said}");
    assert!(TcpStream::connect(address).is_err());
    assert!(
        !path("Data.fs.lock").exists() || fs::read(path("Data.fs.index")).is_ok(),
        "it was stopped in order"
    );
}

/// Stops the daemon, also if the test fails.
struct Stop<'a, F: Fn(&str) -> (Option<i32>, String)>(&'a F);

impl<F: Fn(&str) -> (Option<i32>, String)> Drop for Stop<'_, F> {
    fn drop(&mut self) {
        let (code, said) = (self.0)("stop");
        let _ = writeln!(std::io::stderr(), "stop: {code:?} {said}");
    }
}

/// systemd knows every setting of the units, and finds their programs.
#[test]
fn the_units_are_understood() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    let directory = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_runzeo")).parent().unwrap().display().to_string();
    for unit in ["zeo.service", "zeo@.service", "zeo.socket", "wrong.service"] {
        let text = fs::read_to_string(units.join(unit.replace("wrong", "zeo"))).unwrap();
        let text = text.replace("/usr/bin", &programs);
        let text =
            if unit.starts_with("wrong") { text.replace("Restart=on", "Restart=sometimes") } else { text };
        fs::write(directory.path().join(unit), text).unwrap();
    }
    let verify = |unit: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(["--man=no", "verify", unit]).current_dir(directory.path()).output()
    };
    for unit in ["./zeo.service", "./zeo@main.service", "./zeo.socket", "./wrong.service"] {
        let Ok(output) = verify(unit) else {
            let _ = writeln!(std::io::stderr(), "\nSKIPPED: no systemd-analyze");
            return;
        };
        // A setting that it does not know is a warning. It may have more to say about units of this machine.
        let said = String::from_utf8_lossy(&output.stderr);
        let is_wrong = !output.status.success() || said.contains(directory.path().to_str().unwrap());
        assert_eq!(is_wrong, unit.contains("wrong"), "{unit}: {said}");
    }
}

/// systemd's own judgement of the units: 0 is safe, 10 is not.
#[test]
fn the_units_are_hardened() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    for unit in ["zeo.service", "zeo@.service"] {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(units.join(unit));
        let Ok(output) = command.output() else {
            let _ = writeln!(std::io::stderr(), "\nSKIPPED: no systemd-analyze");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("Overall exposure level"), "{unit}: {output:?}");
        assert!(output.status.success(), "{unit}: {said}");
        // Hides what tells a power cut from a crash.
        let text = fs::read_to_string(units.join(unit)).unwrap();
        assert!(!text.lines().any(|line| line.starts_with("ProcSubset=pid")), "{unit}");
    }
}
