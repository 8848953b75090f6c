//! Reading: a few sessions that many threads share.
//!
//! A thread that wants something adds its question to the queue. If a session is free it takes the session and asks all
//! that is in the queue, in one message; those that come during that wait for the next. So a lone reader pays one round
//! trip and no change of threads, and many readers share round trips.
//!
//! All sessions are at the server at which the sequencer's session is: another one, such as a standby or the primary of
//! before a failover, may not have what was published. When the sequencer gets a new session, those of before end
//! ([`Readers::renew`]) before anything that it finds is published.

use std::collections::VecDeque;
use std::iter::repeat_with;
use std::time::Duration;

use super::session::{self, AskError, LOG, Purpose, RECOVERY_CONFLICT, lost, only};
use crate::base::clock::IoDeadline;
use crate::base::sync::{Arc, Condvar, Mutex, MutexGuard, rank};
use crate::postgres::dsn::Dsn;
use crate::postgres::{Answer, Batch, Connection, Lost, Rows, Statement, TooLarge, Value};
use crate::storage::{Result, StorageError};

/// Sessions at most.
const SESSIONS_MAX: usize = 4;
/// Questions in one message at most.
const BATCH_MAX: usize = 64;
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

struct Question {
    statement: &'static Statement,
    values: [i64; 3],
    asker: Arc<Asker>,
}

/// A thread that waits.
struct Asker {
    answer: Mutex<Option<QuestionOutcome>, rank::PostgresAnswer>,
    /// Belongs to the lock of the pool.
    woken: Condvar,
}

enum QuestionOutcome {
    Answered(Result<Rows>),
    /// The session broke, or the question can be asked again for another reason.
    Lost(Lost),
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
        let mut all = [0; 3];
        all.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        let until = IoDeadline::after(PATIENCE);
        loop {
            let asker = Arc::new(Asker { answer: Mutex::default(), woken: Condvar::new() });
            match self.ask_once(Question { statement, values: all, asker: Arc::clone(&asker) }, &asker)? {
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
        for question in &pool.questions {
            question.asker.woken.notify_all();
        }
        let idle = std::mem::take(&mut pool.idle);
        drop(pool);
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

    fn ask_once(&self, question: Question, asker: &Asker) -> Result<QuestionOutcome> {
        let mut pool = self.pool.lock();
        pool.questions.push_back(question);
        loop {
            if let Some(outcome) = asker.answer.lock().take() {
                return Ok(outcome);
            }
            if pool.is_closed {
                return Err(self.closed());
            }
            // With an empty queue this question is under way in another thread.
            if pool.questions.is_empty() || !pool.has_session() {
                pool = asker.woken.wait(pool);
                continue;
            }
            let session = pool.idle.pop();
            pool.sessions += usize::from(session.is_none());
            let (home, renewals) = (Arc::clone(&pool.home), pool.renewals);
            let count = pool.questions.len().min(BATCH_MAX);
            let questions: Vec<Question> = pool.questions.drain(..count).collect();
            drop(pool);
            let session = self.answer(session, &home, &questions);
            pool = self.pool.lock();
            let is_current = pool.renewals == renewals;
            self.give_back(&mut pool, session.filter(|_| is_current));
            questions.iter().for_each(|question| question.asker.woken.notify_all());
        }
    }

    /// Another thread may take the session for what has come since.
    fn give_back(&self, pool: &mut MutexGuard<'_, ReaderPool>, session: Option<Connection>) {
        match session {
            Some(session) if !pool.is_closed => pool.idle.push(session),
            _ => pool.sessions -= 1,
        }
        if let Some(next) = pool.questions.front() {
            next.asker.woken.notify_all();
        }
    }

    /// Asks, and leaves each answer with its asker. Returns the session, unless it broke.
    fn answer(&self, session: Option<Connection>, home: &Home, questions: &[Question]) -> Option<Connection> {
        let fail = |error: &Lost| {
            for question in questions {
                *question.asker.answer.lock() = Some(QuestionOutcome::Lost(error.clone()));
            }
        };
        let mut session = match session {
            Some(session) => session,
            None => match open(home, Purpose::Read) {
                Ok(session) => session,
                Err(error) => {
                    log::warn!(target: LOG, "{}: {error}", self.name);
                    fail(&error);
                    return None;
                }
            },
        };
        match ask_all(&mut session, questions) {
            Ok(answers) => {
                let missing = || QuestionOutcome::Answered(Err(session::malformed("a result")));
                for (question, answer) in
                    questions.iter().zip(answers.into_iter().chain(repeat_with(missing)))
                {
                    *question.asker.answer.lock() = Some(answer);
                }
                Some(session)
            }
            Err(error) => {
                fail(&error);
                None
            }
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
    fn has_session(&self) -> bool {
        !self.idle.is_empty() || self.sessions < SESSIONS_MAX
    }
}

/// Asks all in one message, as one database transaction, which costs the server less than one for each. If one of them
/// fails, all are asked again, each on its own.
fn ask_all(
    session: &mut Connection,
    questions: &[Question],
) -> std::result::Result<Vec<QuestionOutcome>, Lost> {
    let too_large = |error: TooLarge| Lost::new(error.to_string());
    if questions.len() > 1 {
        let together = session.run(&batch_of(questions, false).map_err(too_large)?)?;
        if let Some(Ok(rows)) = together.into_iter().next() {
            return Ok(rows.into_iter().map(|rows| QuestionOutcome::Answered(Ok(rows))).collect());
        }
    }
    let apart = session.run(&batch_of(questions, true).map_err(too_large)?)?;
    Ok(apart.into_iter().map(outcome).collect())
}

/// What a standby has ended, because replication waited for it, is asked again.
fn outcome(answer: Answer) -> QuestionOutcome {
    match &answer {
        Err(error) if error.code.as_str() == RECOVERY_CONFLICT => {
            QuestionOutcome::Lost(Lost::by_server(error))
        }
        _ => QuestionOutcome::Answered(only(answer)),
    }
}

/// `apart`: each is a database transaction of its own.
fn batch_of(questions: &[Question], apart: bool) -> std::result::Result<Batch, TooLarge> {
    let mut batch = Batch::new();
    for (number, Question { statement, values, .. }) in (1..).zip(questions) {
        let values = values.map(Value::Int8);
        batch.execute(statement, values.get(..statement.types.len()).unwrap_or(&values))?;
        if apart || number == questions.len() {
            batch.sync();
        }
    }
    Ok(batch)
}
