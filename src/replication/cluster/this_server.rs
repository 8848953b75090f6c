//! This server in its cluster, as all its threads share it.

use std::sync::OnceLock;
use std::time::Duration;

use super::lease::Lease;
use super::member::MemberStorage;
use super::message::{Hello, Standing};
use super::options::{ClusterOptions, Role};
use super::state::{ClusterState, Timelines};
use crate::base::address::Address;
use crate::base::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, rank};
use crate::net::tls::{ClientTls, HostCheck, Tls};
use crate::storage::{Result, StorageError};

use super::pace::LOG;

/// What the threads share.
pub struct ThisServer {
    pub options: ClusterOptions,
    pub incoming_tls: Option<Arc<Tls>>,
    pub outgoing_tls: Option<ClientTls>,
    state: Mutex<ServerState, rank::ClusterState>,
    changed: Condvar,
    /// Without which a primary answers no commits.
    pub lease: Arc<Lease>,
    /// Held by the thread that changes the role.
    pub changing: Mutex<(), rank::ClusterChange>,
    members: Mutex<Vec<Arc<MemberStorage>>, rank::ClusterMembers>,
    is_stopping: AtomicBool,
    pack: OnceLock<Pack>,
}

/// Has the server pack a storage to a time, in seconds since 1970, beside.
pub type Pack = Box<dyn Fn(&str, f64) + Send + Sync>;

struct ServerState {
    saved: ClusterState,
    /// Newer timelines than the saved ones, of which another server has told. No older one is followed, and who asks is
    /// told of them.
    newer: Option<Timelines>,
    /// The role is being changed: nothing is followed.
    is_changing: bool,
    /// The server that is followed, for people.
    primary: Option<String>,
    /// Why this server is not the primary any more.
    fenced: Option<String>,
}

impl ThisServer {
    /// Reads the state file; if there is none, writes a first one.
    pub fn new(options: ClusterOptions) -> Result<ThisServer> {
        let (mut incoming_tls, mut outgoing_tls) = (None, None);
        if let Some(files) = &options.tls {
            let failed = |error| StorageError::Unsupported(format!("<replication>: {error}"));
            incoming_tls = Some(Arc::new(Tls::load(files.clone()).map_err(failed)?));
            // The servers of a cluster are known by the authority that has signed their certificates.
            let check = HostCheck { is_off: true, host: None };
            outgoing_tls = Some(ClientTls::load(files, check).map_err(failed)?);
        }
        let saved = match ClusterState::load(&options.state)? {
            Some(saved) => saved,
            None => {
                let doing = StorageError::io("making the id of a new cluster");
                ClusterState::first(options.first_role, &options.name).map_err(doing)?
            }
        };
        let state = ServerState { saved, newer: None, is_changing: false, primary: None, fenced: None };
        let lease = Arc::new(Lease::new(options.lease));
        Ok(ThisServer {
            options,
            lease,
            incoming_tls,
            outgoing_tls,
            state: Mutex::new(state),
            changed: Condvar::new(),
            changing: Mutex::new(()),
            members: Mutex::new(Vec::new()),
            is_stopping: AtomicBool::new(false),
            pack: OnceLock::new(),
        })
    }

    // -- the storages

    pub fn add_member(&self, member: Arc<MemberStorage>) {
        self.members.lock().push(member);
    }

    pub fn members(&self) -> Vec<Arc<MemberStorage>> {
        self.members.lock().clone()
    }

    pub fn member(&self, storage: &str) -> Option<Arc<MemberStorage>> {
        self.members.lock().iter().find(|member| member.name == storage).cloned()
    }

    /// How a storage is packed as the one of the primary was. Called once.
    pub fn set_pack(&self, pack: Pack) {
        let _ = self.pack.set(pack);
    }

    /// The server that is followed has packed its storage.
    pub fn pack(&self, storage: &str, time: f64) {
        if let Some(pack) = self.pack.get().filter(|_| self.options.follows_packs) {
            pack(storage, time);
        }
    }

    // -- the role

    pub fn role(&self) -> Role {
        self.state.lock().saved.role
    }

    /// A copy of what is saved.
    pub fn saved(&self) -> ClusterState {
        self.state.lock().saved.clone()
    }

    /// Changes what is saved, and saves it. After an error nothing has changed.
    pub fn change(&self, change: impl FnOnce(&mut ClusterState)) -> Result<()> {
        let mut state = self.state.lock();
        let mut saved = state.saved.clone();
        change(&mut saved);
        if saved != state.saved || !self.options.state.exists() {
            saved.save(&self.options.state)?;
            state.saved = saved;
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// As [`ThisServer::change`], for a change that must take effect. A state that cannot be saved is logged.
    pub fn must_change(&self, change: impl Fn(&mut ClusterState)) {
        if let Err(error) = self.change(&change) {
            crate::critical!(
                target: LOG,
                "{error}. After a restart this server begins as it was before: do not restart it before the file can be \
                 written"
            );
            change(&mut self.state.lock().saved);
            self.changed.notify_all();
        }
    }

    /// The role is being changed, or not any more. Meanwhile nothing is followed.
    pub fn set_changing(&self, is_changing: bool) {
        self.state.lock().is_changing = is_changing;
        self.changed.notify_all();
    }

    /// Whether the role is being changed.
    pub fn is_changing(&self) -> bool {
        self.state.lock().is_changing
    }

    /// Whether this server follows.
    pub fn may_follow(&self) -> bool {
        let state = self.state.lock();
        state.saved.role == Role::Replica && !state.is_changing && !self.is_stopping()
    }

    /// The servers that may be the primary.
    pub fn candidates(&self) -> Vec<Address> {
        match self.state.lock().saved.follow.clone() {
            Some(address) => vec![address],
            None => self.options.peers.clone(),
        }
    }

    pub fn standing(&self) -> Standing {
        let ClusterState { cluster, role, .. } = self.saved();
        let timelines = self.newest();
        Standing { name: self.options.name.clone(), cluster, timelines, role }
    }

    /// Without a storage to follow.
    pub fn hello(&self) -> Hello {
        let Standing { name, cluster, timelines, role } = self.standing();
        Hello { name, cluster, timelines, role, follow: None }
    }

    /// This replica follows a server of this standing from now on.
    ///
    /// Errors: another cluster, older timelines; the state cannot be saved.
    pub fn adopt(&self, standing: &Standing) -> Result<()> {
        let own = self.saved();
        let wrong = |what: &str| Err(StorageError::Unsupported(format!("{} {what}", standing.name)));
        match (own.cluster, standing.cluster) {
            (_, None) => return wrong("belongs to no cluster"),
            (Some(own), Some(other)) if own != other => return wrong("belongs to another cluster"),
            _ => {}
        }
        if standing.timelines.is_outdated_by(&self.newest()) {
            return wrong(
                "has an older timeline than this server: it was the primary before another one was promoted",
            );
        }
        self.change(|saved| {
            saved.cluster = standing.cluster;
            saved.timelines = standing.timelines.clone();
        })?;
        let mut state = self.state.lock();
        state.primary = Some(standing.name.clone());
        state.fenced = None;
        Ok(())
    }

    /// No server is followed any more.
    pub fn forget_primary(&self) {
        self.state.lock().primary = None;
    }

    /// The server that is followed; why this one had to give way.
    pub fn primary_and_fence(&self) -> (Option<String>, Option<String>) {
        let state = self.state.lock();
        (state.primary.clone(), state.fenced.clone())
    }

    pub fn set_fenced(&self, why: Option<String>) {
        self.state.lock().fenced = why;
    }

    /// The newest timelines that this server knows.
    fn newest(&self) -> Timelines {
        let state = self.state.lock();
        let newer = state.newer.as_ref().filter(|newer| state.saved.timelines.is_outdated_by(newer));
        newer.unwrap_or(&state.saved.timelines).clone()
    }

    /// Another server of the cluster has these timelines, newer ones. True: this was not known.
    pub fn note_newer(&self, timelines: &Timelines) -> bool {
        let is_news = self.newest().is_outdated_by(timelines);
        if is_news {
            self.state.lock().newer = Some(timelines.clone());
        }
        is_news
    }

    /// Whether a server with these timelines makes this one give way.
    pub fn is_outdated_by(&self, cluster: Option<super::state::Id>, timelines: &Timelines) -> bool {
        let state = self.state.lock();
        cluster.is_some() && cluster == state.saved.cluster && state.saved.timelines.is_outdated_by(timelines)
    }

    // -- the end

    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        let state = self.state.lock();
        drop(state);
        self.changed.notify_all();
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Waits until the role changes or the server stops, for at most `pause`.
    pub fn wait(&self, pause: Duration) {
        let state = self.state.lock();
        if !self.is_stopping() {
            drop(self.changed.wait_timeout(state, pause));
        }
    }
}
