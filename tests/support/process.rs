//! One server process with its own directory; it ends with the test.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::faults::Faults;

pub struct Server {
    pub address: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
    /// Memory limit of the process in KB.
    memory_max: Option<u64>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server with these lines in its `<zeo>` section.
    pub fn start_with(zeo: &str) -> Self {
        Self::start_storage(zeo, "")
    }

    /// The same, with lines in its `<filestorage>` section.
    pub fn start_storage(zeo: &str, storage: &str) -> Self {
        let storage = format!("<filestorage 1>\npath Data.fs\n{storage}\n</filestorage>");
        Self::start_any(zeo, &storage, |_| ())
    }

    /// A server of any storage; `prepare` may put files into its directory.
    pub fn start_any(zeo: &str, storage: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::start_logging("info", zeo, storage, prepare)
    }

    /// A server with a memory limit in KB.
    pub fn start_with_memory(kb: u64, zeo: &str, storage: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::start_by("info", Some(kb), zeo, storage, prepare, |mut command| command.spawn().ok())
            .expect("it is started")
    }

    /// The same, with this log level.
    pub fn start_logging(level: &str, zeo: &str, storage: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::start_by(level, None, zeo, storage, prepare, |mut command| command.spawn().ok())
            .expect("it is started")
    }

    /// A server whose system calls fail as ordered in `faults`. `None` if this is not supported here.
    pub fn start_failing(faults: &Faults, zeo: &str, storage: &str) -> Option<Self> {
        Self::start_by("info", None, zeo, storage, |_| (), |command| faults.spawn(command))
    }

    /// A server in a PID namespace of its own, as in a container. `None` if this cannot be made here.
    pub fn start_in_a_pid_namespace(zeo: &str) -> Option<Self> {
        let unshare = |command: &mut Command| {
            command.args(["--pid", "--fork", "--kill-child"]);
        };
        let mut probe = Command::new("unshare");
        unshare(&mut probe);
        probe.arg("true").stderr(Stdio::null()).status().ok().filter(ExitStatus::success)?;
        let storage = "<filestorage 1>\npath Data.fs\n</filestorage>";
        Self::start_by(
            "info",
            None,
            zeo,
            storage,
            |_| (),
            |command| {
                let mut outer = Command::new("unshare");
                unshare(&mut outer);
                outer.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
                outer
                    .current_dir(command.get_current_dir()?)
                    .env_remove("INSTANCE_HOME")
                    .env_remove("ZEO_MSGPACK");
                outer.spawn().ok()
            },
        )
    }

    fn start_by(
        level: &str,
        memory_max: Option<u64>,
        zeo: &str,
        storage: &str,
        prepare: impl FnOnce(&Path),
        spawn: impl FnOnce(Command) -> Option<Child>,
    ) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        prepare(directory.path());
        let address = free_address();
        let log = directory.path().join("zeo.log");
        let config = format!(
            "<zeo>\naddress {address}\n{zeo}\n</zeo>\n{storage}\n\
             <eventlog>\nlevel {level}\n<logfile>\npath {}\n</logfile>\n</eventlog>\n",
            log.display()
        );
        fs::write(directory.path().join("zeo.conf"), config).expect("write the configuration");
        let child = spawn(command(directory.path(), memory_max))?;
        let mut server = Self { address, child, directory, memory_max };
        server.wait_listening();
        // Its other addresses are bound after the first one.
        let further = zeo.lines().filter(|line| line.trim_start().starts_with("address ")).count();
        let others = further + storage.matches("<listen").count();
        if others > 0 {
            server.wait_for_log_count(") listening on ", 1 + others);
        }
        Some(server)
    }

    /// Stops, and starts again on the same files.
    pub fn restart(&mut self) {
        assert!(self.stop().success(), "{}", self.talk());
        self.child = spawn(self.directory.path(), self.memory_max);
        self.wait_listening();
    }

    /// Starts again after a kill.
    pub fn start_again(&mut self) {
        self.child = spawn(self.directory.path(), self.memory_max);
        self.wait_listening();
    }

    /// Starts a server that cannot serve, and waits for its end.
    pub fn run_to_its_end(&mut self) -> ExitStatus {
        self.child = spawn(self.directory.path(), self.memory_max);
        self.child.wait().expect("wait")
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_listening(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("the server ended at once with {status}: {}", self.talk());
            }
            assert!(Instant::now() < deadline, "the server does not listen: {}", self.talk());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its output, and the end of its log.
    pub fn talk(&self) -> String {
        let output = fs::read_to_string(self.directory().join("output.log")).unwrap_or_default();
        let log = fs::read(self.directory().join("zeo.log")).unwrap_or_default();
        let end = &log[log.len().saturating_sub(3000)..];
        format!("{output}\n{}", String::from_utf8_lossy(end))
    }

    pub fn log(&self) -> String {
        let log = fs::read(self.directory().join("zeo.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub fn count_in_log(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Waits until the log has the text.
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_log_count(text, 1);
    }

    /// Waits until the log has the text this many times, or more.
    pub fn wait_for_log_count(&self, text: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.count_in_log(text) < count {
            assert!(Instant::now() < deadline, "the log lacks {text:?}: {}", self.talk());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The answer to `ruok`.
    #[allow(dead_code)] // by another program
    pub fn ruok(&self) -> serde_json::Value {
        let mut probe = TcpStream::connect(self.address).expect("a connection");
        let frame = |probe: &mut TcpStream| {
            let mut len = [0; 4];
            probe.read_exact(&mut len).expect("a frame");
            let mut payload = vec![0; u32::from_be_bytes(len) as usize];
            probe.read_exact(&mut payload).expect("a frame");
            payload
        };
        frame(&mut probe);
        probe.write_all(b"\0\0\0\x04ruok").expect("sent");
        serde_json::from_slice(&frame(&mut probe)).expect("JSON")
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        self.status_kb("VmRSS:") * 1024
    }

    pub fn peak_rss(&self) -> u64 {
        self.status_kb("VmHWM:") * 1024
    }

    /// Resets the peak of the memory.
    pub fn reset_peak(&self) {
        // Not permitted everywhere; then the peak includes what came before, which only makes a test stricter.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    fn status_kb(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kb| kb.parse().ok()).unwrap_or(0)
    }

    /// Processor time used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The name in parentheses may contain blanks; utime and stime are the 12th and 13th field after it.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks =
            after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        // Linux counts hundredths of a second, independent of the kernel's tick.
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    pub fn fd_count(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    pub fn thread_count(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).map_or(0, Iterator::count)
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill").success(), "kill -{name}");
    }

    /// Stops the process as a debugger would, and waits until all its threads stand still.
    pub fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        let deadline = Instant::now() + Duration::from_secs(60);
        let runs = |task: &Path| {
            // A thread that has ended is gone.
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('T'))
        };
        while fs::read_dir(&tasks).expect("its threads").flatten().any(|task| runs(&task.path())) {
            assert!(Instant::now() < deadline, "the server does not stop");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM; returns how the process ended.
    pub fn stop(&mut self) -> ExitStatus {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill");
        assert!(kill.success());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end: {}", self.talk());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(directory: &Path, memory_max: Option<u64>) -> Child {
    command(directory, memory_max).spawn().expect("start the server")
}

fn command(directory: &Path, memory_max: Option<u64>) -> Command {
    let output = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("output.log"))
        .expect("output.log");
    let mut command = match memory_max {
        None => Command::new(binary()),
        Some(kb) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -d {kb} && exec \"$0\" \"$@\"")]).arg(binary());
            shell
        }
    };
    command
        .args(["-C", "zeo.conf"])
        .current_dir(directory)
        .env_remove("INSTANCE_HOME")
        .env_remove("ZEO_MSGPACK")
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("output"))
        .stderr(output);
    command
}

fn binary() -> PathBuf {
    env::var_os("RUNZEO_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_runzeo").into(), PathBuf::from)
}

/// A port that is given out only once: in this process, and most likely in others that run at the same time. It is
/// outside the range that the system gives to clients, which could take it before the server does.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + (number % 20_000) as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Duration of the long tests: `RUNZEO_TEST_SECONDS`.
pub fn test_seconds(default: u64) -> Duration {
    let seconds = env::var("RUNZEO_TEST_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(default))
}
