//! What is measured: workloads by name, and the two usual plans.

use crate::client::Result;
use crate::servers::Server;
use std::path::PathBuf;
use std::time::Duration;

/// One kind of load. [`Workload::parse`] reads its name from the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workload {
    /// Every client keeps `depth` loads outstanding.
    Read {
        clients: usize,
        depth: usize,
        pinned: bool,
    },
    /// Every client commits objects of its own.
    Commit {
        clients: usize,
        pinned: bool,
    },
    /// Clients commit to a few objects and conflict.
    Contend {
        mergeable: bool,
    },
    /// Readers and writers together.
    Mixed,
    /// From sending tpc_finish until the last listener has the invalidation.
    Fanout {
        listeners: usize,
    },
    /// Connections one after the other, or all at once.
    Connect {
        count: usize,
        at_once: bool,
    },
    /// From starting the process until it answers.
    Start {
        indexed: bool,
    },
    /// A pack with garbage collection of a file that is half garbage.
    Pack {
        beside: bool,
    },
    /// The loss of readers to commits, and to a pack, beyond the processor time of these.
    BesideCommits,
    BesidePack,
    /// The newest transactions, as requested for an undo page.
    UndoLog,
    /// All records of the file, one call each, as for a copy.
    Iterate,
    /// Large blobs.
    BlobUp,
    BlobDown,
    /// Stale stores that the server merges.
    Resolve(Mergeable),
}

/// A class whose conflicts are merged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mergeable {
    Length,
    BTree,
    /// A class that only Python knows: `ours` needs a line `conflict-resolver`.
    Application,
}

/// Name and meaning, for `--help`.
pub const WORKLOADS: &[(&str, &str)] = &[
    ("read-cC", "loads, C clients with one request outstanding each; -dD: D requests outstanding"),
    ("commit-cC", "commits of 10 objects, C clients with objects of their own"),
    (
        "...-pin",
        "read or commit with server and clients on one core: the row to compare single requests with",
    ),
    ("contend", "8 clients commit 2 of 10 hot objects each and retry on conflicts"),
    ("contend-length", "the same with objects of BTrees.Length, whose conflicts the server resolves"),
    ("mixed", "8 clients load and 2 commit"),
    ("fanout-L", "one client commits, L listen: until the last listener has the invalidation"),
    ("connect-C", "C connections one after the other, to a fresh server; memory per connection"),
    ("burst-C", "the same with all connections at once"),
    ("start-scan", "from starting the process until it answers, without an index"),
    ("start-index", "the same with the index; memory per object"),
    ("pack-alone", "a pack with garbage collection; half of the file is garbage"),
    ("pack-beside", "the same beside one client that loads and one that commits"),
    (
        "beside-commits",
        "8 clients load, then 2 commit, then both: what the readers keep of their rate beyond the commits' CPU",
    ),
    ("beside-pack", "the same with a pack"),
    ("undolog", "undoLog of the newest 20 transactions"),
    ("iterate", "all records, one call each"),
    ("blob-up, blob-down", "one client stores blobs of 64 MB, or fetches them"),
    ("resolve-length", "stale stores of BTrees.Length, 1000 in a commit, that the server merges"),
    ("resolve-btree", "the same with small IOBTrees"),
    (
        "resolve-class",
        "the same with an application's class; for ours add --zeo ours='conflict-resolver PYTHON'",
    ),
];

const QUICK: &str = "read-c1-pin read-c8 read-c32 read-c1-d16 commit-c1-pin commit-c1 commit-c8 contend mixed \
                     fanout-10 fanout-100 burst-1000 start-scan start-index pack-alone pack-beside undolog \
                     iterate blob-up blob-down resolve-length resolve-btree";
const FULL: &str = "read-c1-pin read-c8 read-c32 read-c128 read-c1-d16 commit-c1-pin commit-c1 commit-c8 commit-c32 \
                    contend contend-length mixed beside-commits fanout-10 fanout-100 fanout-500 connect-1000 \
                    connect-10000 burst-1000 start-scan start-index pack-alone pack-beside beside-pack undolog \
                    iterate blob-up blob-down resolve-length resolve-btree";

impl Workload {
    pub fn parse(name: &str) -> Result<Workload> {
        let unknown = || format!("unknown workload {name:?}; see --help");
        let count = |text: &str| text.parse().ok().filter(|n| *n > 0).ok_or_else(unknown);
        let (base, pinned) = name.strip_suffix("-pin").map_or((name, false), |base| (base, true));
        if let Some(rest) = base.strip_prefix("read-c") {
            let (clients, depth) = rest.split_once("-d").unwrap_or((rest, "1"));
            return Ok(Workload::Read { clients: count(clients)?, depth: count(depth)?, pinned });
        }
        if let Some(clients) = base.strip_prefix("commit-c") {
            return Ok(Workload::Commit { clients: count(clients)?, pinned });
        }
        Ok(match name.split_once('-') {
            None if name == "contend" => Workload::Contend { mergeable: false },
            Some(("contend", "length")) => Workload::Contend { mergeable: true },
            None if name == "mixed" => Workload::Mixed,
            Some(("fanout", n)) => Workload::Fanout { listeners: count(n)? },
            Some(("connect", n)) => Workload::Connect { count: count(n)?, at_once: false },
            Some(("burst", n)) => Workload::Connect { count: count(n)?, at_once: true },
            Some(("start", "scan")) => Workload::Start { indexed: false },
            Some(("start", "index")) => Workload::Start { indexed: true },
            Some(("pack", "alone")) => Workload::Pack { beside: false },
            Some(("pack", "beside")) => Workload::Pack { beside: true },
            Some(("beside", "commits")) => Workload::BesideCommits,
            Some(("beside", "pack")) => Workload::BesidePack,
            None if name == "undolog" => Workload::UndoLog,
            None if name == "iterate" => Workload::Iterate,
            Some(("blob", "up")) => Workload::BlobUp,
            Some(("blob", "down")) => Workload::BlobDown,
            Some(("resolve", "length")) => Workload::Resolve(Mergeable::Length),
            Some(("resolve", "btree")) => Workload::Resolve(Mergeable::BTree),
            Some(("resolve", "class")) => Workload::Resolve(Mergeable::Application),
            _ => return Err(unknown()),
        })
    }

    /// Whether server and clients share one core.
    pub fn is_pinned(self) -> bool {
        matches!(self, Workload::Read { pinned: true, .. } | Workload::Commit { pinned: true, .. })
    }

    /// Whether the workload needs a freshly started server.
    pub fn wants_fresh_server(self) -> bool {
        use Workload::{Connect, Start};
        matches!(self, Connect { .. } | Start { .. }) || self.packs()
    }

    /// Whether the workload needs a file that is half garbage.
    pub fn packs(self) -> bool {
        matches!(self, Workload::Pack { .. } | Workload::BesidePack)
    }

    /// Whether the workload suits the server. The limit supports loads and commits; it detects no conflicts, opens no
    /// file, and starves its writers on a busy machine.
    pub fn suits(self, server: &Server) -> bool {
        use Workload::{Commit, Connect, Fanout, Read};
        let known = matches!(self, Read { .. } | Commit { .. } | Fanout { .. } | Connect { .. });
        known || !server.is_limit()
    }
}

/// A complete plan.
#[derive(Debug)]
pub struct Plan {
    pub servers: Vec<Server>,
    /// Workloads by name.
    pub workloads: Vec<(String, Workload)>,
    pub rounds: u32,
    /// Measured time of each timed workload.
    pub measured: Duration,
    /// Number of objects to load, and their record length.
    pub objects: usize,
    pub object_len: usize,
    /// The file of the start workloads; `None`: the file of the loads.
    pub start_file: Option<OtherFile>,
    /// The file of the pack workloads, in which every object is stored twice; `None`: the file of the loads, with each
    /// object stored again.
    pub pack_file: Option<OtherFile>,
    /// The directory of the databases.
    pub dir: PathBuf,
    /// The file for the figures, as lines of JSON.
    pub results: PathBuf,
}

/// A file for some workloads only.
#[derive(Clone, Copy, Debug)]
pub struct OtherFile {
    pub objects: usize,
    pub object_len: usize,
}

impl Plan {
    /// A quick overview, within 3 minutes for three servers.
    pub fn quick(dir: PathBuf) -> Plan {
        Plan {
            servers: vec![],
            workloads: parse_list(QUICK).unwrap_or_default(),
            rounds: 3,
            measured: Duration::from_millis(500),
            objects: 100_000,
            object_len: 1024,
            start_file: None,
            pack_file: None,
            results: dir.join("quick.jsonl"),
            dir,
        }
    }

    /// Figures for publication.
    pub fn full(dir: PathBuf) -> Plan {
        Plan {
            workloads: parse_list(FULL).unwrap_or_default(),
            rounds: 5,
            measured: Duration::from_millis(1500),
            start_file: Some(OtherFile { objects: 1_000_000, object_len: 800 }),
            // Large enough to make the syncs at the end insignificant.
            pack_file: Some(OtherFile { objects: 400_000, object_len: 800 }),
            results: dir.join("full.jsonl"),
            ..Plan::quick(dir)
        }
    }
}

/// Workloads separated by blanks or commas.
pub fn parse_list(names: &str) -> Result<Vec<(String, Workload)>> {
    let names = names.split([' ', ',', '\n']).filter(|name| !name.is_empty());
    names.map(|name| Ok((name.to_string(), Workload::parse(name)?))).collect()
}
