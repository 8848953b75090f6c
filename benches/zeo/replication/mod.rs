//! Servers of a cluster: a server alone, with an asynchronous replica, and with a synchronous one; and a replica that
//! begins with nothing, beside a plain copy of the file.
//!
//! All is on one machine, and its disks and cores are shared by both servers: what a replica costs its primary on
//! machines of their own is less.

mod rounds;

pub use rounds::run;

use crate::client::Result;
use std::path::PathBuf;
use std::time::Duration;

/// The labels.
pub const ALONE: &str = "alone";
pub const ASYNCHRONOUS: &str = "asynchronous";
pub const SYNCHRONOUS: &str = "synchronous";
pub const COPY: &str = "copy";

/// Who is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contestant {
    /// A server without `<replication>`.
    Alone,
    /// A primary whose replica no commit waits for.
    Asynchronous,
    /// A primary whose commits wait until a replica has them on its disk.
    Synchronous,
    /// No server: the file is copied and synced.
    Copy,
}

impl Contestant {
    pub const ALL: [Contestant; 4] =
        [Contestant::Alone, Contestant::Asynchronous, Contestant::Synchronous, Contestant::Copy];

    pub fn label(self) -> &'static str {
        match self {
            Contestant::Alone => ALONE,
            Contestant::Asynchronous => ASYNCHRONOUS,
            Contestant::Synchronous => SYNCHRONOUS,
            Contestant::Copy => COPY,
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
    /// From the start of an empty replica until it has everything on its disk.
    CatchUp,
}

/// Name and meaning, for `--help`.
pub const WORKLOADS: &[(&str, &str)] = &[
    ("commit-cC", "commits of 1 object, C clients with objects of their own; -oN: of N objects"),
    ("catch-up", "an empty replica, until it has the whole file; copy: the file is copied and synced"),
];

const USUAL: &str = "commit-c1 commit-c8 commit-c32 catch-up";

impl Workload {
    /// A workload by name.
    pub fn parse(name: &str) -> Result<Workload> {
        let unknown = || format!("unknown workload {name:?} of replication: --help lists them");
        if name == "catch-up" {
            return Ok(Workload::CatchUp);
        }
        let count = |text: &str| text.parse().ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(unknown);
        let rest = name.strip_prefix("commit-c").ok_or_else(unknown)?;
        let (clients, objects) = rest.split_once("-o").unwrap_or((rest, "1"));
        Ok(Workload::Commit { clients: count(clients)?, objects: count(objects)? })
    }

    /// Whether the contestant can do it.
    pub fn suits(self, contestant: Contestant) -> bool {
        match self {
            Workload::Commit { .. } => contestant != Contestant::Copy,
            Workload::CatchUp => matches!(contestant, Contestant::Asynchronous | Contestant::Copy),
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
    /// Number of objects in the file, and their record length.
    pub objects: usize,
    pub object_len: usize,
    /// The directory of the files.
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
            objects: 200_000,
            object_len: 1024,
            results: dir.join("replication.jsonl"),
            dir,
        }
    }
}
