//! Sessions for what takes long. Each thread that needs one has it for itself; there are only a few, so that a server
//! with a thousand clients does not use up the connections of the database. All are at the server at which records are
//! read: another one may not have a blob yet.

use std::time::Duration;

use super::super::readers::Readers;
use super::super::session::{AskError, Purpose, lost};
use crate::base::clock::Stopwatch;
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::postgres::{Connection, Lost};
use crate::storage::{Result, StorageError};

/// How long a database that cannot be reached is tried, and how often.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(200);

/// A bounded number of sessions.
pub struct Sessions {
    readers: Arc<Readers>,
    server: String,
    count_max: usize,
    pool: Mutex<Pool, rank::PostgresSessions>,
    /// A session is idle, or there may be one more.
    freed: Condvar,
}

#[derive(Default)]
struct Pool {
    /// Each with the number of renewals of the storage's sessions when it was opened.
    idle: Vec<(u64, Connection)>,
    /// Sessions in use.
    used: usize,
    is_closed: bool,
}

/// The right to a session.
struct Lease<'a> {
    sessions: &'a Sessions,
    /// `None`: it must be opened, or is lost.
    session: Option<Connection>,
    renewals: u64,
}

impl Sessions {
    /// Sessions are opened when they are needed.
    pub fn new(readers: Arc<Readers>, server: &str, count_max: usize) -> Sessions {
        let server = server.to_owned();
        Sessions { readers, server, count_max, pool: Mutex::default(), freed: Condvar::new() }
    }

    /// Does `work` on a session. If the session is lost, `work` begins again on another one.
    pub fn with<T>(
        &self,
        mut work: impl FnMut(&mut Connection) -> std::result::Result<T, AskError>,
    ) -> Result<T> {
        let mut lost_at = None;
        loop {
            let mut lease = self.lease()?;
            let error = match lease.open().map_err(AskError::Lost).and_then(&mut work) {
                Ok(done) => return Ok(done),
                Err(AskError::Other(error)) => return Err(error),
                Err(AskError::Lost(error)) => error,
            };
            lease.session = None;
            drop(lease);
            let since: &mut Stopwatch = lost_at.get_or_insert_with(Stopwatch::start);
            if since.passed() > PATIENCE {
                return Err(lost(self.readers.name(), &error));
            }
            self.pause()?;
        }
    }

    /// Idle sessions end. Threads that wait for one fail.
    pub fn close(&self) {
        let mut pool = self.pool.lock();
        pool.is_closed = true;
        let idle = std::mem::take(&mut pool.idle);
        drop(pool);
        self.freed.notify_all();
        drop(idle);
    }

    fn lease(&self) -> Result<Lease<'_>> {
        let renewals = self.readers.renewals();
        let mut pool = self.pool.lock();
        loop {
            if pool.is_closed {
                return Err(self.closed());
            }
            if pool.used < self.count_max {
                pool.used += 1;
                let is_current = |(at, session): (u64, Connection)| (at == renewals).then_some(session);
                let session = pool.idle.pop().and_then(is_current);
                return Ok(Lease { sessions: self, session, renewals });
            }
            pool = self.freed.wait(pool);
        }
    }

    /// Waits a little after a session has broken.
    fn pause(&self) -> Result<()> {
        let pool = self.freed.wait_timeout(self.pool.lock(), RETRY);
        if pool.is_closed { Err(self.closed()) } else { Ok(()) }
    }

    fn closed(&self) -> StorageError {
        StorageError::Closed(format!("{} is closed", self.readers.name()))
    }
}

impl Lease<'_> {
    fn open(&mut self) -> std::result::Result<&mut Connection, Lost> {
        match &mut self.session {
            Some(session) => Ok(session),
            session => {
                let purpose = Purpose::Blobs { server: &self.sessions.server };
                Ok(session.insert(self.sessions.readers.session(purpose)?))
            }
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let session = self.session.take();
        let mut pool = self.sessions.pool.lock();
        pool.used -= 1;
        let unwanted = if pool.is_closed {
            session
        } else {
            let renewals = self.renewals;
            pool.idle.extend(session.map(|session| (renewals, session)));
            None
        };
        drop(pool);
        self.sessions.freed.notify_all();
        drop(unwanted);
    }
}
