//! The servers under test: names, configuration, start and stop.

use crate::client::{Client, Result, Target};
use crate::sys;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The label of the built-in server that answers without a storage.
pub const LIMIT: &str = "limit";
/// The limit with a read from a file for each load.
pub const LIMIT_FILE: &str = "limit-file";
/// The label of the server built from this source tree.
pub const OURS: &str = "ours";

/// Time limit until a server answers: Python needs minutes for tens of GB without an index.
const START_TIMEOUT: Duration = Duration::from_secs(600);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// ZEO 6 with uvloop can lose a SIGTERM while it handles something else: it is sent again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(1);
/// Time limit of each reply during a workload.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// A server as named on the command line.
#[derive(Clone, Debug)]
pub struct Server {
    pub label: String,
    /// Run by the shell with `-C CONF` appended.
    pub command: String,
    /// Lines added to the `<zeo>` section.
    pub zeo_lines: Vec<String>,
    /// See [`Target::protocol`].
    pub protocol: Option<String>,
    /// Storage `1`; `None`: a file storage in the server's directory.
    pub storage: Option<String>,
    /// Further sections.
    pub further: String,
    /// It can only be read.
    pub is_replica: bool,
}

impl Server {
    /// `limit`, `limit-file`, `ours`, or `LABEL=COMMAND`. The limits answer every load with `object_len` bytes.
    pub fn parse(argument: &str, object_len: usize) -> Result<Server> {
        let (label, command) = match argument.split_once('=') {
            Some((label, command)) if !label.is_empty() && !command.trim().is_empty() => {
                (label, command.to_string())
            }
            None if [LIMIT, LIMIT_FILE].contains(&argument) => {
                let exe = std::env::current_exe().map_err(|e| format!("own program: {e}"))?;
                (argument, format!("'{}' {argument} {object_len}", exe.display()))
            }
            None if argument == OURS => (argument, format!("'{}'", env!("CARGO_BIN_EXE_runzeo"))),
            _ => {
                return Err(format!(
                    "server {argument:?}: expected '{LIMIT}', '{LIMIT_FILE}', '{OURS}' or LABEL=COMMAND"
                ));
            }
        };
        let (zeo_lines, further) = (vec![], String::new());
        let (protocol, storage, is_replica) = (None, None, false);
        Ok(Server { label: label.into(), command, zeo_lines, protocol, storage, further, is_replica })
    }

    pub fn is_limit(&self) -> bool {
        [LIMIT, LIMIT_FILE].contains(&self.label.as_str())
    }

    fn configuration(&self, dir: &Path, address: &str) -> String {
        let dir = dir.display();
        let file_storage =
            || format!("<filestorage 1>\n  path {dir}/Data.fs\n  blob-dir {dir}/blobs\n</filestorage>");
        let storage = self.storage.clone().unwrap_or_else(file_storage);
        let extra: String = self.zeo_lines.iter().map(|line| format!("  {line}\n")).collect();
        format!(
            "<zeo>\n  address {address}\n  pid-filename {dir}/zeo.pid\n{extra}</zeo>\n{storage}\n{}\
             <eventlog>\n  level INFO\n  <logfile>\n    path {dir}/log\n  </logfile>\n</eventlog>\n",
            self.further
        )
    }
}

/// A started server. Dropping it kills it.
pub struct Running {
    pub pid: u32,
    pub target: Target,
    /// From the start of the process until a connection was accepted.
    pub listening_after: Duration,
    /// From the start of the process until a registration and a lastTransaction were answered.
    pub answering_after: Duration,
    child: Child,
}

impl Running {
    /// Starts `server` on `dir/Data.fs` and waits until it answers.
    pub fn start(server: &Server, dir: &Path) -> Result<Running> {
        let address = free_address()?;
        let conf = dir.join("zeo.conf");
        let put = |path: &Path, text: &str| {
            std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
        };
        put(&conf, &server.configuration(dir, &address))?;
        let out_path = dir.join("out");
        let out = File::create(&out_path).map_err(|e| format!("{}: {e}", out_path.display()))?;
        let err = out.try_clone().map_err(|e| format!("{}: {e}", out_path.display()))?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {} -C \"$0\"", server.command)).arg(&conf);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        sys::tie_to_us(&mut command);
        let started = Instant::now();
        let child = command.spawn().map_err(|e| format!("sh: {e}"))?;
        let (protocol, read_only) = (server.protocol.clone(), server.is_replica);
        let target = Target { address, protocol, read_only, timeout: REPLY_TIMEOUT };
        let mut running = Running {
            pid: child.id(),
            target,
            listening_after: Duration::ZERO,
            answering_after: Duration::ZERO,
            child,
        };
        running
            .wait_answering(started)
            .map_err(|e| format!("{e}{}", last_lines(&[out_path, dir.join("log")])))?;
        Ok(running)
    }

    fn wait_answering(&mut self, started: Instant) -> Result<()> {
        let stream = loop {
            match TcpStream::connect(&self.target.address) {
                Ok(stream) => break stream,
                Err(e) if started.elapsed() > START_TIMEOUT => return Err(format!("does not listen: {e}")),
                Err(_) => std::thread::sleep(POLL),
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended while starting: {status}"));
            }
        };
        self.listening_after = started.elapsed();
        let mut client = Client::from_stream(stream, START_TIMEOUT)?;
        client.greet(&self.target)?;
        client.wait_registered()?;
        self.answering_after = started.elapsed();
        Ok(())
    }

    /// Stops the server as an operator does. Fails if it does not stop properly.
    pub fn stop(mut self) -> Result<()> {
        // The server first notices that its clients are gone.
        std::thread::sleep(Duration::from_millis(100));
        let started = Instant::now();
        let mut asked = 0;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return match status.signal() {
                    Some(signal) if signal != libc::SIGTERM => Err(format!("ended by signal {signal}")),
                    _ => Ok(()),
                };
            }
            if started.elapsed() >= ASK_AGAIN * asked {
                asked += 1;
                sys::terminate(self.pid);
            }
            if started.elapsed() > STOP_TIMEOUT {
                return Err("did not stop on SIGTERM; killed".into());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Confines the server's current threads, and so those that they will start, to the first `cores` cores.
    pub fn confine(&self, cores: usize) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        for thread in tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()) {
            // An error means that the thread has ended.
            let _ = sys::confine(thread, cores);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is usual.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("free port: {e}"))?;
    listener.local_addr().map(|address| address.to_string()).map_err(|e| format!("free port: {e}"))
}

fn last_lines(paths: &[PathBuf]) -> String {
    let mut said = String::new();
    for text in paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()) {
        for line in text.lines().rev().take(4).collect::<Vec<_>>().into_iter().rev() {
            said.push_str("\n    ");
            said.push_str(line);
        }
    }
    said
}
