//! One connection: a thread that reads requests, and answers them in the order of arrival.
//!
//! States: handshake (`greeting.rs`) -> unregistered, only `register` and authentication are possible -> registered
//! with a storage. Replies that cannot be given at once (a vote that waits for locks, a finish that waits for the
//! sync) come later, from other threads; the session continues to read.

mod admin;
mod authenticate;
mod background;
mod blob;
mod cold;
mod description;
mod dispatch;
mod downloads;
mod entries;
mod greeting;
mod identity;
mod iterate;
mod jobs;
mod large;
mod load;
mod pack;
mod read;
mod register;
mod run;
mod send_blob;
mod store;
mod transfers;
mod undo;
mod verify;

use crate::base::sync::Arc;
use crate::server::Server;
use crate::server::admission::AdmissionGuard;
use crate::server::connection::Connection;
use crate::server::limits::Limits;
use crate::server::policy::{Authentication, Policy};
use crate::server::registered::Registered;

pub use run::serve;

/// A connection, as its own thread has it.
pub struct Session {
    server: Arc<Server>,
    /// As they were when the connection came, or when its last transaction began.
    limits: Arc<Limits>,
    connection: Arc<Connection>,
    admission: AdmissionGuard,
    policy: Arc<Policy>,
    /// What was demanded when the connection came.
    demanded: Option<Arc<Authentication>>,
    registered: Option<Arc<Registered>>,
    identity: identity::Identity,
    reads: load::Batch,
    iterators: iterate::Iterators,
    upload: transfers::Receiving,
    downloads: Arc<downloads::Downloads>,
    background_jobs: Arc<jobs::Jobs>,
    /// Bytes sent that its address and its networks have paid for, see [`rates`](super::rates). `None`: there were no
    /// rates, and what was sent until there are some is free.
    sent_paid: Option<u64>,
    /// Between the first zeoVerify and endZeoVerify.
    verifying: bool,
}
