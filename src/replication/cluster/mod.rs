//! A cluster of servers that have the same storages: one is the *primary*, which stores what clients commit, the others
//! are *replicas*, which follow it and serve the same read-only. Any of them can be promoted, while it runs.
//!
//! - `options`: what is configured; `pace`: how long what is waited for; `state`: the role and the timelines, and their
//!   file; `report`: what is shown
//! - `this_server`: this server, as its threads share it; `member`: one of its storages; `layer`: that storage as
//!   clients see it; `finishes`: what clients finish there
//! - `progress`: where groups of transactions wait for other servers, and the threads for news; `group_state`: what
//!   they know
//! - `message`, `link`: what is sent; `dial`, `serve`: connections to and from other servers
//! - `position`: what two servers have in common
//! - `feed`: the side that is followed; `follow`, `receive`, `intake`, `turns`, `acks`: the side that follows
//! - `change`: promotion and demotion; `watch`: who looks whether another server was promoted; `lease`: whether a
//!   primary that looks in vain goes on
//!
//! Invariants: a primary publishes a transaction when it is durable here and at as many replicas as are configured. A
//! replica publishes it when its primary has published it, or is gone. A server that knows a newer timeline of its
//! cluster than its own is not the primary.

mod acks;
mod change;
mod dial;
mod feed;
pub mod finishes;
mod follow;
mod group_state;
mod intake;
mod layer;
mod lease;
pub mod link;
mod member;
pub mod message;
pub mod options;
mod pace;
pub mod position;
pub mod progress;
pub mod receive;
pub mod report;
mod serve;
pub mod state;
mod this_server;
pub mod turns;
mod watch;

use std::thread::{self, JoinHandle};
use std::time::SystemTime;

pub use self::change::Promotion;
use self::layer::Replicated;
use self::member::MemberStorage;
use self::options::{ClusterOptions, Role};
use self::pace::{LAST_MAX, LOG};
use self::report::ClusterReport;
use self::serve::{Listening, listen_for_servers};
use self::state::Timeline;
use self::this_server::{Pack, ThisServer};
use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::sync::{Arc, Mutex, rank};
use crate::net::listen::Listener;
use crate::storage::{GroupGate, Storage, StorageError};

/// This server in its cluster.
pub struct Cluster {
    node: Arc<ThisServer>,
    threads: Mutex<Threads, rank::ClusterMembers>,
    /// End what the watch waits for in the network, for each peer.
    cancels: Vec<Cancel>,
}

#[derive(Default)]
struct Threads {
    /// Until connections are accepted.
    listeners: Vec<Listener>,
    listening: Vec<Listening>,
    others: Vec<JoinHandle<()>>,
}

impl Cluster {
    /// Reads the state, and asks the peers of a server that was the primary whether it still is.
    ///
    /// Errors: a state file that cannot be read or written; certificates; an address that cannot be listened at; a
    /// second cluster would be begun.
    pub fn start(options: ClusterOptions) -> Result<Arc<Cluster>, StorageError> {
        let node = Arc::new(ThisServer::new(options)?);
        watch::ask_before_start(&node)?;
        // The first state of a cluster, or a file system that cannot be written, is found out now.
        node.change(|_| ())?;
        let listeners = listen_for_servers(&node)?;
        let threads = Mutex::new(Threads { listeners, ..Threads::default() });
        let cancels = node.options.peers.iter().map(|_| Cancel::default()).collect();
        Ok(Arc::new(Cluster { node, threads, cancels }))
    }

    /// The storage `name` of the server, as a member of the cluster. Called for each before [`Cluster::begin`].
    ///
    /// Errors: `Unsupported` if it cannot be replicated.
    pub fn replicate(&self, name: &str, base: Arc<dyn Storage>) -> Result<Arc<dyn Storage>, StorageError> {
        let member =
            Arc::new(MemberStorage::new(name, base, &self.node.options, self.node.role(), &self.node.lease)?);
        if self.node.saved().is_unmarked {
            member.forbid_writing();
        }
        self.node.add_member(Arc::clone(&member));
        Ok(Arc::new(Replicated::new(member)))
    }

    /// All storages are open, and clients can connect: the server follows, and is followed.
    ///
    /// `pack`: how the server packs a storage to a time, beside.
    ///
    /// Errors: a thread that cannot be started.
    pub fn begin(&self, pack: Pack) -> Result<(), StorageError> {
        self.node.set_pack(pack);
        if self.node.saved().is_unmarked {
            change::mark_timeline(&self.node);
            log::warn!(target: LOG, "the promotion of this server had been interrupted: it is complete now");
        }
        let listeners = std::mem::take(&mut self.threads.lock().listeners);
        for listener in listeners {
            let listening = Listening::on(&self.node, listener)?;
            self.threads.lock().listening.push(listening);
        }
        for member in self.node.members() {
            let node = Arc::clone(&self.node);
            self.spawn("replica-follow", move || follow::keep_following(&node, &member))?;
        }
        let (node, cancels) = (Arc::clone(&self.node), self.cancels.clone());
        self.spawn("replica-watch", move || watch::watch(&node, &cancels))
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StorageError> {
        let spawned = thread::Builder::new().name(name.into()).spawn(work);
        let thread = spawned.map_err(StorageError::io("starting a thread of the cluster"))?;
        self.threads.lock().others.push(thread);
        Ok(())
    }

    /// What is shown.
    pub fn report(&self) -> ClusterReport {
        let node = &self.node;
        let (saved, (primary, fenced)) = (node.saved(), node.primary_and_fence());
        let members = node.members();
        let waits =
            |member: &&Arc<MemberStorage>| saved.role == Role::Primary && member.progress.is_waiting();
        let waiting = members
            .iter()
            .find(waits)
            .map(|member| format!("a commit of storage '{}' waits for its replicas", member.name));
        let is_cut_off = saved.role == Role::Primary && !node.lease.is_valid();
        let held = if is_cut_off {
            Some("most servers of the cluster do not answer ('lease')".into())
        } else {
            waiting
        };
        let last = saved.timelines.last();
        ClusterReport {
            name: node.options.name.clone(),
            role: saved.role,
            held,
            promotions: last.map_or(0, |last| last.number as usize),
            timeline: last.map_or(String::new(), |last| last.id.to_string()),
            since: last.map_or(SystemTime::UNIX_EPOCH, Timeline::began),
            primary,
            fenced,
            synchronous_replicas: node.options.synchronous_replicas,
            on_timeout: node.options.on_timeout,
            storages: members.iter().map(|member| member.report(saved.role)).collect(),
        }
    }

    /// Makes this replica the primary. Returns what was done, or why it was not; both are sentences for people.
    pub fn promote(&self, promotion: &Promotion) -> Result<String, String> {
        change::promote(&self.node, promotion)
    }

    /// Makes this primary a replica, which follows whichever of its peers is the primary then.
    pub fn demote(&self) -> Result<String, String> {
        change::demote(&self.node, None)
    }

    /// Makes this server a replica of the one at `address`, whatever it has been.
    pub fn follow(&self, address: Address) -> Result<String, String> {
        change::demote(&self.node, Some(address))
    }

    /// The server is about to stop: no commit waits for replicas that do not come.
    pub fn stops(&self) {
        self.node.members().iter().for_each(|member| member.progress.stop_blocking());
    }

    /// The server stops, and its clients have gone: replicas get what is published.
    pub fn end(&self) {
        self.node.stop();
        self.cancels.iter().for_each(Cancel::cancel);
        let Threads { listening, others, .. } = std::mem::take(&mut *self.threads.lock());
        listening.into_iter().for_each(Listening::end);
        let members = self.node.members();
        for member in &members {
            member.stop_following();
            member.progress.close();
        }
        members.iter().for_each(|member| member.progress.dismiss(LAST_MAX));
        members.iter().for_each(|member| member.progress.wait_for_none());
        for thread in others {
            if thread.join().is_err() {
                log::error!(target: LOG, "a thread has panicked");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}
