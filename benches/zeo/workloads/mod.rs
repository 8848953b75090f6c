//! The workloads: each drives one server and reports its figures.

mod beside;
mod blob;
pub mod commit;
pub mod connect;
mod contend;
pub mod fanout;
mod fill;
mod iterate;
mod mixed;
mod pack;
pub mod read;
mod resolve;
mod start;
mod undolog;
pub mod workers;

pub use fill::{age, fill};
pub use start::start;

use crate::client::{Result, Target};
use crate::outcome::Outcome;
use crate::plan::Workload;
use crate::servers::Running;
use crate::wire::Id8;
use std::path::Path;
use std::time::Duration;

/// Number of objects in a commit.
pub const COMMIT_OBJECTS: usize = 10;

/// The parameters of every workload.
pub struct Setting<'a> {
    pub server: &'a Running,
    /// Another server of the same database, which has every second client, and the listeners of `fanout`.
    pub second: Option<&'a Running>,
    /// The directory of its database.
    pub dir: &'a Path,
    /// The objects to load.
    pub oids: &'a [Id8],
    pub object_len: usize,
    pub measured: Duration,
}

impl Setting<'_> {
    pub fn target(&self) -> &Target {
        &self.server.target
    }

    /// Where client `number` connects.
    pub fn target_of(&self, number: u64) -> &Target {
        match self.second {
            Some(second) if number.is_multiple_of(2) => &second.target,
            _ => self.target(),
        }
    }

    /// Where those connect that are to hear of what others commit.
    pub fn listeners_target(&self) -> &Target {
        self.second.map_or(self.target(), |second| &second.target)
    }

    pub fn pids(&self) -> Vec<u32> {
        [Some(self.server), self.second].into_iter().flatten().map(|server| server.pid).collect()
    }
}

/// Runs a workload against a running server. (The start workloads start it themselves: [`start`].)
pub fn run(workload: Workload, setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    match workload {
        Workload::Read { clients, depth, .. } => read::read(setting, clients, depth, outcome),
        Workload::Commit { clients, .. } => commit::commit(setting, clients, COMMIT_OBJECTS, outcome),
        Workload::Contend { mergeable } => contend::contend(setting, mergeable, outcome),
        Workload::Mixed => mixed::mixed(setting, outcome),
        Workload::Fanout { listeners } => fanout::fanout(setting, listeners, outcome),
        Workload::Connect { count, at_once } => connect::connect(setting, count, at_once, outcome).map(drop),
        Workload::Pack { beside } => pack::pack(setting, beside, outcome),
        Workload::BesideCommits => beside::commits(setting, outcome),
        Workload::BesidePack => beside::pack(setting, outcome),
        Workload::UndoLog => undolog::undolog(setting, outcome),
        Workload::Iterate => iterate::iterate(setting, outcome),
        Workload::BlobUp => blob::up(setting, outcome),
        Workload::BlobDown => blob::down(setting, outcome),
        Workload::Resolve(mergeable) => resolve::resolve(setting, mergeable, outcome),
        Workload::Start { .. } => Err("a start workload starts its server itself".into()),
    }
}
