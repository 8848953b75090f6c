//! Changes of a server's role: promotion, demotion, and giving way to a server that was promoted.
//!
//! The order makes that no two servers answer commits of one timeline. A promotion saves the new timeline before the
//! first commit. A server that gives way refuses votes and finishes first; groups that wait for replicas are taken
//! back; only then does it follow, and take back what the new primary does not have.

use std::time::Duration;

use super::member::MemberStorage;
use super::options::Role;
use super::progress::Mode;
use super::state::Timelines;
use super::this_server::ThisServer;
use crate::base::address::Address;
use crate::base::clock::IoDeadline;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::storage::{Result, Staged, TransactionMeta};

use super::pace::{LAST_MAX, LOG};

/// Time for the commits that have begun when the role changes.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How often a promotion that waits for the primary looks.
const WAIT_PAUSE: Duration = Duration::from_millis(100);

/// How a promotion is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Promotion {
    /// How long it waits for the primary to be demoted or to go away.
    pub wait: Duration,
    /// Also if the primary is connected, or this replica has not met its cluster.
    pub force: bool,
}

/// Makes this replica the primary.
pub fn promote(node: &Arc<ThisServer>, promotion: &Promotion) -> std::result::Result<String, String> {
    let _changing = node.changing.lock();
    if node.role() == Role::Primary {
        return Err("this server is the primary already".into());
    }
    let Some(cluster) = node.saved().cluster.or_else(|| promotion.force.then(super::state::Id::new)?.ok())
    else {
        return Err("this replica has not met its cluster yet, so it has nothing to serve; use --force to begin a new \
                    cluster with it"
            .into());
    };
    let members = node.members();
    let until = IoDeadline::after(promotion.wait);
    while !promotion.force && node.primary_and_fence().0.is_some() && !until.is_over() && !node.is_stopping()
    {
        node.wait(until.left().min(WAIT_PAUSE));
    }
    if node.is_stopping() {
        return Err("this server stops".into());
    }
    if let (Some(primary), false) = (node.primary_and_fence().0, promotion.force) {
        return Err(format!(
            "the primary, {primary}, is connected: demote it first, so that nothing is lost ('zeoadmin demote' there), or use \
             --force"
        ));
    }
    if !promotion.force {
        wait_for_lease(node, until)?;
    }
    node.set_changing(true);
    members.iter().for_each(|member| member.stop_following());
    members.iter().for_each(|member| member.wait_for_idle());
    let name = &node.options.name;
    // Before the first transaction of the new timeline.
    let saved = node.saved().timelines.begun(name).map_err(|error| error.to_string()).and_then(|timelines| {
        let change = |saved: &mut super::state::ClusterState| {
            (saved.cluster, saved.role) = (Some(cluster), Role::Primary);
            (saved.timelines, saved.is_unmarked, saved.follow) = (timelines, true, None);
        };
        node.change(change).map_err(|error| error.to_string())
    });
    if let Err(error) = saved {
        node.set_changing(false);
        return Err(format!("{error}. This server stays a replica"));
    }
    node.set_fenced(None);
    mark_timeline(node);
    node.set_changing(false);
    let number = node.saved().timelines.last().map_or(0, |last| last.number);
    let done = format!("{name} is the primary now, by promotion {number} of the cluster");
    log::warn!(target: LOG, "{done}");
    Ok(done)
}

/// Writes the first transaction of the timeline that this primary has begun; then clients can store. After a crash in
/// between it is done at the next start.
pub fn mark_timeline(node: &ThisServer) {
    let mut are_marked = true;
    for member in node.members() {
        match begin_timeline(&member, &node.options.name) {
            Ok(()) if node.lease.is_valid() => member.allow_writing(),
            // The watch allows it.
            Ok(()) => {}
            Err(error) => {
                are_marked = false;
                crate::critical!(target: LOG, "storage '{}': {error}. It cannot be written", member.name);
            }
        }
    }
    if let Err(error) = node.change(|saved| saved.is_unmarked = !are_marked) {
        log::warn!(target: LOG, "{error}. The promotion is marked once more after a restart");
    }
}

/// The former primary may still answer commits as long as its lease is valid, which was confirmed at the latest when it
/// was heard last.
fn wait_for_lease(node: &ThisServer, until: IoDeadline) -> std::result::Result<(), String> {
    let Some(lease) = node.options.lease else { return Ok(()) };
    // The clocks of two machines do not run equally fast.
    let safe = lease.saturating_add(lease / 20);
    loop {
        let silence = node.members().iter().filter_map(|member| member.silence()).min();
        let left = silence.map_or(Duration::ZERO, |silence| safe.saturating_sub(silence));
        if left.is_zero() {
            return Ok(());
        }
        if until.is_over() || node.is_stopping() {
            return Err(format!(
                "the primary may still have a lease, for {:.0} s: try again, with a longer --wait, or use --force if it does \
                 not run any more",
                left.as_secs_f64().ceil()
            ));
        }
        node.wait(left.min(until.left()).min(WAIT_PAUSE));
    }
}

/// Clients of the former primary may know transactions and object ids that are not here. The marker is later than
/// those, so such clients notice it.
fn begin_timeline(member: &Arc<MemberStorage>, name: &str) -> Result<()> {
    member.progress.set_mode(Mode::Promoting);
    let replicable = member.replicable()?;
    let skipped = replicable.skip_oids();
    let meta = TransactionMeta {
        description: format!("runzeo: {name} was promoted").into_bytes(),
        ..TransactionMeta::default()
    };
    let tid = Tid::now().later_than(replicable.last_written());
    let marked = member.base.bulk().map_or(Ok(()), |bulk| {
        let mut writer = bulk.begin()?;
        writer.add(Staged::new(meta, Some(tid), b' ', 0))?;
        writer.complete()
    });
    member.progress.set_mode(Mode::Primary);
    skipped?;
    marked?;
    Ok(())
}

/// Makes this primary a replica, when its replicas have everything. `follow`: the server to follow, if it is known.
pub fn demote(node: &Arc<ThisServer>, follow: Option<Address>) -> std::result::Result<String, String> {
    let _changing = node.changing.lock();
    if node.role() == Role::Replica {
        if follow == node.saved().follow {
            return Err("this server is a replica already".into());
        }
        node.must_change(|saved| saved.follow.clone_from(&follow));
        node.members().iter().for_each(|member| member.stop_following());
        return Ok(match follow {
            Some(address) => format!("this replica follows the server at {address} now, and no other"),
            None => "this replica looks for the primary among its peers again".into(),
        });
    }
    for member in node.members() {
        member.forbid_writing();
    }
    let members = node.members();
    let are_done = members.iter().all(|member| member.drain(DRAIN_MAX));
    if are_done {
        members.iter().for_each(|member| member.progress.dismiss(LAST_MAX));
    }
    step_down(node, follow, "its server is a replica now");
    let done = format!("{} is a replica now, and looks for the primary among its peers", node.options.name);
    log::warn!(target: LOG, "{done}");
    Ok(done)
}

/// Another server was promoted: this one must not answer another commit.
pub fn give_way(node: &Arc<ThisServer>, to: &str, timelines: &Timelines) {
    // First of all, whatever other change is under way.
    let is_primary = node.role() == Role::Primary;
    if is_primary {
        for member in node.members() {
            member.forbid_writing();
            member.progress.set_mode(Mode::Stopping);
        }
    }
    let _changing = node.changing.lock();
    if node.role() == Role::Replica || !node.saved().timelines.is_outdated_by(timelines) {
        // Another change was quicker, and may have been over before what is above.
        if is_primary {
            settle(node);
        }
        return;
    }
    let by = timelines.last().map_or(to, |last| &last.by);
    let why = format!("{by} was promoted, {to} says");
    crate::critical!(
        target: LOG,
        "{why}: this server is not the primary any more, and answers no commits. It follows the new primary as soon as it \
         finds it, and takes back the transactions that the new primary does not have; they are kept, and listed then"
    );
    node.set_fenced(Some(why));
    step_down(node, None, "another server was promoted");
}

/// Groups and clients of all storages are treated as the role demands.
fn settle(node: &ThisServer) {
    for member in node.members() {
        match node.role() {
            Role::Primary => {
                member.progress.set_mode(Mode::Primary);
                if node.lease.is_valid() {
                    member.allow_writing();
                }
            }
            Role::Replica => member.progress.set_mode(Mode::Replica),
        }
    }
}

/// From a primary whose clients cannot store any more to a replica.
fn step_down(node: &Arc<ThisServer>, follow: Option<Address>, why: &'static str) {
    let members = node.members();
    for member in &members {
        // Also if this server was promoted after it was said that another one was.
        member.forbid_writing();
        member.progress.set_mode(Mode::Stopping);
    }
    for member in &members {
        if !member.drain(DRAIN_MAX) {
            log::error!(target: LOG, "storage '{}': commits are still under way", member.name);
        }
    }
    node.must_change(|saved| {
        (saved.role, saved.is_unmarked) = (Role::Replica, false);
        saved.follow.clone_from(&follow);
    });
    for member in &members {
        member.progress.dismiss(Duration::ZERO);
        member.disconnect_clients(why);
    }
    for member in &members {
        // Until then what arrives is not stored: a client's commit would be published as if the primary had sent it.
        while !member.drain(DRAIN_MAX) && !node.is_stopping() {
            log::error!(target: LOG, "storage '{}': commits are still under way, so it follows no server", member.name);
        }
        if !node.is_stopping() {
            member.progress.set_mode(Mode::Replica);
        }
    }
}
