//! The thread that looks after the role: a primary asks its peers whether another server was promoted; a replica looks
//! for the trigger file, and whether it is too far behind.

use std::fs;
use std::io;
use std::time::Duration;

use super::change::{Promotion, give_way, promote};
use super::dial::ask;
use super::options::Role;
use super::this_server::ThisServer;
use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::sync::Arc;
use crate::storage::{Result, StorageError};

use super::pace::LOG;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(1);
/// Time for the answer of a peer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Until the server stops.
pub fn watch(node: &Arc<ThisServer>, cancel: &Cancel) {
    while !node.is_stopping() {
        match node.role() {
            Role::Primary => ask_peers(node, cancel),
            Role::Replica => {
                check_trigger(node);
                check_staleness(node);
            }
        }
        node.wait(ROUND);
    }
}

fn ask_peers(node: &Arc<ThisServer>, cancel: &Cancel) {
    for address in &node.options.peers {
        // A peer that is not there knows nothing newer.
        let Ok(standing) = ask(node, address, cancel, ANSWER_MAX) else { continue };
        if node.is_outdated_by(standing.cluster, &standing.timelines) {
            return give_way(node, &standing.name, &standing.timelines);
        }
    }
}

/// Before a server that was the primary serves: whether another one was promoted while it was down.
///
/// Errors: this server would begin a cluster of its own beside one that is there.
pub fn ask_before_start(node: &Arc<ThisServer>) -> Result<()> {
    if node.role() == Role::Replica {
        return Ok(());
    }
    let is_first = !node.options.state.exists();
    let cancel = Cancel::default();
    for address in &node.options.peers {
        let Ok(standing) = ask(node, address, &cancel, ANSWER_MAX) else { continue };
        if is_first && standing.cluster.is_some() {
            return Err(other_cluster(node, address, &standing.name));
        }
        if node.is_outdated_by(standing.cluster, &standing.timelines) {
            let by = standing.timelines.last().map_or("another server", |last| &last.by);
            log::warn!(
                target: LOG,
                "{by} was promoted while this server was down: it starts as a replica ({} at {address} says so)",
                standing.name
            );
            return node.change(|saved| saved.role = Role::Replica);
        }
    }
    Ok(())
}

fn other_cluster(node: &ThisServer, address: &Address, name: &str) -> StorageError {
    StorageError::Unsupported(format!(
        "<replication> says 'role primary' and there is no {}, so this server would begin a new cluster, but its peer {name} \
         at {address} belongs to one already. Say 'role replica', or bring the state file back",
        node.options.state.display()
    ))
}

fn check_trigger(node: &Arc<ThisServer>) {
    let Some(path) = &node.options.trigger else { return };
    match fs::remove_file(path) {
        Ok(()) => {
            log::warn!(target: LOG, "{} asks for a promotion", path.display());
            if let Err(why) = promote(node, &Promotion { wait: Duration::ZERO, force: true }) {
                log::error!(target: LOG, "no promotion: {why}");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            log::error!(target: LOG, "{} cannot be removed, so it is ignored: {error}", path.display())
        }
    }
}

fn check_staleness(node: &Arc<ThisServer>) {
    let Some(max) = node.options.max_staleness else { return };
    for member in node.members() {
        let is_stale = member.behind().is_none_or(|lag| lag.time > max);
        if member.set_stale(is_stale) {
            if is_stale {
                log::warn!(target: LOG, "storage '{}': too far behind the primary for its clients", member.name);
                member.disconnect_clients("its server is too far behind the primary");
            } else {
                log::info!(target: LOG, "storage '{}': near enough to the primary for its clients", member.name);
            }
        }
    }
}
