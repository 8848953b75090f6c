//! Making a server, and its threads: those that accept on sockets, and the one that closes idle connections.

use std::io;
use std::sync::OnceLock;
use std::thread;

use arc_swap::ArcSwap;

use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex};
use crate::net::listen::Listener;
use crate::server::admission::Admission;
use crate::server::audit::{AuditLog, AuditSlot};
use crate::server::descriptors::Descriptors;
use crate::server::disk_space::DiskSpaces;
use crate::server::hosted::Hosted;
use crate::server::limits::Limits;
use crate::server::policy::Policy;
use crate::server::reload_status::ReloadStatus;
use crate::server::stop_signal::StopSignal;
use crate::server::transaction::publisher::set_publisher;
use crate::server::{Server, acceptor, monitor, watch};
use crate::wire::protocol::Greeting;

/// Accept loops return from a blocking call when the socket is shut down; their stacks are small.
const ACCEPTOR_STACK: usize = 128 << 10;

impl Server {
    /// A server of these storages, which accepts no connections yet. `descriptors`: upper bound on the process's open
    /// files; `clock`: for all timeouts except the storages' ([`Hosted::new`]).
    pub fn new(
        storages: Vec<Arc<Hosted>>,
        greeting: Greeting,
        limits: Limits,
        descriptors: usize,
        clock: TimeSource,
    ) -> io::Result<Arc<Server>> {
        let (descriptors, division) = Descriptors::divide(descriptors, &limits);
        division.log(&limits);
        for hosted in &storages {
            set_publisher(hosted);
            hosted.slow_requests.set_threshold(limits.slow_request_time);
        }
        let server = Arc::new(Server {
            storages: storages.into_iter().map(|hosted| (hosted.name.clone(), hosted)).collect(),
            greeting,
            admission: Admission::new(&limits, &division, clock.clone()),
            backups: Mutex::default(),
            audit: AuditSlot::default(),
            reloads: ReloadStatus::new(clock.system_time()),
            disks: DiskSpaces::default(),
            has_history: AtomicBool::new(false),
            configuration: OnceLock::new(),
            started: clock.system_time(),
            descriptors,
            clock,
            limits: ArcSwap::from_pointee(limits),
            watch_stop: StopSignal::default(),
            schedule_stop: StopSignal::default(),
            pack_plans: Mutex::default(),
            clients: Mutex::default(),
            client_left: Condvar::new(),
            next_connection_id: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            listeners: Mutex::default(),
            cluster: OnceLock::new(),
            shown_listeners: OnceLock::new(),
        });
        watch::start(&server)?;
        Ok(server)
    }

    /// Notes what happens in the audit log from here on. Called once, before there are clients.
    pub fn set_audit(&self, log: AuditLog) {
        self.audit.set(log);
        self.storages.values().for_each(|hosted| hosted.set_audit(&self.audit));
    }

    /// Accepts clients on a socket, from a thread of its own.
    pub fn accept_on(self: &Arc<Self>, listener: Listener, policy: Arc<Policy>) -> io::Result<Arc<Listener>> {
        self.spawn_on(listener, "zeo-accept", move |server, listener| {
            acceptor::accept_loop(server, listener, &policy);
        })
    }

    /// Serves the counters on a socket, from a thread of its own (`monitor-address`).
    pub fn monitor_on(self: &Arc<Self>, listener: Listener) -> io::Result<()> {
        self.spawn_on(listener, "zeo-monitor", monitor::serve).map(drop)
    }

    /// Accepts no clients on a socket any more. Those that are connected stay.
    pub fn close_listener(&self, listener: &Arc<Listener>) {
        self.listeners.lock().retain(|known| !Arc::ptr_eq(known, listener));
        listener.end();
    }

    fn spawn_on(
        self: &Arc<Self>,
        listener: Listener,
        name: &str,
        serve: impl FnOnce(&Arc<Server>, &Listener) + Send + 'static,
    ) -> io::Result<Arc<Listener>> {
        let listener = Arc::new(listener);
        {
            let mut listeners = self.listeners.lock();
            // A stop ends those that are in the list.
            if self.is_stopping() {
                return Err(io::Error::other("the server stops"));
            }
            listeners.push(Arc::clone(&listener));
        }
        let (server, socket) = (Arc::clone(self), Arc::clone(&listener));
        let run = move || serve(&server, &socket);
        let spawned = thread::Builder::new().name(name.into()).stack_size(ACCEPTOR_STACK).spawn(run);
        if let Err(error) = spawned {
            self.close_listener(&listener);
            return Err(error);
        }
        Ok(listener)
    }
}
