//! Reading: a few sessions that many threads share.
//!
//! A thread that wants something adds its question to the queue. If no session is at work it takes one and asks all
//! that is in the queue, in one message; those that come during that wait for the next, or take another session if they
//! are many or have waited for a while. So a lone reader pays one round trip and no change of threads, and many readers
//! share round trips and statements ([`questions`](super::questions)).
//!
//! A thread waits for its own answer alone; the one that has asked calls the first of those that are queued then.
//!
//! All sessions are at the server at which the sequencer's session is: another one, such as a standby or the primary of
//! before a failover, may not have what was published. When the sequencer gets a new session, those of before end
//! ([`Readers::renew`]) before anything that it finds is published.

use std::collections::VecDeque;
use std::time::Duration;

use super::questions::{Question, QuestionOutcome, VALUES_MAX, ask_all};
use super::session::{self, AskError, LOG, Purpose, lost};
use super::sql::LoadStatement;
use crate::base::clock::IoDeadline;
use crate::base::sync::{Arc, Condvar, Mutex, MutexGuard, rank};
use crate::postgres::dsn::Dsn;
use crate::postgres::{Connection, Lost, Rows, Statement};
use crate::storage::{Result, StorageError};

/// Sessions at most.
const SESSIONS_MAX: usize = 4;
/// Questions in one message at most.
const BATCH_MAX: usize = 64;
/// If more questions wait than this number for each session at work, another session is used.
const SHARE: usize = 8;
/// A question that has waited for this time uses another session, too.
const GATHER: Duration = Duration::from_micros(200);
/// How long a read waits for a database that cannot be reached, and how often it tries.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(200);

/// The sessions for reading of one storage.
pub struct Readers {
    name: String,
    pool: Mutex<ReaderPool, rank::PostgresReaders>,
}

/// The server of PostgreSQL at which the sequencer's session is.
pub struct Home {
    /// Names this server alone.
    pub dsn: Dsn,
    /// See [`session::identity`].
    pub identity: String,
}

struct ReaderPool {
    questions: VecDeque<Question>,
    idle: Vec<Connection>,
    home: Arc<Home>,
    /// Number of renewals.
    renewals: u64,
    /// Sessions, in use or not, and those that are being opened.
    sessions: usize,
    is_closed: bool,
}

impl Readers {
    /// `name`: of the storage, for messages. Sessions are opened when they are needed.
    pub fn new(name: String, home: Home) -> Readers {
        let pool = ReaderPool {
            questions: VecDeque::new(),
            idle: Vec::new(),
            home: Arc::new(home),
            renewals: 0,
            sessions: 0,
            is_closed: false,
        };
        Readers { name, pool: Mutex::new(pool) }
    }

    /// Reads come from this server from now on, on new sessions.
    pub fn renew(&self, home: Home) {
        let mut pool = self.pool.lock();
        pool.home = Arc::new(home);
        pool.renewals += 1;
        let idle = std::mem::take(&mut pool.idle);
        pool.sessions -= idle.len();
        drop(pool);
        drop(idle);
    }

    /// The rows of one statement, whose parameters are all numbers. Waits for a database that cannot be reached, but
    /// not for ever.
    pub fn ask(&self, statement: &'static Statement, values: &[i64]) -> Result<Rows> {
        let mut all = [0; VALUES_MAX];
        all.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        self.ask_either(statement, None, all)
    }

    /// As [`Readers::ask`], together with other loads that wait.
    pub fn ask_load(&self, load: &'static LoadStatement, values: [i64; VALUES_MAX]) -> Result<Rows> {
        self.ask_either(&load.one, Some(&load.several), values)
    }

    fn ask_either(
        &self,
        statement: &'static Statement,
        several: Option<&'static Statement>,
        values: [i64; VALUES_MAX],
    ) -> Result<Rows> {
        let until = IoDeadline::after(PATIENCE);
        loop {
            let question = Question { statement, several, values, asker: Arc::default() };
            match self.ask_once(question)? {
                QuestionOutcome::Answered(answer) => return answer,
                QuestionOutcome::Lost(error) if until.is_over() => return Err(lost(&self.name, &error)),
                QuestionOutcome::Lost(_) => self.pause()?,
            }
        }
    }

    /// A new session at the same server, for a thread that needs it alone.
    pub fn session(&self, purpose: Purpose<'_>) -> std::result::Result<Connection, Lost> {
        let home = Arc::clone(&self.pool.lock().home);
        open(&home, purpose)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of renewals: a session that was opened before the last one may be at another server.
    pub fn renewals(&self) -> u64 {
        self.pool.lock().renewals
    }

    /// All sessions end. Questions that wait, and later ones, fail.
    pub fn close(&self) {
        let mut pool = self.pool.lock();
        pool.is_closed = true;
        let questions = std::mem::take(&mut pool.questions);
        let idle = std::mem::take(&mut pool.idle);
        drop(pool);
        questions.iter().for_each(|question| question.asker.call());
        drop(idle);
    }

    fn closed(&self) -> StorageError {
        StorageError::Closed(format!("{} is closed", self.name))
    }

    /// Waits a little after a session has broken.
    fn pause(&self) -> Result<()> {
        let pool = self.pool.lock();
        let pool = Condvar::new().wait_timeout(pool, RETRY);
        if pool.is_closed { Err(self.closed()) } else { Ok(()) }
    }

    fn ask_once(&self, question: Question) -> Result<QuestionOutcome> {
        let asker = Arc::clone(&question.asker);
        let gathering = IoDeadline::after(GATHER);
        let mut pool = self.pool.lock();
        pool.questions.push_back(question);
        loop {
            if pool.is_closed {
                return Err(self.closed());
            }
            // Otherwise it is under way in another thread.
            let is_queued = pool.questions.iter().any(|one| Arc::ptr_eq(&one.asker, &asker));
            let can_ask = is_queued && pool.has_session();
            if can_ask && (gathering.is_over() || pool.questions.len() > pool.busy() * SHARE) {
                self.lead(pool);
            } else {
                drop(pool);
            }
            if let Some(outcome) = asker.wait(can_ask.then_some(gathering)) {
                return Ok(outcome);
            }
            pool = self.pool.lock();
        }
    }

    /// Asks what is in the queue, and calls the next thread.
    fn lead(&self, mut pool: MutexGuard<'_, ReaderPool>) {
        let session = pool.idle.pop();
        pool.sessions += usize::from(session.is_none());
        let (home, renewals) = (Arc::clone(&pool.home), pool.renewals);
        let count = pool.questions.len().min(BATCH_MAX);
        let questions: Vec<Question> = pool.questions.drain(..count).collect();
        drop(pool);
        let (session, outcomes) = self.answer(session, &home, &questions);
        let mut pool = self.pool.lock();
        match session {
            Some(session) if !pool.is_closed && pool.renewals == renewals => pool.idle.push(session),
            _ => pool.sessions -= 1,
        }
        let next = pool.questions.front().map(|question| Arc::clone(&question.asker));
        drop(pool);
        if let Some(next) = next {
            next.call();
        }
        for (question, outcome) in questions.iter().zip(outcomes) {
            question.asker.answer(outcome);
        }
    }

    /// Asks. Returns the session, unless it broke, and an outcome for each question.
    fn answer(
        &self,
        session: Option<Connection>,
        home: &Home,
        questions: &[Question],
    ) -> (Option<Connection>, Vec<QuestionOutcome>) {
        let lost = |error: &Lost| questions.iter().map(|_| QuestionOutcome::Lost(error.clone())).collect();
        let mut session = match session.map_or_else(|| open(home, Purpose::Read), Ok) {
            Ok(session) => session,
            Err(error) => {
                log::warn!(target: LOG, "{}: {error}", self.name);
                return (None, lost(&error));
            }
        };
        match ask_all(&mut session, questions) {
            Ok(mut outcomes) => {
                let missing = || QuestionOutcome::Answered(Err(session::malformed("a result")));
                outcomes.resize_with(questions.len(), missing);
                (Some(session), outcomes)
            }
            Err(error) => (None, lost(&error)),
        }
    }
}

/// A new session at this server.
fn open(home: &Home, purpose: Purpose<'_>) -> std::result::Result<Connection, Lost> {
    let mut session = session::open(&home.dsn, purpose)?;
    match session::identity(&mut session) {
        Ok(found) if found == home.identity => Ok(session),
        Ok(_) => Err(Lost::new("another server of PostgreSQL has answered")),
        Err(AskError::Lost(lost)) => Err(lost),
        Err(AskError::Other(error)) => Err(Lost::new(error.to_string())),
    }
}

impl ReaderPool {
    /// Sessions that are at work, or are being opened.
    fn busy(&self) -> usize {
        self.sessions - self.idle.len()
    }

    fn has_session(&self) -> bool {
        !self.idle.is_empty() || self.sessions < SESSIONS_MAX
    }
}
