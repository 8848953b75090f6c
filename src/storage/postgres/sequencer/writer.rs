//! The thread of the sequencer.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::super::options::PostgresOptions;
use super::super::servers::Servers;
use super::super::session::{self, AskError, LOG, RECOVERY_CONFLICT, ask, malformed, refused};
use super::super::shared::DatabaseState;
use super::super::sql::functions::COMMITTED_BEFORE;
use super::super::standby::{self, ServerState};
use super::desk::{CatchUp, Desk, Finish};
use super::gather::Gathering;
use super::group::{self, Done, Foreign, Group};
use super::locks::{self, Granted, LockKeys, LockOutcome, LockRequest, NotGranted};
use super::present::Present;
use super::publish::{fail, publish};
use crate::base::clock::Stopwatch;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Ordering};
use crate::conflict::Conflict;
use crate::postgres::{Answer, Batch, Connection, Lost, ServerError, Statement, TooLarge, Type, Value};
use crate::storage::{GroupTimes, Result, StorageError};

/// Up to this estimate the objects are counted exactly.
const COUNTED_MAX: i64 = 100_000;
/// How long a group waits for the commit lock in one call, at first and at most. In between votes and searches go on.
const COMMIT_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));

/// Sessions begin with the shortest wait.
pub static COMMIT_WAIT_TIME: Statement =
    Statement { sql: "select set_config('lock_timeout', $1, true)", types: &[Type::Text] };

/// The state of the thread.
pub struct SequencerThread {
    pub desk: Arc<Desk>,
    pub shared: Arc<DatabaseState>,
    pub options: PostgresOptions,
    pub session: Connection,
    /// This server, in the table `runzeo_writers`.
    pub server: String,
    /// Nothing is locked or committed.
    pub read_only: bool,
    /// The number of the last group that was committed.
    pub number: i64,
    /// The locks of voted transactions.
    pub held: HashMap<u64, LockKeys>,
    pub next_id: u64,
    pub waiting: VecDeque<Finish>,
    pub gathering: Gathering,
    /// Locks to give back.
    pub free: Vec<LockKeys>,
    pub catch_ups: Vec<CatchUp>,
    /// Votes that have found revisions which are not published yet: they are answered after the next search, so that
    /// a client that has a conflict finds the new state when it begins again. And those of clients that get their tid
    /// at vote, if there is anything to publish: they cannot take an invalidation between their vote and the answer to
    /// their finish.
    pub ahead: Vec<(LockRequest, Granted)>,
    pub last_search: Stopwatch,
    /// Others have committed something: the next search does not wait for its time.
    pub is_notified: bool,
    pub last_estimate: Option<Stopwatch>,
    /// How long the next group waits for the commit lock.
    pub commit_wait: Duration,
    /// It was not granted the last time, and nothing was searched for since.
    pub was_kept_waiting: bool,
    /// What the database must still have.
    pub present: Present,
    /// The database will not forget that it had transactions up to this one.
    pub noted: Tid,
    /// The server; of a storage that is only read, as of the last search: at this position it had all that is
    /// published.
    pub state: ServerState,
    pub servers: Servers,
}

/// Which answer of a message belongs to what.
#[derive(Default)]
struct Expected {
    gives_back: bool,
    notes: Option<Tid>,
    locks: Vec<LockRequest>,
    last: Last,
}

/// The last group of a message.
#[derive(Default)]
enum Last {
    Commit(Group, Stopwatch),
    Search,
    #[default]
    Nothing,
}

impl SequencerThread {
    /// Works until the desk is closed. After a panic nothing is served any more: it is not known how far a commit has
    /// come. What waits gets an error then.
    pub fn run(mut self) {
        let why = format!("{}: the thread that commits has failed; restart the server", self.shared.name);
        if catch_unwind(AssertUnwindSafe(|| self.work_until_closed())).is_err() {
            self.shared.fail(why.clone());
        }
        // Without a failure there are none.
        let left = mem::take(&mut self.waiting).into_iter().chain(self.desk.end());
        for finish in left {
            fail(&self.shared, finish, StorageError::Closed(why.clone()));
        }
    }

    fn work_until_closed(&mut self) {
        let mut is_closed = false;
        while !is_closed || !self.waiting.is_empty() {
            if let Err(lost) = self.turn(&mut is_closed) {
                self.lost(&lost);
            }
        }
        if !self.read_only {
            self.say_goodbye();
        }
    }

    /// Another server has committed something or given locks back.
    pub fn take_notifications<'a>(&mut self, mut servers: impl Iterator<Item = &'a str>) {
        if servers.any(|server| server != self.server) {
            self.is_notified = true;
            self.desk.released.notify_all();
        }
    }

    /// The message of the votes, and its answers.
    pub fn lock(&mut self, locks: Vec<LockRequest>) {
        let (mut batch, mut expected) = (Batch::new(), Expected::default());
        expected.gives_back = self.give_back(&mut batch);
        let last = self.shared.last();
        for request in locks {
            match locks::ask(&mut batch, self.shared.sql, &request.wanted, last) {
                Ok(()) => expected.locks.push(request),
                Err(error) => drop(answer(&request, Err(NotGranted::Failed(error.into())))),
            }
        }
        self.send(&batch, expected);
    }

    /// Adds the locks that are not needed any more. Returns whether there are any.
    fn give_back(&mut self, batch: &mut Batch) -> bool {
        let free = mem::take(&mut self.free);
        !free.is_empty() && locks::give_back(batch, free.iter(), &self.server).is_ok()
    }

    /// The message of a group or a search, and its answers.
    pub fn work(&mut self) -> std::result::Result<(), Lost> {
        let (mut batch, mut expected) = (Batch::new(), Expected::default());
        // What choosing the group adds is given back later.
        expected.gives_back = self.give_back(&mut batch);
        self.fail_unlocked();
        let group = if self.is_search_first() { None } else { self.next_group()? };
        expected.notes = self.note_last(&mut batch);
        if let Some(group) = group {
            expected.last = match self.call(&group, &mut batch) {
                Ok(()) => Last::Commit(group, Stopwatch::start()),
                Err(error) => self.refuse(group, &error),
            };
        } else if self.is_search_due() || !self.catch_ups.is_empty() || !self.ahead.is_empty() {
            let last = self.shared.last().0 as i64;
            let searched = batch.execute(&self.shared.sql.later, &[Value::Int8(last)]);
            let searched = searched.and_then(|()| batch.execute(&self.shared.sql.last, &[Value::Int8(last)]));
            let searched = searched.and_then(|()| match self.read_only {
                true => batch.execute(&standby::STATE, &[]),
                false => Ok(()),
            });
            batch.sync();
            expected.last = if searched.is_ok() { Last::Search } else { Last::Nothing };
        }
        self.send(&batch, expected);
        Ok(())
    }

    /// Whether a group that others keep from the commit lock goes on waiting after a search: clients that want to catch
    /// up would wait with it. One search for each time, so that the group's turn comes.
    fn is_search_first(&self) -> bool {
        let is_wanted = self.is_search_due() || !self.catch_ups.is_empty() || !self.ahead.is_empty();
        self.was_kept_waiting && is_wanted
    }

    /// Sends a message, and takes its answers.
    fn send(&mut self, batch: &Batch, expected: Expected) {
        match self.session.run(batch) {
            Ok(answers) => self.take_answers(expected, answers),
            Err(lost) => {
                // Locks are asked for again on the next session; of the group it must be found out what became of it.
                self.desk.queue.lock().locks.extend(expected.locks);
                self.resolve(&lost, expected.last.into_group());
            }
        }
    }

    /// Adds one group that notes the last transaction, if it was another client's.
    fn note_last(&self, batch: &mut Batch) -> Option<Tid> {
        let last = self.shared.last();
        let note = self.shared.sql.note_last.as_ref().filter(|_| !self.read_only && last > self.noted)?;
        batch.execute(note, &[Value::Int8(last.0 as i64)]).ok()?;
        batch.sync();
        Some(last)
    }

    /// Adds the call that commits a group.
    fn call(&self, group: &Group, batch: &mut Batch) -> std::result::Result<(), TooLarge> {
        if self.commit_wait > COMMIT_WAIT.0 {
            let wait = self.commit_wait.as_millis().to_string();
            batch.execute(&COMMIT_WAIT_TIME, &[Value::Text(&wait)])?;
        }
        group.call(batch, self.shared.sql, self.shared.last(), &self.server)
    }

    /// How long the next group waits for the commit lock.
    pub fn commit_wait(&self) -> Duration {
        self.commit_wait.max(COMMIT_WAIT.0)
    }

    fn is_locked(&self, finish: &Finish) -> bool {
        finish.locks.iter().all(|id| self.held.contains_key(id))
    }

    /// Transactions whose locks were lost with a session, and whose objects have changed since, cannot be committed;
    /// and none can after the storage has failed.
    fn fail_unlocked(&mut self) {
        if let Some(why) = self.shared.failure() {
            for finish in mem::take(&mut self.waiting) {
                self.fail(finish, StorageError::Closed(why.clone()));
            }
            return;
        }
        if self.waiting.iter().all(|finish| self.is_locked(finish)) {
            return;
        }
        let all: Vec<Finish> = self.waiting.drain(..).collect();
        let (good, bad): (Vec<_>, Vec<_>) = all.into_iter().partition(|finish| self.is_locked(finish));
        self.waiting.extend(good);
        for finish in bad {
            let why = format!(
                "{}: the connection to the database was lost after the vote, and others have changed the same objects",
                self.shared.name
            );
            self.fail(finish, StorageError::Disconnected(why));
        }
    }

    fn refuse(&mut self, group: Group, error: &TooLarge) -> Last {
        for finish in group.finishes {
            self.fail(finish, error.clone().into());
        }
        Last::Nothing
    }

    fn take_answers(&mut self, expected: Expected, answers: Vec<Answer>) {
        let mut answers = answers.into_iter();
        if expected.gives_back
            && let Some(Err(error)) = answers.next()
        {
            log::error!(target: LOG, "{}: giving locks back: {error}", self.shared.name);
        }
        if let Some(noted) = expected.notes {
            match answers.next() {
                Some(Err(error)) => {
                    log::warn!(target: LOG, "{}: noting the last transaction: {error}", self.shared.name);
                }
                Some(Ok(_)) => self.noted = noted,
                None => {}
            }
        }
        let mut is_unknown = false;
        for request in expected.locks {
            let Some(reply) = answers.next() else { break };
            is_unknown |= self.take_locks(request, reply);
        }
        match (expected.last, answers.next()) {
            (Last::Commit(group, watch), Some(reply)) => self.take_commit(group, reply, watch.passed()),
            (Last::Search, Some(reply)) => self.take_search(reply),
            _ => {}
        }
        if is_unknown {
            self.lock_again();
        }
    }

    /// Returns whether it is unknown what is locked now.
    fn take_locks(&mut self, request: LockRequest, reply: Answer) -> bool {
        match locks::outcome(&request.wanted, reply) {
            LockOutcome::Got(held, promised) => {
                self.next_id += 1;
                let tid = promised.as_ref().map(|promised| promised.tid);
                let granted = Granted { id: self.next_id, serials: held.serials.clone(), tid };
                self.held.insert(self.next_id, held);
                let last = self.shared.last();
                let is_ahead = promised.is_some_and(|promised| promised.newest > last);
                if is_ahead || granted.serials.values().any(|(serial, _)| *serial > last) {
                    self.ahead.push((request, granted));
                } else {
                    self.grant(&request, granted);
                }
                false
            }
            LockOutcome::Not(held, why) => {
                self.free.push(held);
                answer(&request, Err(why));
                false
            }
            LockOutcome::Unknown(error) => {
                answer(&request, Err(NotGranted::Failed(error)));
                true
            }
        }
    }

    fn grant(&mut self, request: &LockRequest, granted: Granted) {
        let id = granted.id;
        self.gathering.voted(id);
        if !answer(request, Ok(granted)) {
            self.gathering.ended(&[id]);
            self.free.extend(self.held.remove(&id));
        }
    }

    fn take_search(&mut self, reply: Answer) {
        self.searched();
        if let Err(error) = &reply
            && error.code.as_str() == RECOVERY_CONFLICT
        {
            // A standby has ended it: it is searched again at once.
            self.is_notified = true;
            return;
        }
        let found = reply.map_err(|error| refused(&error)).and_then(|rows| {
            let [later, last, state @ ..] = rows.as_slice() else { return Err(malformed("a transaction")) };
            let last = last.first().ok_or_else(|| malformed("a transaction"))?.required_int8(0)?;
            let state = state.first().map(standby::read_state).transpose()?;
            Ok((group::read_later(later)?, Tid(last as u64), state))
        });
        match found {
            Ok((_, newest, _)) if !self.has_what_was_seen(newest) => {
                self.fail_for_good(self.present.newest());
                self.caught_up(|| Ok(()));
            }
            Ok((foreign, _, state)) => {
                self.publish(foreign, Tid::ZERO, Vec::new(), GroupTimes::default());
                self.caught_up(|| Ok(()));
                if let Some(state) = state {
                    self.take_state(state);
                }
            }
            Err(error) => {
                log::error!(target: LOG, "{}: looking for transactions: {error}", self.shared.name);
                let why = error.to_string();
                self.caught_up(|| Err(StorageError::Disconnected(why.clone())));
            }
        }
    }

    /// The state of the server, behind a search. A standby that was promoted keeps its sessions.
    fn take_state(&mut self, state: ServerState) {
        if self.state.is_standby && !state.is_standby {
            log::info!(target: LOG, "{}: the standby is the primary now", self.shared.name);
            self.last_estimate = None;
            if let Err(error) = session::listen(&mut self.session) {
                // It is found out with the next search if the session is lost.
                log::warn!(target: LOG, "{}: {}", self.shared.name, StorageError::from(error));
            }
        }
        self.state = state;
    }

    fn caught_up(&mut self, result: impl Fn() -> Result<()>) {
        for waiting in mem::take(&mut self.catch_ups) {
            // One that has given up needs no answer.
            waiting.give(result());
        }
        for (request, granted) in mem::take(&mut self.ahead) {
            self.grant(&request, granted);
        }
    }

    /// The outcome of a group.
    fn take_commit(&mut self, group: Group, reply: Answer, took: Duration) {
        let rows = match reply {
            Ok(rows) => rows,
            Err(error) => return self.commit_failed(group, &error),
        };
        self.commit_wait = COMMIT_WAIT.0;
        let read = rows.last().ok_or_else(|| malformed("a commit"));
        let (foreign, done) = match read.and_then(group::read) {
            Ok(read) => read,
            Err(error) => return self.resolve(&Lost::new(error.to_string()), Some(group)),
        };
        match done {
            Done::Committed(first) => {
                self.number = group.number;
                self.gathering.committed(took);
                self.shared.syncs.count(group.finishes.len(), took);
                let times = GroupTimes { write: Duration::ZERO, sync: took };
                // The function has noted it.
                self.noted = Group::tid(first, group.finishes.len() - 1);
                self.publish(foreign, first, group.finishes, times);
                self.searched();
                self.caught_up(|| Ok(()));
            }
            Done::Changed(changed) => {
                self.publish(foreign, Tid::ZERO, Vec::new(), GroupTimes::default());
                self.fail_changed(group, &changed);
            }
            Done::TooEarly(newest) => {
                // The commit lock was lost with a session.
                self.publish(foreign, Tid::ZERO, Vec::new(), GroupTimes::default());
                for finish in group.finishes {
                    let why = format!(
                        "{}: the connection to the database was lost after the vote, and others have committed since, \
                         up to transaction {newest}, which is later than the id that this one was given",
                        self.shared.name
                    );
                    self.fail(finish, StorageError::Disconnected(why));
                }
            }
        }
    }

    /// Clients of RelStorage that undo take no locks on objects, so an object may have changed since its vote. The
    /// transactions that it belongs to fail, the others are committed with the next group.
    fn fail_changed(&mut self, group: Group, changed: &[(Oid, Tid)]) {
        for finish in group.finishes.into_iter().rev() {
            let found = finish.written.records.iter().find_map(|record| {
                let (oid, committed) = changed.iter().find(|(oid, _)| *oid == record.oid)?;
                Some(Conflict { oid: *oid, committed: *committed, read: record.serial, data: Vec::new() })
            });
            match found {
                Some(conflict) => self.fail(finish, StorageError::Conflict(Box::new(conflict))),
                None => self.waiting.push_front(finish),
            }
        }
    }

    /// The database has refused the group, and nothing is written.
    pub fn commit_failed(&mut self, group: Group, error: &ServerError) {
        match error.code.as_str() {
            // The commit lock is held by others, or they wait for what this server holds: the group is sent again.
            "55P03" | "40P01" | "40001" => {
                self.commit_wait = (self.commit_wait() * 2).min(COMMIT_WAIT.1);
                self.was_kept_waiting = true;
                log::warn!(target: LOG, "{}: a commit waits: {error}", self.shared.name);
                self.wait_longer(group);
            }
            COMMITTED_BEFORE => {
                self.resolve(&Lost::new(error.to_string()), Some(group));
            }
            // Which transaction it is about is found by sending them one by one.
            _ if group.finishes.len() > 1 => {
                log::warn!(target: LOG, "{}: a group is committed one by one: {error}", self.shared.name);
                self.one_by_one(group);
            }
            _ => {
                log::error!(target: LOG, "{}: a commit has failed: {error}", self.shared.name);
                group.finishes.into_iter().for_each(|finish| self.fail(finish, refused(error)));
            }
        }
    }

    /// Sends the transactions of a group one after the other.
    fn one_by_one(&mut self, group: Group) {
        for finish in group.finishes {
            let single = Group { finishes: vec![finish], number: self.number + 1 };
            let mut batch = Batch::new();
            if let Err(error) = self.call(&single, &mut batch) {
                self.refuse(single, &error);
                continue;
            }
            let watch = Stopwatch::start();
            match self.session.run(&batch) {
                Ok(answers) => {
                    if let Some(reply) = answers.into_iter().next() {
                        self.take_commit(single, reply, watch.passed());
                    }
                }
                Err(lost) => self.resolve(&lost, Some(single)),
            }
        }
    }

    /// Puts the transactions back, but fails those that others have kept from the commit lock for too long. Nothing of
    /// them is written.
    fn wait_longer(&mut self, group: Group) {
        let (wait_max, mut given_up) = (self.options.lock_timeout, 0);
        for mut finish in group.finishes.into_iter().rev() {
            if finish.kept_waiting.get_or_insert_with(Stopwatch::start).passed() < wait_max {
                self.waiting.push_front(finish);
            } else {
                given_up += 1;
                let error = finish.kept_too_long(&self.shared.name);
                self.fail(finish, error);
            }
        }
        if given_up > 0 {
            let name = &self.shared.name;
            log::error!(target: LOG, "{name}: {given_up} commits did not get the commit lock within {wait_max:?}");
        }
    }

    /// Puts the transactions back, in front of the others.
    pub fn again(&mut self, group: Group) {
        group.finishes.into_iter().rev().for_each(|finish| self.waiting.push_front(finish));
    }

    pub fn fail(&mut self, finish: Finish, error: StorageError) {
        for id in fail(&self.shared, finish, error) {
            self.free.extend(self.held.remove(&id));
        }
    }

    pub fn publish(&mut self, foreign: Vec<Foreign>, first: Tid, finishes: Vec<Finish>, times: GroupTimes) {
        let own = (0..finishes.len()).map(|position| Group::tid(first, position));
        self.present.add(foreign.iter().map(|one| one.tid).chain(own));
        let (delivery, ids) = publish(&self.shared, foreign, first, finishes, times);
        for id in ids {
            self.free.extend(self.held.remove(&id));
        }
        delivery.into_iter().for_each(|deliver| deliver());
    }

    /// After an error it is unknown which locks are held: all are given back and taken again.
    fn lock_again(&mut self) {
        let mut batch = Batch::new();
        let ids: Vec<u64> = self.held.keys().copied().collect();
        let asked = locks::take_again(&mut batch, self.shared.sql, self.held.values());
        let answers =
            match asked.map_err(|error| Lost::new(error.to_string())).and_then(|()| self.session.run(&batch))
            {
                Ok(answers) => answers,
                Err(lost) => return self.resolve(&lost, None),
            };
        self.free.clear();
        self.take_relocked(&ids, answers);
    }

    /// Transactions whose objects were changed by others while they were not locked cannot be committed any more.
    pub fn take_relocked(&mut self, ids: &[u64], answers: Vec<Answer>) {
        // The first answer is that of giving all back.
        for (id, reply) in ids.iter().zip(answers.into_iter().skip(1)) {
            if self.held.get(id).is_some_and(|held| !locks::is_as_before(held, reply)) {
                log::warn!(target: LOG, "{}: a voted transaction has lost its locks", self.shared.name);
                self.free.extend(self.held.remove(id));
            }
        }
    }

    /// Looks up the number of objects and the size, which are estimates.
    pub fn estimate(&mut self) -> std::result::Result<(), Lost> {
        self.last_estimate = Some(Stopwatch::start());
        match self.look_up_estimates() {
            Ok(()) => {}
            Err(AskError::Lost(lost)) => return Err(lost),
            Err(AskError::Other(error)) => {
                log::warn!(target: LOG, "{}: looking up its size: {error}", self.shared.name);
            }
        }
        Ok(())
    }

    fn look_up_estimates(&mut self) -> std::result::Result<(), AskError> {
        let rows = ask(&mut self.session, &self.shared.sql.estimates, &[])?;
        let row = rows.first().ok_or_else(|| malformed("a size"))?;
        let (mut count, size) = (row.required_int8(0)?, row.required_int8(1)?);
        self.shared.set_replication(standby::replication(&mut self.session)?);
        if count <= COUNTED_MAX {
            let rows = ask(&mut self.session, &self.shared.sql.count, &[])?;
            count = rows.first().ok_or_else(|| malformed("a number of objects"))?.required_int8(0)?;
        }
        // Neither is negative.
        self.shared.object_count.store(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        self.shared.size.store(u64::try_from(size).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }
}

impl Last {
    fn into_group(self) -> Option<Group> {
        match self {
            Last::Commit(group, _) => Some(group),
            Last::Search | Last::Nothing => None,
        }
    }
}

/// Whether there is still one that waits for the answer.
fn answer(request: &LockRequest, result: std::result::Result<Granted, NotGranted>) -> bool {
    request.answer.give(result)
}
