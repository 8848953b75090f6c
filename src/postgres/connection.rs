//! A session with a PostgreSQL server: batches, simple statements, notifications.
//!
//! One thread uses a connection at a time. While a batch is written, answers are taken in, so that a server that waits
//! for its answers to be read does not make both sides wait. After the first failure of the socket, of the protocol or
//! of the deadline a connection is lost, and every later call says so. Opening one is in `connect.rs`; streams and
//! COPY have files of their own.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::{backend, frontend};

use super::batch::{Batch, Statement, StatementName, parse};
use super::cancel::CancelToken;
use super::collect::{ANSWERS_LEN_MAX, Answer, Collector, Pieces};
use super::error::{Lost, ServerError, broken};
use super::inbox::{Frame, Inbox, MESSAGE_LEN_MAX};
use super::peer::Peer;
use super::session::{Notification, Session, error_of, unexpected};
use super::silence::{self, SilenceCheck};
use super::transport::{Ready, Transport};
use super::wake::Wake;
use crate::base::clock::IoDeadline;

/// `invalid_sql_statement_name`: the session has forgotten its prepared statements, as after `DISCARD ALL`.
const NO_SUCH_STATEMENT: &str = "26000";
/// `feature_not_supported`, in which "cached plan must not change result type" is reported.
const NOT_SUPPORTED: &str = "0A000";
/// The function of the server that reports it.
const CACHED_PLAN: &str = "RevalidateCachedQuery";

/// Upper bounds on what is taken from a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of one message.
    pub message: usize,
    /// Bytes of all rows of a batch.
    pub answers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { message: MESSAGE_LEN_MAX, answers: ANSWERS_LEN_MAX }
    }
}

/// What is done with a message. `true`: it is the last one.
pub(super) type Take<'a> = &'a mut dyn FnMut(&mut Session, Frame<'_>) -> Result<bool, Lost>;

/// How long an exchange may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimit {
    until: Option<IoDeadline>,
    /// The time for each step.
    idle: Option<Duration>,
}

impl TimeLimit {
    /// For the whole exchange.
    pub fn whole(until: Option<IoDeadline>) -> TimeLimit {
        TimeLimit { until, idle: None }
    }

    /// For each step, such as one read.
    pub fn idle(time: Option<Duration>) -> TimeLimit {
        TimeLimit { until: time.map(IoDeadline::after), idle: time }
    }

    /// A step is done.
    fn progress(&mut self) {
        if let Some(time) = self.idle {
            self.until = Some(IoDeadline::after(time));
        }
    }

    /// A server that sends without end does not get around the deadline.
    fn check(&mut self) -> Result<(), Lost> {
        self.progress();
        match self.until {
            Some(until) if until.is_over() => Err(broken(&io::ErrorKind::TimedOut.into())),
            _ => Ok(()),
        }
    }
}

/// Upper bound on a message until the session has begun, from a server that may be anybody's.
const LOGIN_MESSAGE_LEN_MAX: usize = 1 << 20;

/// A session.
pub struct Connection {
    pub(super) transport: Transport,
    pub(super) inbox: Inbox,
    pub(super) session: Session,
    peer: Peer,
    limits: Limits,
    /// The statements that are prepared on the server.
    prepared: HashSet<StatementName>,
    /// Longest duration of a call.
    deadline: Option<Duration>,
    silence: Option<SilenceCheck>,
    lost: Option<Lost>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({}, process {})", self.peer, self.session.pid)
    }
}

impl Connection {
    /// A connection before its start-up message.
    pub(super) fn new(transport: Transport, peer: Peer, limits: Limits) -> Connection {
        Connection {
            transport,
            inbox: Inbox::new(limits.message.min(LOGIN_MESSAGE_LEN_MAX)),
            session: Session::default(),
            peer,
            limits,
            prepared: HashSet::new(),
            deadline: None,
            silence: None,
            lost: None,
        }
    }

    /// The session has begun.
    pub(super) fn set_begun(&mut self) {
        self.inbox.set_limit(self.limits.message);
    }

    /// A parameter as the server has reported it, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameter(name)
    }

    /// The version of the server as a number: 15 of `15.4`, and 0 if it is not told.
    pub fn server_version(&self) -> u32 {
        let version = self.parameter("server_version").unwrap_or_default();
        let major = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        major.parse().unwrap_or(0)
    }

    /// The server's process for this session.
    pub fn backend_pid(&self) -> i32 {
        self.session.pid
    }

    /// The host in use, for the log.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Ends what the session does, from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken::new(self.peer.clone(), self.session.pid, self.session.key)
    }

    /// The longest duration of each later call, after which the connection is lost. `None`: without end.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// What is done about silence while an answer is waited for.
    pub fn set_silence(&mut self, check: SilenceCheck) {
        self.silence = Some(check);
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Why the connection cannot be used any more.
    pub fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }

    /// Sends the batch in one write and reads the answers, one for each group. What was added after the last sync is
    /// not sent.
    ///
    /// Statements that are new on the connection are prepared first. A group that fails because the server has
    /// forgotten a statement has not changed anything, and is run once more, after the groups behind it.
    pub fn run(&mut self, batch: &Batch) -> Result<Vec<Answer>, Lost> {
        debug_assert!(!batch.is_open(), "executions without a sync behind them");
        let all: Vec<usize> = (0..batch.len()).collect();
        let mut answers = self.run_groups(batch, &all)?;
        let again: Vec<usize> =
            (0..answers.len()).filter(|at| answers[*at].as_ref().is_err_and(is_forgotten)).collect();
        if !again.is_empty() {
            for (_, name) in &batch.statements {
                self.forget(*name);
            }
            for (at, answer) in again.iter().zip(self.run_groups(batch, &again)?) {
                answers[*at] = answer;
            }
        }
        Ok(answers)
    }

    /// Runs some of the groups.
    fn run_groups(&mut self, batch: &Batch, groups: &[usize]) -> Result<Vec<Answer>, Lost> {
        let (preparations, missing) = self.preparations(batch, groups);
        let mut expected = vec![0; missing.len()];
        expected.extend(groups.iter().map(|group| batch.groups[*group].executes.len()));
        let mut pieces = vec![&preparations[..]];
        if groups.len() == batch.len() {
            pieces.push(&batch.bytes[..batch.groups.last().map_or(0, |last| last.end)]);
        } else {
            pieces.extend(groups.iter().map(|group| batch.group_bytes(*group)));
        }
        // What is sent to nobody has no answer.
        if expected.is_empty() {
            return Ok(Vec::new());
        }
        let mut collector = Collector::new(expected, self.limits.answers);
        self.exchange(Pieces::new(pieces), &mut |_, frame| {
            collector.take(frame)?;
            Ok(collector.is_complete())
        })?;
        let mut answers = collector.into_answers();
        let groups_answers = answers.split_off(missing.len());
        let mut refused: Vec<(usize, ServerError)> = Vec::new();
        for (at, prepared) in missing.iter().zip(answers) {
            match prepared {
                Ok(_) => self.note_prepared(batch.statements[*at].1),
                Err(error) => refused.push((*at, error)),
            }
        }
        // The reason why a statement could not be prepared says more than that it is not there.
        let explain = |(group, answer): (&usize, Answer)| {
            answer.map_err(|error| {
                let executes = &batch.groups[*group].executes;
                let why = refused.iter().find(|(at, _)| executes.contains(at));
                why.filter(|_| error.code.as_str() == NO_SUCH_STATEMENT).map_or(error, |(_, why)| why.clone())
            })
        };
        Ok(groups.iter().zip(groups_answers).map(explain).collect())
    }

    /// The messages that prepare the statements which the groups need, each with a sync of its own, and the
    /// statements.
    fn preparations(&self, batch: &Batch, groups: &[usize]) -> (BytesMut, Vec<usize>) {
        let (mut messages, mut missing) = (BytesMut::new(), Vec::new());
        for at in groups.iter().flat_map(|group| &batch.groups[*group].executes) {
            let (statement, name) = &batch.statements[*at];
            if self.prepared.contains(name) || missing.contains(at) {
                continue;
            }
            self.prepare(statement, *name, &mut messages);
            missing.push(*at);
        }
        (messages, missing)
    }

    /// Appends the messages that prepare a statement.
    pub(super) fn prepare(&self, statement: &Statement, name: StatementName, out: &mut BytesMut) {
        // No error if there is none of this name.
        frontend::close(b'S', &name.to_string(), out).expect("a name without a zero byte");
        parse(statement, name, out);
        frontend::sync(out);
    }

    pub(super) fn is_prepared(&self, name: StatementName) -> bool {
        self.prepared.contains(&name)
    }

    pub(super) fn note_prepared(&mut self, name: StatementName) {
        self.prepared.insert(name);
    }

    pub(super) fn forget(&mut self, name: StatementName) {
        self.prepared.remove(&name);
    }

    /// Runs SQL statements, of which the results are ignored. All are one database transaction, unless they begin and
    /// end one.
    pub fn simple(&mut self, sql: &str) -> Result<Result<(), ServerError>, Lost> {
        let message = self.query(sql)?;
        let mut failure = None;
        self.exchange(Pieces::new(vec![&message]), &mut |_, frame| {
            match frame.tag {
                backend::ERROR_RESPONSE_TAG => failure = failure.take().or(Some(not_fatal(frame)?)),
                backend::READY_FOR_QUERY_TAG => return Ok(true),
                backend::ROW_DESCRIPTION_TAG
                | backend::DATA_ROW_TAG
                | backend::COMMAND_COMPLETE_TAG
                | backend::EMPTY_QUERY_RESPONSE_TAG => {}
                backend::COPY_IN_RESPONSE_TAG | backend::COPY_OUT_RESPONSE_TAG => {
                    return Err(Lost::new("COPY has calls of its own"));
                }
                tag => return Err(unexpected(tag)),
            }
            Ok(false)
        })?;
        Ok(failure.map_or(Ok(()), Err))
    }

    /// The message that runs SQL statements.
    pub(super) fn query(&mut self, sql: &str) -> Result<BytesMut, Lost> {
        let mut message = BytesMut::new();
        match frontend::query(sql, &mut message) {
            Ok(()) => Ok(message),
            Err(error) => self.fail(Lost::new(format!("a statement that cannot be sent: {error}"))),
        }
    }

    /// Waits for notifications. Returns those that have come, also during other calls; none after the time, or when
    /// `wake` is used. To be notified, the session must have executed `LISTEN`.
    pub fn wait(&mut self, timeout: Duration, wake: &Wake) -> Result<Vec<Notification>, Lost> {
        self.check()?;
        let until = IoDeadline::after(timeout);
        self.wait_until(until, wake).or_else(|lost| self.fail(lost))?;
        Ok(self.session.take_notifications())
    }

    fn wait_until(&mut self, until: IoDeadline, wake: &Wake) -> Result<(), Lost> {
        loop {
            let mut more = true;
            while more {
                more = self.receive()? == Some(true);
                while let Some(frame) = self.inbox.next_frame()? {
                    if frame.tag == backend::ERROR_RESPONSE_TAG {
                        return Err(Lost::by_server(&error_of(frame)?));
                    }
                    if !self.session.take(frame)? {
                        return Err(unexpected(frame.tag));
                    }
                }
            }
            if self.session.is_notified() {
                return Ok(());
            }
            match self.transport.wait(false, Some(wake), Some(until)) {
                Ok(ready) if ready.is_woken => {
                    wake.clear();
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// Sends the pieces and passes the messages that arrive to `take`, until it returns `true`. An error is final.
    pub(super) fn exchange(&mut self, pieces: Pieces<'_>, take: Take<'_>) -> Result<(), Lost> {
        self.check()?;
        let time = TimeLimit::whole(self.deadline.map(IoDeadline::after));
        self.try_exchange(pieces, time, take).or_else(|lost| self.fail(lost))
    }

    /// As [`Connection::exchange`] for much data, of which the receiver may be slow: the deadline is for each piece
    /// that the socket takes or gives.
    pub(super) fn exchange_slowly(&mut self, pieces: Pieces<'_>, take: Take<'_>) -> Result<(), Lost> {
        self.check()?;
        let time = TimeLimit::idle(self.deadline);
        self.try_exchange(pieces, time, take).or_else(|lost| self.fail(lost))
    }

    /// Sends the pieces, all of them, without waiting for an answer. `true`: `take` has found one that ends it.
    pub(super) fn push(&mut self, mut pieces: Pieces<'_>, take: Take<'_>) -> Result<bool, Lost> {
        self.check()?;
        self.try_push(&mut pieces, take).or_else(|lost| self.fail(lost))
    }

    fn try_push(&mut self, pieces: &mut Pieces<'_>, take: Take<'_>) -> Result<bool, Lost> {
        let mut time = TimeLimit::idle(self.deadline);
        let mut is_done = false;
        loop {
            let is_sent = self.send(pieces)?;
            // What has come already: an error, perhaps.
            if self.receive()?.is_some() {
                time.progress();
            }
            is_done = is_done || self.take_arrived(take)?;
            // Never with a part of a message: the server would take the next one for the rest of it.
            if is_sent {
                return Ok(is_done);
            }
            let ready = self.wait_ready(true, time.until)?;
            if ready.to_write {
                time.progress();
            }
        }
    }

    /// Passes the messages that have arrived, until one ends it: `true`.
    fn take_arrived(&mut self, take: Take<'_>) -> Result<bool, Lost> {
        while let Some(frame) = self.inbox.next_frame()? {
            if !self.session.take(frame)? && take(&mut self.session, frame)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`Connection::exchange`], with a deadline; the connection is not marked as lost. Without pieces it only
    /// reads, beginning with what has arrived before.
    pub(super) fn try_exchange(
        &mut self,
        mut pieces: Pieces<'_>,
        mut time: TimeLimit,
        take: Take<'_>,
    ) -> Result<(), Lost> {
        let mut is_done = false;
        loop {
            // What is to be sent is sent, also if the last message has arrived before.
            let is_sent = self.send(&mut pieces)?;
            is_done = is_done || self.take_arrived(take)?;
            if is_done && is_sent {
                return Ok(());
            }
            let ready = self.wait_ready(!is_sent, time.until)?;
            let mut more = ready.to_read;
            while more {
                more = self.receive()? == Some(true);
                is_done = is_done || self.take_arrived(take)?;
                if is_done && is_sent {
                    return Ok(());
                }
                time.check()?;
            }
            time.progress();
        }
    }

    fn wait_ready(&self, and_write: bool, until: Option<IoDeadline>) -> Result<Ready, Lost> {
        silence::wait(&self.transport, self.silence.as_ref(), self.session.pid, and_write, until)
    }

    /// Sends what the socket takes. `true`: everything is sent. An error is not reported if the server has sent
    /// something: it may say why the connection ends.
    fn send(&mut self, pieces: &mut Pieces<'_>) -> Result<bool, Lost> {
        while !pieces.is_empty() {
            match self.transport.try_write(pieces.first()) {
                Ok(Some(count)) => pieces.sent(count),
                Ok(None) => return Ok(false),
                Err(error) => return self.last_words(&error),
            }
        }
        self.transport.try_flush().or_else(|error| self.last_words(&error))
    }

    /// After a write has failed: the error that the server has sent before it closed the connection.
    fn last_words(&mut self, error: &io::Error) -> Result<bool, Lost> {
        loop {
            while let Some(frame) = self.inbox.next_frame()? {
                if frame.tag == backend::ERROR_RESPONSE_TAG {
                    not_fatal(frame)?;
                }
            }
            match self.receive() {
                Ok(Some(_)) => {}
                _ => return Err(broken(error)),
            }
        }
    }

    /// Reads once, without waiting. `None`: nothing was there; `true`: there may be more to read.
    fn receive(&mut self) -> Result<Option<bool>, Lost> {
        let room = self.inbox.room();
        let len = room.len();
        match self.transport.try_read(room) {
            Ok(None) => Ok(None),
            Ok(Some(0)) => Err(Lost::new("the server closed the connection")),
            Ok(Some(count)) => {
                self.inbox.arrived(count);
                // A short read has emptied the socket; TLS reads piece by piece.
                Ok(Some(count == len || self.transport.tls().is_some()))
            }
            Err(error) => Err(broken(&error)),
        }
    }

    pub(super) fn check(&self) -> Result<(), Lost> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Marks the connection as lost. The socket is closed when it is dropped.
    pub(super) fn fail<T>(&mut self, lost: Lost) -> Result<T, Lost> {
        // No error if there is no connection any more.
        let _ = self.transport.socket().shutdown(std::net::Shutdown::Both);
        self.lost = Some(lost.clone());
        Err(lost)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.lost.is_none() {
            let mut message = BytesMut::new();
            frontend::terminate(&mut message);
            self.transport.say_goodbye(&message);
        }
    }
}

/// The server's error, unless it ends the connection.
pub(super) fn not_fatal(frame: Frame<'_>) -> Result<ServerError, Lost> {
    let error = error_of(frame)?;
    if error.is_fatal() { Err(Lost::by_server(&error)) } else { Ok(error) }
}

/// Whether the statement must be prepared again.
pub(super) fn is_forgotten(error: &ServerError) -> bool {
    match error.code.as_str() {
        NO_SUCH_STATEMENT => true,
        NOT_SUPPORTED => error.routine.as_deref() == Some(CACHED_PLAN),
        _ => false,
    }
}
