//! The thread that looks after the role: a primary asks its peers whether another server was promoted; a replica looks
//! for the trigger file, and whether it is too far behind.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use super::change::{Promotion, give_way, promote};
use super::dial::ask;
use super::message::Standing;
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

/// Until the server stops. `cancels`: end the questions to each peer.
pub fn watch(node: &Arc<ThisServer>, cancels: &[Cancel]) {
    while !node.is_stopping() {
        match node.role() {
            Role::Primary => ask_peers(node, cancels),
            Role::Replica => {
                check_trigger(node);
                check_staleness(node);
            }
        }
        node.wait(ROUND);
    }
}

/// All at once: one that does not answer delays nothing.
fn ask_peers(node: &Arc<ThisServer>, cancels: &[Cancel]) {
    let asked = node.lease.now();
    let peers = &node.options.peers;
    let standings: Vec<Standing> = thread::scope(|scope| {
        let ask = |(address, cancel)| scope.spawn(move || ask(node, address, cancel, ANSWER_MAX).ok());
        let asking: Vec<_> = peers.iter().zip(cancels).map(ask).collect();
        asking.into_iter().filter_map(|answer| answer.join().ok().flatten()).collect()
    });
    for standing in &standings {
        // A peer that is not there knows nothing newer.
        if node.is_outdated_by(standing.cluster, &standing.timelines) {
            return give_way(node, &standing.name, &standing.timelines);
        }
    }
    let cluster = node.saved().cluster;
    let confirming = standings.iter().filter(|standing| standing.cluster == cluster).count();
    // Itself as well.
    if 2 * (confirming + 1) > peers.len() + 1 {
        node.lease.confirm(asked);
    }
    follow_lease(node);
}

/// Writing is allowed as long as the lease is valid.
fn follow_lease(node: &Arc<ThisServer>) {
    // Whoever changes the role looks at the lease.
    let Some(_changing) = node.changing.try_lock() else { return };
    if node.options.lease.is_none() || node.role() == Role::Replica {
        return;
    }
    let is_valid = node.lease.is_valid();
    for member in node.members().into_iter().filter(|member| member.is_writable() != is_valid) {
        let name = &member.name;
        if is_valid {
            log::warn!(target: LOG, "storage '{name}': most servers of the cluster answer: it can be written");
            member.allow_writing();
        } else {
            crate::critical!(
                target: LOG,
                "storage '{name}': most servers of the cluster have not answered within the lease: no commit is answered \
                 until they do"
            );
            member.forbid_writing();
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
            return node.change(|saved| (saved.role, saved.is_unmarked) = (Role::Replica, false));
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
