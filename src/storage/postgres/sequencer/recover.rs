//! A lost session and its replacement.
//!
//! The old backend may still be there after its connection is gone, waiting for a lock with a commit that it has
//! received. So it is ended first; only when it is gone the table `runzeo_writers` says for sure whether the last group
//! was committed. (As a second line, the commit function commits a group only behind the one with the number before
//! it.)
//!
//! Voted transactions survive: their locks are taken again, and their objects must not have changed.

use std::time::Duration;

use super::super::readers::Home;
use super::super::servers::Advice;
use super::super::session::{self, AskError, LOG, ask};
use super::super::standby::{self, Presence, ServerState};
use super::desk::Finish;
use super::group::{self, Foreign, Group};
use super::locks::{self, NotGranted};
use super::present::Remaining;
use super::publish::fail;
use super::writer::SequencerThread;
use crate::base::clock::Stopwatch;
use crate::base::ids::{Oid, Tid};
use crate::postgres::dsn::Dsn;
use crate::postgres::{Batch, Connection, Lost, Statement, Type, Value, Wake};
use crate::storage::{GroupTimes, Result, StorageError};

/// How often a connection is tried.
const RETRY: Duration = Duration::from_millis(500);
/// How long requests wait for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long another server may take to answer, beside the present one.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long the end of the old session is waited for in one attempt.
const OLD_END: Duration = Duration::from_secs(10);

static END: Statement = Statement {
    sql: "select pg_terminate_backend(pid) from pg_stat_activity \
          where pid = $1 and application_name = $2 and pid <> pg_backend_pid()",
    types: &[Type::Int4, Type::Text],
};
static MARK: Statement =
    Statement { sql: "select number, tid from runzeo_writers where server = $1", types: &[Type::Text] };
static FORGET: Statement =
    Statement { sql: "delete from runzeo_writers where server = $1", types: &[Type::Text] };

/// Why there is no new session yet.
enum NotYet {
    Lost(Lost),
    Other(String),
}

impl From<Lost> for NotYet {
    fn from(lost: Lost) -> NotYet {
        NotYet::Lost(lost)
    }
}

impl From<StorageError> for NotYet {
    fn from(error: StorageError) -> NotYet {
        NotYet::Other(error.to_string())
    }
}

/// What the database knows of this server.
struct Mark {
    number: i64,
    tid: Tid,
}

impl SequencerThread {
    pub fn lost(&mut self, lost: &Lost) {
        self.resolve(lost, None);
    }

    /// Gets a new session, and finds out what became of `group`, whose answer is missing.
    pub fn resolve(&mut self, lost: &Lost, mut group: Option<Group>) {
        log::warn!(target: LOG, "{}: {lost}; connecting again", self.shared.name);
        self.shared.remote.lock().lose(&lost.to_string());
        let began = Stopwatch::start();
        let mut told = None;
        loop {
            match self.replace(&mut group) {
                Ok(()) => {
                    self.shared.remote.lock().reach();
                    log::info!(target: LOG, "{}: connected again after {:?}", self.shared.name, began.passed());
                    return;
                }
                Err(why) => {
                    let why = match why {
                        NotYet::Lost(lost) => lost.to_string(),
                        NotYet::Other(other) => other,
                    };
                    if told.as_ref() != Some(&why) {
                        log::warn!(target: LOG, "{}: {why}", self.shared.name);
                        self.shared.remote.lock().lose(&why);
                        told = Some(why);
                    }
                }
            }
            let queue = self.desk.queue.lock();
            let queue = self.desk.released.wait_timeout(queue, RETRY);
            let is_closed = queue.is_closed;
            drop(queue);
            if is_closed || began.passed() > PATIENCE {
                self.give_up(group.take());
            }
            if is_closed {
                return;
            }
        }
    }

    /// One attempt.
    fn replace(&mut self, group: &mut Option<Group>) -> std::result::Result<(), NotYet> {
        let old = self.session.backend_pid();
        let purpose = super::start::purpose(self.read_only, &self.server);
        let dsn = self.servers.dsn().map_err(NotYet::Other)?;
        let mut session = session::open(&dsn, purpose)?;
        if !self.read_only {
            end_old(&mut session, old, &purpose.application_name())?;
        }
        let (state, presence) = self.examine(&mut session)?;
        let last = self.present.newest();
        if presence == Presence::Behind {
            let why = format!("{} is a standby that has not replayed transaction {last} yet", session.peer());
            return Err(NotYet::Other(why));
        }
        if presence == Presence::Lost {
            self.session = session;
            self.lose(last, group.take());
            return Ok(());
        }
        self.go_to(session, state, group)
    }

    /// What the server of a session is, and whether it has what was published.
    fn examine(&self, session: &mut Connection) -> std::result::Result<(ServerState, Presence), AskError> {
        let state = standby::state(session)?;
        let (last, is_there) = (self.present.newest(), &self.shared.sql.is_there);
        Ok((state, standby::presence(session, is_there, last, state, self.state.position)?))
    }

    /// Goes on with this session, and the readers with it.
    fn go_to(
        &mut self,
        mut session: Connection,
        state: ServerState,
        group: &mut Option<Group>,
    ) -> std::result::Result<(), NotYet> {
        if !state.is_standby {
            session::listen(&mut session)?;
        }
        let identity = session::identity(&mut session)?;
        let home = Home { dsn: self.options.dsn.only_at(session.peer()), identity };
        self.session = session;
        self.servers.chosen(self.session.peer());
        self.look(group, home)?;
        self.state = standby::state(&mut self.session)?;
        self.last_estimate = None;
        if self.read_only {
            return Ok(());
        }
        let mut batch = Batch::new();
        let ids: Vec<u64> = self.held.keys().copied().collect();
        locks::take_again(&mut batch, self.shared.sql, self.held.values()).map_err(StorageError::from)?;
        let answers = self.session.run(&batch)?;
        self.free.clear();
        self.take_relocked(&ids, answers);
        Ok(())
    }

    /// Does what the file of servers says.
    pub fn mind_servers(&mut self) -> std::result::Result<(), Lost> {
        match self.servers.advice(self.session.peer(), self.read_only) {
            Advice::Stay => Ok(()),
            Advice::Leave => {
                Err(Lost::new(format!("{} is not in the replica-conf any more", self.session.peer())))
            }
            Advice::Try(dsn) => self.go_back(*dsn),
        }
    }

    /// Goes to one of these servers, if it has what was published.
    fn go_back(&mut self, mut dsn: Dsn) -> std::result::Result<(), Lost> {
        // Nothing is published during the attempt.
        dsn.connect_timeout = dsn.connect_timeout.or(Some(ATTEMPT));
        let purpose = super::start::purpose(self.read_only, &self.server);
        let Ok(mut session) = session::open(&dsn, purpose) else { return Ok(()) };
        let known = session::identity(&mut self.session);
        let (state, presence) = match (self.examine(&mut session), session::identity(&mut session)) {
            (Ok(examined), Ok(identity)) if known.is_ok_and(|known| known != identity) => examined,
            // Another name of the same server, or one that has gone again.
            _ => return Ok(()),
        };
        let (name, peer) = (&self.shared.name, session.peer());
        if presence != Presence::There {
            log::warn!(target: LOG, "{name}: {peer} is usable again, but lacks transaction {}", self.present.newest());
            return Ok(());
        }
        log::info!(target: LOG, "{name}: going to {peer}, which comes first in the replica-conf");
        self.go_to(session, state, &mut None).map_err(|why| match why {
            NotYet::Lost(lost) => lost,
            NotYet::Other(why) => Lost::new(why),
        })
    }

    /// Publishes what was committed since, `group` among it or not. Nothing is read at the server of the session before
    /// it is known that it has what clients have seen.
    fn look(&mut self, group: &mut Option<Group>, home: Home) -> std::result::Result<(), NotYet> {
        let last = self.shared.last();
        let mark = if self.read_only { None } else { self.mark()? };
        if mark.as_ref().is_some_and(|mark| mark.number < self.number) {
            // Of a group that was committed nothing is known.
            self.lose(last, group.take());
            return Ok(());
        }
        self.shared.readers.renew(home);
        if mark.is_none() && !self.read_only {
            // The table was cleared, or another server has taken this one for gone. What the row would have told of
            // the group is lost; if it was committed, it is among the later transactions.
            self.leave_unknown(group.take(), "its mark in the table runzeo_writers is gone");
            super::start::register(&mut self.session, &self.server)?;
        }
        let rows = ask(&mut self.session, &self.shared.sql.later, &[Value::Int8(last.0 as i64)])?;
        let mut before = group::read_later(&rows)?;
        match (group.take(), mark) {
            (Some(lost), Some(mark)) if mark.number == lost.number => {
                self.number = mark.number;
                let first = Tid(mark.tid.0.saturating_sub(lost.finishes.len() as u64 - 1));
                let behind: Vec<Foreign> = split_off(&mut before, |one| one.tid > mark.tid);
                if self.shared.sql.forgets {
                    before = maybe_before(last, first, before.iter().chain(&behind));
                }
                before.retain(|one| one.tid < first);
                self.publish(before, first, lost.finishes, GroupTimes::default());
                self.publish(behind, Tid::ZERO, Vec::new(), GroupTimes::default());
            }
            (lost, mark) => {
                self.number = mark.map_or(0, |mark| mark.number);
                self.publish(before, Tid::ZERO, Vec::new(), GroupTimes::default());
                if let Some(lost) = lost {
                    self.again(lost);
                }
            }
        }
        Ok(())
    }

    /// The database lacks what clients have seen.
    fn lose(&mut self, last: Tid, group: Option<Group>) {
        self.fail_for_good(last);
        self.leave_unknown(group, "the database has lost transactions since");
    }

    /// `None`: there is no row of this server.
    fn mark(&mut self) -> std::result::Result<Option<Mark>, NotYet> {
        let rows = ask(&mut self.session, &MARK, &[Value::Text(&self.server)])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let read = || -> Result<Mark> {
            Ok(Mark { number: row.required_int8(0)?, tid: Tid(row.required_int8(1)? as u64) })
        };
        Ok(Some(read()?))
    }

    /// Whether nothing is lost, if the newest transaction of the database is `newest`, on the session of before.
    pub fn has_what_was_seen(&mut self, newest: Tid) -> bool {
        let before = self.present.newest();
        let found = self.present.found(newest);
        if found == Remaining::Packed {
            let name = &self.shared.name;
            log::warn!(
                target: LOG,
                "{name}: a pack has removed the newest transaction, {before}; after a restart of \
                 this server clients whose caches have it wait for a newer one"
            );
        }
        found != Remaining::Lost
    }

    /// A transaction that clients have seen is not in the database any more.
    pub fn fail_for_good(&self, missing: Tid) {
        let why = format!(
            "{}: transaction {missing}, which clients have seen, is not in the database any more: it is another \
             database, an earlier state of it, or it was cleared. Restart the server to serve what is there",
            self.shared.name
        );
        if self.shared.fail(why.clone()) {
            crate::critical!(target: LOG, "{why}");
        }
    }

    /// All that wait get an error.
    fn give_up(&mut self, group: Option<Group>) {
        let why = format!("{}: the database cannot be reached", self.shared.name);
        let away = || StorageError::Disconnected(why.clone());
        self.leave_unknown(group, "the database cannot be reached");
        let mut taken = self.desk.take();
        self.waiting.append(&mut taken.finishes);
        for id in taken.releases {
            self.held.remove(&id);
        }
        for finish in std::mem::take(&mut self.waiting) {
            self.forget(finish, away());
        }
        let ahead = std::mem::take(&mut self.ahead).into_iter().map(|(request, granted)| {
            self.held.remove(&granted.id);
            request
        });
        for request in taken.locks.into_iter().chain(ahead) {
            // One that has given up needs no answer.
            let _ = request.answer.give(Err(NotGranted::Failed(away())));
        }
        for waiting in taken.catch_ups.into_iter().chain(std::mem::take(&mut self.catch_ups)) {
            let _ = waiting.give(Err(away()));
        }
    }

    /// Tells the clients of a group that its outcome is not known.
    fn leave_unknown(&mut self, group: Option<Group>, why: &str) {
        for mut finish in group.into_iter().flat_map(|group| group.finishes) {
            finish.written.blobs.leave();
            let unknown =
                format!("{}: {why}, and it is not known whether it has committed", self.shared.name);
            self.forget(finish, StorageError::OutcomeUnknown(unknown));
        }
    }

    /// Fails a transaction whose locks are gone.
    fn forget(&mut self, finish: Finish, error: StorageError) {
        for id in fail(&self.shared, finish, error) {
            self.held.remove(&id);
        }
    }

    /// The last message of the session.
    pub fn say_goodbye(&mut self) {
        let mut batch = Batch::new();
        if batch.execute(&FORGET, &[Value::Text(&self.server)]).is_ok() {
            batch.sync();
            if let Err(lost) = self.session.run(&batch) {
                log::info!(target: LOG, "{}: {lost}", self.shared.name);
            }
        }
    }
}

/// Ends the backend of the old session, and waits until it is gone.
fn end_old(session: &mut Connection, old: i32, application_name: &str) -> std::result::Result<(), NotYet> {
    let began = Stopwatch::start();
    let wake = Wake::new().map_err(|error| NotYet::Other(error.to_string()))?;
    loop {
        let rows = ask(session, &END, &[Value::Int4(old), Value::Text(application_name)])?;
        if rows.is_empty() {
            return Ok(());
        }
        if began.passed() > OLD_END {
            return Err(NotYet::Other(format!("the former session, process {old}, does not end")));
        }
        session.wait(Duration::from_millis(20), &wake)?;
    }
}

impl From<AskError> for NotYet {
    fn from(error: AskError) -> NotYet {
        match error {
            AskError::Lost(lost) => NotYet::Lost(lost),
            AskError::Other(other) => other.into(),
        }
    }
}

/// Without history it is not known which of the other transactions were before a group that was committed: what they
/// have changed was perhaps changed before it, too, and is published so. There is no such transaction in the database;
/// what clients do for one that changed nothing is harmless.
fn maybe_before<'a>(last: Tid, first: Tid, found: impl Iterator<Item = &'a Foreign>) -> Vec<Foreign> {
    let tid = Tid(first.0.saturating_sub(1));
    let oids: Vec<Oid> = found.flat_map(|one| one.oids.iter().copied()).collect();
    if tid > last && !oids.is_empty() { vec![Foreign { tid, oids }] } else { Vec::new() }
}

/// Takes out the tail for which `is_behind` holds.
fn split_off(list: &mut Vec<Foreign>, is_behind: impl Fn(&Foreign) -> bool) -> Vec<Foreign> {
    let at = list.iter().position(is_behind).unwrap_or(list.len());
    list.split_off(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_before_is_published_before() {
        let one =
            |tid, oids: &[u64]| Foreign { tid: Tid(tid), oids: oids.iter().copied().map(Oid).collect() };
        let found = [one(20, &[1, 2]), one(30, &[3])];
        let before = maybe_before(Tid(5), Tid(20), found.iter());
        assert_eq!(before, [one(19, &[1, 2, 3])]);
        assert_eq!(maybe_before(Tid(19), Tid(20), found.iter()), [], "no transaction was before");
        assert_eq!(maybe_before(Tid(5), Tid(20), [].iter()), []);
    }
}
