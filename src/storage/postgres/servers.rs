//! Which servers of PostgreSQL the sequencer tries: those of the connection string, or those of a file, RelStorage's
//! `replica-conf`. All other sessions go where the sequencer's is.
//!
//! The file has one server in a line; the first one is preferred. It is read when a session is opened, and looked at
//! once a second. A server that is not in it any more is left. A storage that is only read also goes back: when the
//! file has changed, and every `replica-timeout`, it tries those before its own one. One that writes stays where the
//! primary is.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::session::LOG;
use crate::base::clock::Stopwatch;
use crate::postgres::dsn::{Dsn, Host, hosts_of_lines};
use crate::postgres::peer::Peer;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of the file at most.
const LEN_MAX: u64 = 1 << 20;

/// The keys `replica-conf` and `replica-timeout`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplicaConf {
    pub path: PathBuf,
    /// After which an earlier server of the file is tried. `None`: never.
    pub timeout: Option<Duration>,
}

/// What the sequencer tries.
pub struct Servers {
    dsn: Dsn,
    file: Option<ServersFile>,
}

struct ServersFile {
    conf: ReplicaConf,
    /// As of the last time that it was read.
    hosts: Vec<Host>,
    modified: Option<SystemTime>,
    looked: Option<Stopwatch>,
    /// The present server: its place in the list, and since when it is known that no earlier one can be used.
    present: Option<(usize, Stopwatch)>,
}

/// What the file says about the present server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Advice {
    Stay,
    /// It is not in the file any more.
    Leave,
    /// One of these may be usable again.
    Try(Box<Dsn>),
}

impl Servers {
    pub fn new(dsn: Dsn, conf: Option<ReplicaConf>) -> Servers {
        let file = conf.map(|conf| ServersFile {
            conf,
            hosts: Vec::new(),
            modified: None,
            looked: None,
            present: None,
        });
        Servers { dsn, file }
    }

    /// Where to connect. Reads the file; one that cannot be read any more is taken as it was.
    ///
    /// Errors: it cannot be read and never was; it names no server, or a line is none.
    pub fn dsn(&mut self) -> Result<Dsn, String> {
        let mut dsn = self.dsn.clone();
        if let Some(file) = &mut self.file {
            file.read(self.dsn.port())?;
            dsn.hosts.clone_from(&file.hosts);
        }
        Ok(dsn)
    }

    /// A session at this server is used from now on.
    pub fn chosen(&mut self, peer: &Peer) {
        if let Some(file) = &mut self.file {
            file.present = file.place(peer).map(|place| (place, Stopwatch::start()));
        }
    }

    /// Asked often. `peer`: the present server.
    pub fn advice(&mut self, peer: &Peer, read_only: bool) -> Advice {
        let port = self.dsn.port();
        let Some(file) = &mut self.file else { return Advice::Stay };
        if file.looked.is_some_and(|looked| looked.passed() < LOOK) {
            return Advice::Stay;
        }
        file.looked = Some(Stopwatch::start());
        let modified = file.modified_now();
        let has_changed = modified.is_some() && file.modified != modified;
        if has_changed {
            let Ok(()) = file.read(port) else { return Advice::Stay };
            let Some(place) = file.place(peer) else { return Advice::Leave };
            file.present = Some((place, Stopwatch::start()));
        }
        let Some((place, since)) = file.present else { return Advice::Stay };
        let is_due = has_changed || file.conf.timeout.is_some_and(|timeout| since.passed() >= timeout);
        if !read_only || !is_due || place == 0 {
            return Advice::Stay;
        }
        file.present = Some((place, Stopwatch::start()));
        let mut dsn = self.dsn.clone();
        dsn.hosts = file.hosts.iter().take(place).cloned().collect();
        Advice::Try(Box::new(dsn))
    }
}

impl ServersFile {
    fn modified_now(&self) -> Option<SystemTime> {
        fs::metadata(&self.conf.path).and_then(|found| found.modified()).ok()
    }

    fn read(&mut self, port: u16) -> Result<(), String> {
        // The time first: a change during the reading is read again.
        let modified = self.modified_now();
        if modified.is_some() && modified == self.modified {
            return Ok(());
        }
        let path = self.conf.path.display();
        let read = fs::metadata(&self.conf.path).and_then(|found| match found.len() {
            ..=LEN_MAX => fs::read_to_string(&self.conf.path),
            _ => Err(std::io::ErrorKind::FileTooLarge.into()),
        });
        match read {
            Ok(text) => {
                match hosts_of_lines(&text, port) {
                    Ok(hosts) => self.hosts = hosts,
                    Err(error) if self.hosts.is_empty() => return Err(format!("{path}: {error}")),
                    // Until it is corrected, and so changed again.
                    Err(error) => log::warn!(target: LOG, "{path}: {error}; the former servers stay"),
                }
                self.modified = modified;
                Ok(())
            }
            Err(_) if !self.hosts.is_empty() => Ok(()),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }

    fn place(&self, peer: &Peer) -> Option<usize> {
        self.hosts.iter().position(|host| host.host == peer.host && host.port == peer.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::peer::SocketPlace;

    fn peer(host: &str) -> Peer {
        Peer { host: host.into(), port: 5432, place: SocketPlace::Unix("".into()) }
    }

    /// Servers of a file with these lines, which was looked at long ago.
    fn servers(lines: &str, timeout: Option<Duration>) -> (tempfile::TempDir, Servers) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("replicas");
        fs::write(&path, lines).unwrap();
        let dsn = Dsn::parse("host=other dbname=d user=u", &|_| None).unwrap();
        (dir, Servers::new(dsn, Some(ReplicaConf { path, timeout })))
    }

    fn names(dsn: &Dsn) -> Vec<&str> {
        dsn.hosts.iter().map(|host| host.host.as_str()).collect()
    }

    fn look(servers: &mut Servers, present: &str, read_only: bool) -> Advice {
        if let Some(file) = &mut servers.file {
            file.looked = None;
        }
        servers.advice(&peer(present), read_only)
    }

    #[test]
    fn the_servers_of_the_file_are_tried_in_their_order() {
        let (_dir, mut servers) = servers("# preferred\none\n\ntwo\n", None);
        assert_eq!(names(&servers.dsn().unwrap()), ["one", "two"]);
        servers.chosen(&peer("two"));
        assert_eq!(look(&mut servers, "two", true), Advice::Stay);
    }

    #[test]
    fn after_the_time_the_earlier_ones_are_tried_again() {
        let (_dir, mut servers) = servers("one\ntwo\nthree\n", Some(Duration::ZERO));
        servers.dsn().unwrap();
        servers.chosen(&peer("three"));
        match look(&mut servers, "three", true) {
            Advice::Try(dsn) => assert_eq!(names(&dsn), ["one", "two"]),
            other => panic!("{other:?}"),
        }
        assert_eq!(look(&mut servers, "three", false), Advice::Stay, "a writer stays at its primary");
        servers.chosen(&peer("one"));
        assert_eq!(look(&mut servers, "one", true), Advice::Stay);
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let (dir, mut servers) = servers("one\ntwo\n", None);
        let path = dir.path().join("replicas");
        servers.dsn().unwrap();
        servers.chosen(&peer("two"));
        // As if it were changed at another time.
        let forget = |servers: &mut Servers| servers.file.as_mut().unwrap().modified = None;
        fs::write(&path, "new\ntwo\n").unwrap();
        forget(&mut servers);
        match look(&mut servers, "two", true) {
            Advice::Try(dsn) => assert_eq!(names(&dsn), ["new"]),
            other => panic!("{other:?}"),
        }
        fs::write(&path, "not [a host\n").unwrap();
        forget(&mut servers);
        // The former list holds, and with it its first server is tried.
        assert!(matches!(look(&mut servers, "two", true), Advice::Try(_)));
        assert_eq!(names(&servers.dsn().unwrap()), ["new", "two"]);
        fs::write(&path, "new\n").unwrap();
        forget(&mut servers);
        assert_eq!(look(&mut servers, "two", false), Advice::Leave);
        fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut servers, "new", true), Advice::Stay);
        assert_eq!(names(&servers.dsn().unwrap()), ["new"], "what was read last");
    }

    #[test]
    fn a_file_that_was_never_read_is_an_error() {
        for lines in ["", "# none\n", "one:port\n", "a,b\n"] {
            let (_dir, mut servers) = servers(lines, None);
            let error = servers.dsn().unwrap_err();
            assert!(error.contains("replicas: "), "{lines:?}: {error}");
        }
        let dsn = Dsn::parse("host=other dbname=d user=u", &|_| None).unwrap();
        let conf = ReplicaConf { path: "/does/not/exist".into(), timeout: None };
        assert!(Servers::new(dsn, Some(conf)).dsn().unwrap_err().contains("/does/not/exist: "));
    }
}
