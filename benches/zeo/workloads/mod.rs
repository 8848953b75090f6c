//! The workloads: each drives one server and reports its figures.

mod beside;
mod blob;
pub mod commit;
mod connect;
mod contend;
mod fanout;
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
const COMMIT_OBJECTS: usize = 10;

/// The parameters of every workload.
pub struct Setting<'a> {
    pub server: &'a Running,
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
}

/// Runs a workload against a running server. (The start workloads start it themselves: [`start`].)
pub fn run(workload: Workload, setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    match workload {
        Workload::Read { clients, depth, .. } => read::read(setting, clients, depth, outcome),
        Workload::Commit { clients, .. } => commit::commit(setting, clients, outcome),
        Workload::Contend { mergeable } => contend::contend(setting, mergeable, outcome),
        Workload::Mixed => mixed::mixed(setting, outcome),
        Workload::Fanout { listeners } => fanout::fanout(setting, listeners, outcome),
        Workload::Connect { count, at_once } => connect::connect(setting, count, at_once, outcome),
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
