//! The thread that follows the primary for one storage: finds it, takes back what it does not have, and stores what it
//! sends.
//!
//! Two threads receive and store (`intake`), one acknowledges: what arrives during a sync is the next batch, which is
//! synced once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use super::acks::{Acks, acknowledge};
use super::dial::{Dialled, dial};
use super::intake::take_in;
use super::member::MemberStorage;
use super::message::{Follow, Message, Standing};
use super::options::Level;
use super::position::{Probe, probes_between};
use super::receive::{ReceiveError, TransactionStream};
use super::this_server::ThisServer;
use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::clock::Stopwatch;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::net::stream::Sink;
use crate::storage::{Cut, Result, StorageError};

use super::pace::{HANDSHAKE_MAX, LOG, NEWS_PAUSE, SILENCE_MAX};

/// Pause before the next attempt, at first; twice as long after each that brings nothing.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(4);
/// After a connection that has lasted so long the next attempt is a first one.
const LASTING: Duration = Duration::from_secs(10);

/// Why an attempt with one server has ended.
enum AttemptEnd {
    /// It could not be reached, or the handshake failed.
    NotReached(String),
    /// It is not the primary.
    NotPrimary(Standing),
    /// It was followed, or must not be.
    Over(String),
}

/// Follows whenever this server is a replica, until it stops.
pub fn keep_following(node: &Arc<ThisServer>, member: &Arc<MemberStorage>) {
    let mut pause = RETRY_MIN;
    while !node.is_stopping() {
        if !node.may_follow() {
            node.wait(NEWS_PAUSE);
            continue;
        }
        let watch = Stopwatch::start();
        let before = member.base.last_transaction();
        let cancel = member.begin_following();
        // Only now: a change of the role cancels what has begun.
        let why = match node.may_follow() {
            // A promotion waits for the end of the attempt, however it ends. The panic hook has logged it.
            true => catch_unwind(AssertUnwindSafe(|| attempt(node, member, &cancel)))
                .unwrap_or_else(|_| "internal error: the log of this server has more".into()),
            false => "the role of this server is being changed".into(),
        };
        member.progress.unattend();
        let is_new = member.end_following(&why);
        let was_good = member.base.last_transaction() > before || watch.passed() > LASTING;
        if (was_good || is_new) && node.may_follow() {
            log::warn!(target: LOG, "storage '{}': {why}", member.name);
        }
        pause = if was_good { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
        if node.may_follow() {
            node.wait(pause);
        }
    }
}

/// Tries one server after another: first whether one is the primary, then whether a replica is to be followed. Returns
/// why none is followed any more.
fn attempt(node: &Arc<ThisServer>, member: &Arc<MemberStorage>, cancel: &Cancel) -> String {
    let mut reasons = Vec::new();
    for takes_replicas in [false, true] {
        if takes_replicas && !node.options.follows_replicas {
            continue;
        }
        reasons.clear();
        for address in node.candidates() {
            let ended = with_server(node, member, &address, cancel, takes_replicas);
            match ended.unwrap_or_else(|ended| ended) {
                _ if cancel.is_cancelled() => return "this server follows no other".into(),
                AttemptEnd::NotReached(why) => reasons.push(format!("{address}: {why}")),
                AttemptEnd::NotPrimary(Standing { name, .. }) => {
                    if node.saved().timelines.last().is_some_and(|last| last.by == name) {
                        member.note_stepped_down();
                    }
                    reasons.push(format!("{address}: {name} is a replica as well"));
                }
                AttemptEnd::Over(why) => return format!("{address}: {why}"),
            }
        }
    }
    match reasons.is_empty() {
        true => "it has no peer that could be the primary".into(),
        false => format!("no primary was found: {}", reasons.join("; ")),
    }
}

fn with_server(
    node: &Arc<ThisServer>,
    member: &Arc<MemberStorage>,
    address: &Address,
    cancel: &Cancel,
    takes_replicas: bool,
) -> std::result::Result<AttemptEnd, AttemptEnd> {
    let unreadable = |error: StorageError| AttemptEnd::Over(error.to_string());
    let lost = |error: std::io::Error| AttemptEnd::NotReached(error.to_string());
    let replicable = member.replicable().map_err(unreadable)?;
    let last = replicable.last_written();
    let follow = Follow {
        storage: member.name.clone(),
        last: Probe::at(replicable, last).map_err(unreadable)?.filter(|probe| probe.tid == last),
        has_blobs: member.base.blobs().is_some_and(|blobs| blobs.dir().is_some()),
        follows_replicas: takes_replicas,
        compress: node.options.compress,
    };
    let mut hello = node.hello();
    hello.follow = Some(follow);
    let mut dialled = dial(node, address, hello, cancel, HANDSHAKE_MAX).map_err(AttemptEnd::NotReached)?;
    loop {
        let asked = match dialled.receiving.next_short().map_err(lost)? {
            None => return Ok(AttemptEnd::NotReached("it has closed the connection".into())),
            Some(Message::Standing(standing)) => return Ok(AttemptEnd::NotPrimary(standing)),
            Some(Message::Refusal(why)) => {
                return Ok(AttemptEnd::Over(format!("the primary refuses this replica: {why}")));
            }
            Some(Message::Start { common, awaited, standing }) => Err((common, awaited, standing)),
            Some(Message::Comparison { low, high }) => Ok((low, high)),
            Some(_) => return Ok(AttemptEnd::NotReached("its answer makes no sense".into())),
        };
        match asked {
            Ok((low, high)) => {
                let probes = probes_between(replicable, low, high).map_err(unreadable)?;
                dialled.out.send(&Message::Probes(probes)).map_err(lost)?;
            }
            Err((common, awaited, standing)) => {
                // Before the new timeline is shown.
                member.will_take_back(common);
                let adopted = node.adopt(&standing);
                let followed =
                    adopted.map(|()| follow_from(node, member, dialled, (common, awaited), &standing));
                member.will_take_back(Tid::MAX);
                let followed = followed.map_err(|error| AttemptEnd::NotReached(error.to_string()))?;
                let why = followed.unwrap_or_else(|error| error.to_string());
                return Ok(AttemptEnd::Over(why));
            }
        }
    }
}

/// The server is the primary, and both have the transactions up to `common`. Returns why the connection has ended.
fn follow_from(
    node: &Arc<ThisServer>,
    member: &Arc<MemberStorage>,
    dialled: Dialled<'_>,
    (common, awaited): (Tid, Option<Level>),
    standing: &Standing,
) -> Result<String> {
    dialled.receiving.set_silence_max(SILENCE_MAX).map_err(StorageError::io("following the primary"))?;
    let Dialled { stream, out, receiving, peer, ending: _ending } = dialled;
    member.progress.attend(common, awaited);
    member.follows(standing.timelines.last().map(|last| last.id));
    let name = &standing.name;
    log::info!(target: LOG, "storage '{}': following {name} at {peer} {}", member.name, from(common));
    let why = thread::scope(|scope| {
        // From here on, so that the primary hears of this replica while transactions are taken back.
        let acks = Arc::new(Acks::new(out));
        let acknowledging = spawn(scope, "replica-ack", move || acknowledge(member, &acks))?;
        let outcome = take_back(member, common).and_then(|()| {
            member.will_take_back(Tid::MAX);
            let blobs = member.base.blobs().and_then(|blobs| blobs.dir()).cloned();
            take_in(node, member, TransactionStream { receiving, blobs }, &stream, common)
        });
        stream.shutdown();
        member.progress.unattend();
        // Servers that follow this one look for another one, too. Otherwise this one might follow one of them.
        member.progress.dismiss(Duration::ZERO);
        acknowledging.join().unwrap_or_default();
        outcome
    });
    node.forget_primary();
    why.map(|ended| match ended {
        Ok(()) => format!("{name} has ended the connection"),
        Err(ReceiveError::Link(error)) => format!("the connection to {name} is lost: {error}"),
        Err(ReceiveError::Storage(error)) => format!("what {name} sends cannot be stored: {error}"),
    })
}

/// Where a replica begins, for the log.
fn from(common: Tid) -> String {
    match common {
        Tid::ZERO => "from the beginning".into(),
        common => format!("behind transaction {common} of {}", common.to_iso()),
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>> {
    let spawned = thread::Builder::new().name(name.into()).spawn_scoped(scope, work);
    spawned.map_err(StorageError::io("starting a thread of a replica"))
}

/// Takes back the transactions that the primary does not have.
fn take_back(member: &MemberStorage, common: Tid) -> Result<()> {
    let replicable = member.replicable()?;
    if replicable.last_written() <= common {
        return Ok(());
    }
    let cut = replicable.rewind(common)?;
    member.progress.rewound(common, member.base.size());
    if let Some(Cut { kept, transactions, first, last }) = cut {
        log::warn!(
            target: LOG,
            "storage '{}': the primary does not have the last {transactions} transactions, {first} of {} to {last} of {}. \
             They are not in the storage any more{}",
            member.name,
            first.to_iso(),
            last.to_iso(),
            match kept {
                Some(kept) => format!(", but in {}, which can be opened as any Data.fs", kept.display()),
                None => "; they had no records".into(),
            }
        );
    }
    Ok(())
}
