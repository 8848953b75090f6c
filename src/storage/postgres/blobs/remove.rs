//! Removes large objects whose transaction was not committed: of this server when a transaction is aborted, of others
//! when they are gone.
//!
//! The work is done by a thread that lives as long as there is some: a vote or a commit never waits for it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::session::{LOG, ask};
use super::sessions::Sessions;
use crate::base::clock::{IoDeadline, Stopwatch};
use crate::base::sync::{Condvar, Mutex, rank};
use crate::postgres::{Statement, Type, Value};
use crate::storage::Result;

/// Large objects that one database transaction removes: each takes a lock in it.
const COUNT_MAX: usize = 100;
/// Interval between two searches for uploads of servers that are gone.
const SWEEP: Duration = Duration::from_secs(600);
/// How long the end of the storage waits for the thread.
const END: Duration = Duration::from_secs(10);

/// `-> rows of the table, large objects`. Removes only what is named in `runzeo_uploads`; there is no large object any
/// more after `zodbconvert --clear`. A commit that is under way and takes it from there is waited for.
static REMOVE: Statement = Statement {
    sql: "with gone as (delete from runzeo_uploads where chunk = any($1::oid[]) returning chunk) \
          select (select count(*) from gone), count(lo_unlink(m.oid)) \
          from gone join pg_largeobject_metadata m on m.oid = gone.chunk",
    types: &[Type::Int8Array],
};
/// The same for servers that are gone. An upload of the last minutes stays: its server may be connecting again.
static SWEEP_GONE: Statement = Statement {
    sql: "with gone as (delete from runzeo_uploads where chunk in \
          (select u.chunk from runzeo_uploads u where u.started < now() - interval '10 minutes' and not exists \
          (select from pg_stat_activity where application_name = 'runzeo: writer ' || u.server) limit $1) \
          returning chunk) select (select count(*) from gone), count(lo_unlink(m.oid)) \
          from gone join pg_largeobject_metadata m on m.oid = gone.chunk",
    types: &[Type::Int8],
};

/// What is to be removed, and the thread that does it.
pub struct Remover {
    /// Of the storage.
    name: String,
    sessions: Arc<Sessions>,
    state: Mutex<State, rank::PostgresUploads>,
    /// The thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    chunks: Vec<u32>,
    must_sweep: bool,
    swept: Option<Stopwatch>,
    is_running: bool,
    is_closed: bool,
}

impl Remover {
    pub fn new(name: String, sessions: Arc<Sessions>) -> Arc<Remover> {
        Arc::new(Remover { name, sessions, state: Mutex::default(), ended: Condvar::new() })
    }

    /// Removes these large objects, unless they were committed.
    pub fn remove(self: &Arc<Self>, chunks: Vec<u32>) {
        if !chunks.is_empty() {
            self.begin(|state| state.chunks.extend(chunks));
        }
    }

    /// Removes what servers that are gone have left.
    pub fn start_sweep(self: &Arc<Self>) {
        self.begin(|state| state.must_sweep = true);
    }

    /// The same, if the last search was long ago.
    pub fn sweep_if_due(self: &Arc<Self>) {
        let is_due = self.state.lock().swept.is_some_and(|at| at.passed() >= SWEEP);
        if is_due {
            self.start_sweep();
        }
    }

    /// Waits until what is to be removed is removed, but not for long: what stays is removed by another server.
    pub fn close(&self) {
        let until = IoDeadline::after(END);
        let mut state = self.state.lock();
        state.is_closed = true;
        while state.is_running && !until.is_over() {
            state = self.ended.wait_timeout(state, Duration::from_millis(100));
        }
    }

    fn begin(self: &Arc<Self>, add: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        add(&mut state);
        if state.is_running || state.is_closed {
            return;
        }
        state.is_running = true;
        drop(state);
        let remover = Arc::clone(self);
        if let Err(error) =
            thread::Builder::new().name("zeo-blob-removal".into()).spawn(move || remover.run())
        {
            log::error!(target: LOG, "{}: no thread can be started to remove large objects: {error}", self.name);
            self.state.lock().is_running = false;
            self.ended.notify_all();
        }
    }

    fn run(&self) {
        loop {
            let mut state = self.state.lock();
            let must_sweep = std::mem::take(&mut state.must_sweep);
            let at = state.chunks.len().saturating_sub(COUNT_MAX);
            let chunks = state.chunks.split_off(at);
            if chunks.is_empty() && !must_sweep {
                state.is_running = false;
                drop(state);
                self.ended.notify_all();
                return;
            }
            if must_sweep {
                state.swept = Some(Stopwatch::start());
            }
            drop(state);
            let done = if must_sweep { self.sweep() } else { Ok(()) };
            if let Err(error) = done.and_then(|()| self.remove_now(&chunks)) {
                log::warn!(
                    target: LOG,
                    "{}: large objects of transactions that were not committed stay until later: {error}",
                    self.name
                );
                let mut state = self.state.lock();
                // With the next ones.
                state.chunks.extend(chunks);
                state.is_running = false;
                drop(state);
                self.ended.notify_all();
                return;
            }
        }
    }

    fn remove_now(&self, chunks: &[u32]) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let chunks: Vec<i64> = chunks.iter().map(|chunk| i64::from(*chunk)).collect();
        self.sessions.with(|session| ask(session, &REMOVE, &[Value::Int8s(&chunks)]).map(drop))
    }

    fn sweep(&self) -> Result<()> {
        let mut sum = 0;
        loop {
            let count = self.sessions.with(|session| {
                let rows = ask(session, &SWEEP_GONE, &[Value::Int8(COUNT_MAX as i64)])?;
                let count = rows.first().map(|row| row.required_int8(0)).transpose();
                count.map_err(|error| super::super::session::AskError::Other(error.into()))
            })?;
            let count = count.unwrap_or(0);
            sum += count;
            if count < COUNT_MAX as i64 || self.state.lock().is_closed {
                break;
            }
        }
        if sum > 0 {
            log::info!(target: LOG, "{}: removed {sum} large objects that servers have left when they ended", self.name);
        }
        Ok(())
    }
}
