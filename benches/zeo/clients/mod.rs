//! Clients of one server compared: this program's library, Python's `ClientStorage`, and the raw protocol. And servers
//! in the middle: this program's, Python's, and none.
//!
//! The server is always the one of this source tree, except where a workload says something else.

mod library;
mod open;
mod proxy;
mod python;
mod reconnect;
mod rounds;
mod through;

pub use open::{COMMAND as OPEN_COMMAND, open_cache};
pub use python::take_figures;
pub use rounds::run;

use crate::client::Result;
use std::path::PathBuf;
use std::time::Duration;

/// The label of the raw protocol, without a cache and without a server in the middle.
pub const RAW: &str = "raw";
/// The label of this program's client.
pub const OURS: &str = "ours";

/// Who is measured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    Raw,
    Ours,
    /// An interpreter that has ZEO, with its `runzeo` beside it.
    Python(PathBuf),
}

/// A client with its name.
#[derive(Clone, Debug)]
pub struct Contestant {
    pub label: String,
    pub kind: Kind,
}

impl Contestant {
    /// `raw`, `ours`, or `LABEL=PYTHON`.
    pub fn parse(argument: &str) -> Result<Contestant> {
        let kind = match argument {
            RAW => Kind::Raw,
            OURS => Kind::Ours,
            _ => match argument.split_once('=') {
                Some((label, python)) if !label.is_empty() && !python.is_empty() => {
                    return Ok(Contestant { label: label.into(), kind: Kind::Python(python.into()) });
                }
                _ => {
                    return Err(format!("client {argument:?}: expected '{RAW}', '{OURS}' or LABEL=PYTHON"));
                }
            },
        };
        Ok(Contestant { label: argument.into(), kind })
    }
}

/// What a client has missed when it comes back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missed {
    Nothing,
    /// What the server remembers.
    Few,
    /// More than that.
    Many,
    /// The same, with a server that can be asked about each object: Python's ZEO 4.
    ManyAtOldServer,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workload {
    /// `from_file`: this program's client keeps nothing in memory.
    Warm {
        threads: usize,
        from_file: bool,
    },
    Cold {
        threads: usize,
    },
    ColdMany,
    Commits {
        threads: usize,
    },
    Reconnect(Missed),
    Open,
    ThroughLoads,
    ThroughCommits,
}

/// Name and meaning, for `--help`.
pub const WORKLOADS: &[(&str, &str)] = &[
    ("warm-tT", "loads of cached objects, T threads of one client"),
    ("file-tT", "the same from the file of the cache: nothing is kept in memory"),
    ("cold-tT", "loads of objects that are not cached; raw: T connections"),
    ("cold-many", "the same by one thread, 8 at a time; raw: 8 requests outstanding"),
    ("commits-tT", "commits of 10 objects, T threads of one client; raw: T connections"),
    (
        "reconnect-quick",
        "all objects are cached, the connection breaks, nothing is missed: until it is usable again",
    ),
    ("reconnect-queue", "the same; 1000 objects were changed meanwhile, and the server remembers which"),
    ("reconnect-full", "the same; the server does not remember all that was changed"),
    ("reconnect-verify", "the same with a server of ZEO 4 (--old-server), which answers about each object"),
    ("open", "opens the file of a full cache, of --cache bytes: after an orderly end, and after a kill"),
    (
        "through-loads",
        "8 raw clients load what a server in the middle has cached; raw: no server in the middle",
    ),
    ("through-commits", "8 raw clients commit through it"),
];

/// All workloads but the one that needs a server of ZEO 4.
pub const USUAL: &str = "warm-t1 warm-t8 file-t1 file-t8 cold-t1 cold-t8 cold-many commits-t1 commits-t8 reconnect-quick \
                         reconnect-queue reconnect-full open through-loads through-commits";

impl Workload {
    /// A workload by name.
    pub fn parse(name: &str) -> Result<Workload> {
        let unknown = || format!("unknown workload {name:?} of clients: --help lists them");
        let threads = |text: &str| {
            let count = text.strip_prefix('t').and_then(|count| count.parse().ok());
            count.filter(|count| (1..=64).contains(count)).ok_or_else(unknown)
        };
        Ok(match name.split_once('-') {
            Some(("cold", "many")) => Workload::ColdMany,
            Some(("warm", count)) => Workload::Warm { threads: threads(count)?, from_file: false },
            Some(("file", count)) => Workload::Warm { threads: threads(count)?, from_file: true },
            Some(("cold", count)) => Workload::Cold { threads: threads(count)? },
            Some(("commits", count)) => Workload::Commits { threads: threads(count)? },
            Some(("reconnect", "quick")) => Workload::Reconnect(Missed::Nothing),
            Some(("reconnect", "queue")) => Workload::Reconnect(Missed::Few),
            Some(("reconnect", "full")) => Workload::Reconnect(Missed::Many),
            Some(("reconnect", "verify")) => Workload::Reconnect(Missed::ManyAtOldServer),
            Some(("through", "loads")) => Workload::ThroughLoads,
            Some(("through", "commits")) => Workload::ThroughCommits,
            None if name == "open" => Workload::Open,
            _ => return Err(unknown()),
        })
    }

    /// Whether the client can do it.
    pub fn suits(self, contestant: &Contestant) -> bool {
        let has_cache = matches!(self, Workload::Warm { .. } | Workload::Reconnect(_) | Workload::Open);
        match contestant.kind {
            Kind::Raw => !has_cache,
            Kind::Ours => true,
            Kind::Python(_) => self != Workload::ColdMany,
        }
    }
}

/// Workloads separated by blanks or commas.
pub fn parse_list(names: &str) -> Result<Vec<(String, Workload)>> {
    let names = names.split([' ', ',', '\n']).filter(|name| !name.is_empty());
    names.map(|name| Ok((name.to_string(), Workload::parse(name)?))).collect()
}

/// A complete plan.
#[derive(Debug)]
pub struct Plan {
    pub contestants: Vec<Contestant>,
    /// Workloads by name.
    pub workloads: Vec<(String, Workload)>,
    pub rounds: u32,
    /// Measured time of each timed workload.
    pub measured: Duration,
    /// Number of objects in the database, and their record length.
    pub objects: usize,
    pub object_len: usize,
    /// Size of the file of the workload `open`, in bytes.
    pub cache_len: u64,
    /// The command of a server of ZEO 4, started as `COMMAND -C CONF`.
    pub old_server: Option<String>,
    /// The directory of the databases.
    pub dir: PathBuf,
    /// The file for the figures, as lines of JSON.
    pub results: PathBuf,
}

impl Plan {
    /// The usual one.
    pub fn usual(dir: PathBuf) -> Plan {
        Plan {
            contestants: vec![],
            workloads: parse_list(USUAL).unwrap_or_default(),
            rounds: 3,
            measured: Duration::from_millis(500),
            objects: 100_000,
            object_len: 1024,
            cache_len: 1 << 30,
            old_server: None,
            results: dir.join("client.jsonl"),
            dir,
        }
    }
}
