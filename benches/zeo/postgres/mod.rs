//! A database in PostgreSQL: this program's server, two of them, RelStorage's own clients, and this program's server
//! with a file, side by side.
//!
//! The cluster is a private one with fsync. Only one contestant runs at a time: servers are started for each
//! measurement, so that none looks for what another one commits.

mod cluster;
mod relstorage;
mod rounds;

pub use rounds::run;

use crate::client::Result;
use std::path::PathBuf;
use std::time::Duration;

/// The labels.
pub const RELSTORAGE: &str = "relstorage";
pub const OURS: &str = "ours";
pub const TWO: &str = "two";
pub const FILE: &str = "file";

/// Who is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contestant {
    /// Clients of RelStorage, each a process with its own connections to the database.
    RelStorage,
    /// Clients of one server.
    Ours,
    /// Clients of two servers of one database, half of them at each.
    Two,
    /// Clients of one server with a file.
    File,
}

impl Contestant {
    pub fn label(self) -> &'static str {
        match self {
            Contestant::RelStorage => RELSTORAGE,
            Contestant::Ours => OURS,
            Contestant::Two => TWO,
            Contestant::File => FILE,
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workload {
    Commit {
        clients: usize,
        objects: usize,
    },
    /// `cold`: without any cache of records.
    Read {
        clients: usize,
        cold: bool,
    },
    /// From the answer to a commit until a client of another server has the invalidation.
    Fanout {
        listeners: usize,
    },
    /// Connections at once, and the sessions in the database while they read and commit.
    Burst {
        count: usize,
    },
}

/// Name and meaning, for `--help`.
pub const WORKLOADS: &[(&str, &str)] = &[
    ("commit-cC", "commits of 10 objects, C clients with objects of their own; -oN: of N objects"),
    ("read-cC", "loads from the server's memory, C clients; file: from the file"),
    ("read-cC-cold", "loads without a cache of records"),
    (
        "fanout-L",
        "a client of one server commits, L of the other one listen: until the last has the invalidation",
    ),
    ("burst-C", "C connections at once; sessions of the database while they load, and 8 commit"),
];

const USUAL: &str = "commit-c1 commit-c8 commit-c32 commit-c1-o1 commit-c8-o1 commit-c32-o1 read-c1 read-c8 \
                     read-c1-cold read-c8-cold fanout-1 fanout-100 burst-1000";

impl Workload {
    /// A workload by name.
    pub fn parse(name: &str) -> Result<Workload> {
        let unknown = || format!("unknown workload {name:?} of databases: --help lists them");
        let count = |text: &str| text.parse().ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(unknown);
        if let Some(rest) = name.strip_prefix("commit-c") {
            let (clients, objects) = rest.split_once("-o").unwrap_or((rest, "10"));
            return Ok(Workload::Commit { clients: count(clients)?, objects: count(objects)? });
        }
        if let Some(rest) = name.strip_prefix("read-c") {
            let (clients, cold) = rest.strip_suffix("-cold").map_or((rest, false), |clients| (clients, true));
            return Ok(Workload::Read { clients: count(clients)?, cold });
        }
        if let Some(listeners) = name.strip_prefix("fanout-") {
            return Ok(Workload::Fanout { listeners: count(listeners)? });
        }
        match name.strip_prefix("burst-") {
            Some(clients) => Ok(Workload::Burst { count: count(clients)? }),
            None => Err(unknown()),
        }
    }

    /// Whether the contestant can do it.
    pub fn suits(self, contestant: Contestant) -> bool {
        match (self, contestant) {
            (Workload::Commit { .. }, _) => true,
            (Workload::Read { cold, .. }, Contestant::RelStorage) => cold,
            (Workload::Read { .. }, contestant) => contestant != Contestant::Two,
            (Workload::Fanout { .. }, contestant) => contestant == Contestant::Two,
            (Workload::Burst { .. }, contestant) => contestant == Contestant::Ours,
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
    /// Workloads by name.
    pub workloads: Vec<(String, Workload)>,
    pub rounds: u32,
    /// Measured time of each timed workload.
    pub measured: Duration,
    /// Number of objects in the database, and their record length.
    pub objects: usize,
    pub object_len: usize,
    /// An interpreter that has RelStorage. Where it is missing, RelStorage is left out.
    pub python: PathBuf,
    /// The directory of the file storage.
    pub dir: PathBuf,
    /// The file for the figures, as lines of JSON.
    pub results: PathBuf,
}

impl Plan {
    /// The usual one.
    pub fn usual(dir: PathBuf) -> Plan {
        Plan {
            workloads: parse_list(USUAL).unwrap_or_default(),
            rounds: 5,
            measured: Duration::from_secs(2),
            objects: 50_000,
            object_len: 1024,
            python: relstorage::default_python(),
            results: dir.join("postgres.jsonl"),
            dir,
        }
    }
}
