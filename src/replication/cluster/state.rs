//! What a server keeps about its cluster: the role, and the timelines.
//!
//! A *timeline* is the history that one primary writes. Each promotion begins a new one, which continues the former
//! ones, so a cluster has a list of them; the longer list is the newer. If two replicas were promoted beside each
//! other, their lists are equally long, and the later promotion counts.
//!
//! The file is text, one fact in a line, and is replaced as a whole.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::options::Role;
use crate::base::address::Address;
use crate::base::clock::since_1970;
use crate::base::fs::{dir_of, sync_dir, with_suffix};
use crate::storage::{Result, StorageError};

const FIRST_LINE: &str = "runzeo replication 1";
/// Bytes of a state file. Each promotion adds a line.
const LEN_MAX: u64 = 1 << 20;
/// Timelines that are kept and sent. The oldest are of no use any more.
const TIMELINES_MAX: usize = 1000;
/// Bytes of a server's name.
pub const NAME_MAX: usize = 255;

/// A random number of 128 bits that names a cluster or a timeline.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Id(pub u128);

impl Id {
    /// A new one.
    pub fn new() -> io::Result<Id> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Id(u128::from_be_bytes(bytes)))
    }

    fn parse(text: &str) -> Option<Id> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Id)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The history that one primary writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timeline {
    pub id: Id,
    /// The number of the promotion that began it. The first primary's is 0.
    pub number: u64,
    /// Seconds since 1970.
    pub since: u64,
    /// The server that was promoted.
    pub by: String,
}

impl Timeline {
    /// When it began.
    pub fn began(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.since)).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// The timelines of a cluster, oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Timelines(Vec<Timeline>);

impl Timelines {
    /// As they were received or read.
    pub fn new(mut list: Vec<Timeline>) -> Timelines {
        let old = list.len().saturating_sub(TIMELINES_MAX);
        list.drain(..old);
        Timelines(list)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Timeline> {
        self.0.iter()
    }

    /// The one that is written now.
    pub fn last(&self) -> Option<&Timeline> {
        self.0.last()
    }

    /// These, with the one that a promotion of the server `by` begins.
    pub fn begun(&self, by: &str) -> io::Result<Timelines> {
        let number = self.last().map_or(0, |last| last.number.saturating_add(1));
        let timeline = Timeline { id: Id::new()?, number, since: since_1970().as_secs(), by: by.into() };
        Ok(Timelines::new(self.0.iter().cloned().chain([timeline]).collect()))
    }

    /// Whether a server with these has to give way to one with `others`: they are the newer ones.
    pub fn is_outdated_by(&self, others: &Timelines) -> bool {
        let rank = |timelines: &Timelines| timelines.last().map(|last| (last.number, last.since, last.id));
        rank(self) < rank(others)
    }
}

/// What is in the state file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterState {
    /// `None`: a replica that has not met its cluster yet.
    pub cluster: Option<Id>,
    pub role: Role,
    pub timelines: Timelines,
    /// Whether a promotion of this server was interrupted before its storages had the first transaction of the new
    /// timeline.
    pub is_unmarked: bool,
    /// The server that a replica was told to follow; `None`: whichever of its peers is the primary.
    pub follow: Option<Address>,
}

impl ClusterState {
    /// The state of a server that starts for the first time.
    pub fn first(role: Role, name: &str) -> io::Result<ClusterState> {
        let timelines = Timelines::default();
        let mut state = ClusterState { cluster: None, role, timelines, is_unmarked: false, follow: None };
        if role == Role::Primary {
            state.cluster = Some(Id::new()?);
            state.timelines = state.timelines.begun(name)?;
        }
        Ok(state)
    }

    /// Reads the file. `None`: there is none.
    ///
    /// Errors: `Io`; `Unsupported` if it is no state file, or was written by a later version.
    pub fn load(path: &Path) -> Result<Option<ClusterState>> {
        let doing = || StorageError::io(format!("reading {}", path.display()));
        let text = match fs::metadata(path).and_then(|about| match about.len() <= LEN_MAX {
            true => fs::read_to_string(path),
            false => Err(io::ErrorKind::InvalidData.into()),
        }) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(doing()(error)),
        };
        let wrong = |no: usize| {
            StorageError::Unsupported(format!(
                "{}:{}: this is not the state of a server in a cluster, or of a later version. With the file removed, the \
                 server begins with the 'role' of its configuration, and as a replica only with a Data.fs of its cluster \
                 or none",
                path.display(),
                no + 1
            ))
        };
        ClusterState::parse(&text).map(Some).map_err(wrong)
    }

    /// Writes the file, durably.
    pub fn save(&self, path: &Path) -> Result<()> {
        let part = with_suffix(path, ".new");
        let write = || {
            let mut file = fs::File::create(&part)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, path)?;
            sync_dir(dir_of(path))
        };
        write().map_err(StorageError::io(format!("writing {}", path.display())))
    }

    /// The state in a text. An error is the number of the line, from 0.
    pub fn parse(text: &str) -> std::result::Result<ClusterState, usize> {
        let (mut cluster, mut role, mut follow, mut list) = (None, None, None, Vec::new());
        let (mut is_unmarked, mut is_whole) = (false, false);
        for (no, line) in text.lines().enumerate() {
            let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
            match (what, rest) {
                _ if no == 0 => (line == FIRST_LINE).then_some(()).ok_or(no)?,
                ("cluster", id) => cluster = Some(Id::parse(id).ok_or(no)?),
                ("role", "primary") => role = Some(Role::Primary),
                ("role", "replica") => role = Some(Role::Replica),
                ("follow", address) => follow = Some(parse_address(address).ok_or(no)?),
                ("timeline", rest) => list.push(parse_timeline(rest).ok_or(no)?),
                ("unmarked", "") => is_unmarked = true,
                ("end", "") => is_whole = true,
                _ => return Err(no),
            }
        }
        let role = role.filter(|_| is_whole).ok_or_else(|| text.lines().count())?;
        Ok(ClusterState { cluster, role, timelines: Timelines::new(list), is_unmarked, follow })
    }

    /// What the file has.
    pub fn text(&self) -> String {
        let mut lines = vec![FIRST_LINE.to_string()];
        lines.extend(self.cluster.map(|cluster| format!("cluster {cluster}")));
        lines.push(format!("role {}", self.role.as_str()));
        lines.extend(self.follow.as_ref().map(|address| format!("follow {address}")));
        for Timeline { id, number, since, by } in self.timelines.iter() {
            lines.push(format!("timeline {id} {number} {since} {by}"));
        }
        lines.extend(self.is_unmarked.then(|| "unmarked".into()));
        lines.push("end\n".into());
        lines.join("\n")
    }
}

fn parse_timeline(text: &str) -> Option<Timeline> {
    let mut parts = text.splitn(4, ' ');
    Some(Timeline {
        id: Id::parse(parts.next()?)?,
        number: parts.next()?.parse().ok()?,
        since: parts.next()?.parse().ok()?,
        by: parts.next()?.into(),
    })
}

/// An address as `Display` writes it: `HOST:PORT`, or the path of a Unix socket.
pub fn parse_address(text: &str) -> Option<Address> {
    if text.starts_with('/') {
        return Some(Address::Unix(text.into()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Address::Tcp { host: (!host.is_empty()).then(|| host.into()), port: Some(port.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Data.fs.replication");
        assert_eq!(ClusterState::load(&path).unwrap(), None);
        let mut state = ClusterState::first(Role::Primary, "north of the river").unwrap();
        state.timelines = state.timelines.begun("south").unwrap();
        state.follow = Some(Address::Tcp { host: Some("::1".into()), port: Some(8110) });
        state.save(&path).unwrap();
        assert_eq!(ClusterState::load(&path).unwrap(), Some(state.clone()));
        state.role = Role::Replica;
        state.is_unmarked = true;
        state.follow = Some(Address::Unix("/run/zeo/replication".into()));
        state.save(&path).unwrap();
        assert_eq!(ClusterState::load(&path).unwrap(), Some(state));
    }

    #[test]
    fn a_file_without_its_end_or_with_an_unknown_line_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let whole = ClusterState::first(Role::Primary, "north").unwrap().text();
        for (text, line) in [
            (whole.replace("end\n", ""), 5),
            (whole.replace("role primary", "role leader"), 3),
            (whole.replace("replication 1", "replication 2"), 1),
            (String::new(), 1),
        ] {
            fs::write(&path, text).unwrap();
            let error = ClusterState::load(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}:{line}: ", path.display())), "{error}");
        }
    }

    #[test]
    fn more_promotions_are_newer_and_of_equally_many_the_later() {
        let first = ClusterState::first(Role::Primary, "north").unwrap().timelines;
        let promoted = |by: &str| first.begun(by).unwrap();
        let (mut south, mut east) = (promoted("south"), promoted("east"));
        assert!(Timelines::default().is_outdated_by(&first) && !first.is_outdated_by(&first.clone()));
        assert!(first.is_outdated_by(&south) && !south.is_outdated_by(&first));
        east.0.last_mut().unwrap().since += 1;
        assert!(south.is_outdated_by(&east) && !east.is_outdated_by(&south));
        south = south.begun("south").unwrap();
        assert!(east.is_outdated_by(&south));
    }

    #[test]
    fn old_timelines_are_forgotten_and_not_their_number() {
        let mut timelines = ClusterState::first(Role::Primary, "north").unwrap().timelines;
        for _ in 0..TIMELINES_MAX + 5 {
            timelines = timelines.begun("north").unwrap();
        }
        assert_eq!(timelines.iter().len(), TIMELINES_MAX);
        assert_eq!(timelines.last().unwrap().number as usize, TIMELINES_MAX + 5);
    }
}
