//! The loop of a session: read the available messages, answer them, wait for more.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::level::{ERROR, INFO};
use crate::base::log_rate::LogRate;
use crate::base::sync::{Arc, Ordering};
use crate::net::stream::Sink;
use crate::process::priority::stand_back;
use crate::server::Server;
use crate::server::admission::{AdmissionGuard, TOO_SLOW};
use crate::server::audit::Event;
use crate::server::client_log;
use crate::server::connection::Connection;
use crate::server::outbox::UNREAD;
use crate::server::rates::Answered;
use crate::server::session::greeting::{greet, secure};
use crate::server::session::identity::Identity;
use crate::server::session::{Session, iterate, load, transfers};
use crate::server::stats::count;
use crate::server::transaction::state::{OpenTransaction, Transaction};
use crate::wire::frame::FrameReader;
use crate::wire::protocol::Wire;

/// Longest message of an unregistered connection, in bytes: names of storages and credentials are short.
const UNREGISTERED_MESSAGE_LEN_MAX: usize = 64 << 10;

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed, or its connection broke.
    Gone,
    /// It broke the protocol, or there is no memory for its messages; the line for the log has been written.
    Misbehaved,
}

/// Serves one connection until it ends.
pub fn serve(server: &Arc<Server>, connection: Arc<Connection>, admission: AdmissionGuard) {
    if !server.add_client(&connection) {
        connection.outbox.sink().shutdown();
        return;
    }
    let policy = Arc::clone(admission.policy());
    let stands_back = policy.options().low_priority;
    if stands_back {
        stand_back();
    }
    let demanded = policy.authentication();
    let mut session = Session {
        server: Arc::clone(server),
        limits: server.limits(),
        connection,
        admission,
        registered: None,
        identity: Identity::new(demanded.as_ref().map(|demanded| demanded.protocol.as_ref())),
        demanded,
        policy,
        reads: load::Batch::new(stands_back),
        iterators: iterate::Iterators::default(),
        upload: transfers::Receiving::default(),
        downloads: Arc::default(),
        background_jobs: Arc::default(),
        sent_paid: Some(0),
        verifying: false,
    };
    // A bug's panic (which the panic hook has logged) ends this connection, and nothing else.
    let ended = catch_unwind(AssertUnwindSafe(|| session.run()));
    if ended.is_err() {
        let message = format_args!("internal error, the connection is closed");
        session.log(&client_log::ENDED, ERROR, message);
    }
    session.end();
}

impl Session {
    fn run(&mut self) -> End {
        if !self.arrive() || !secure(&self.server, &self.connection, &mut self.identity.client) {
            return End::Gone;
        }
        let end = self.converse();
        if self.registered.is_none() && self.connection.outbox.close_reason() == Some(TOO_SLOW) {
            self.server.admission().log_too_slow(&self.connection, "it has not registered", "");
        }
        end
    }

    fn converse(&mut self) -> End {
        let mut frames = FrameReader::with_limit(UNREGISTERED_MESSAGE_LEN_MAX);
        let outbox = Arc::clone(&self.connection.outbox);
        let greeted =
            match greet(&self.server, |storage| self.may_know(storage), &self.connection, &mut frames) {
                Ok(Some(greeted)) => greeted,
                Ok(None) | Err(_) => return End::Gone,
            };
        let mut wire: Option<Wire> = None;
        let mut requests = 0;
        loop {
            loop {
                let frame = match frames.next() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) if self.refuse_long_message(&error) => {
                        frames.skip(&error);
                        continue;
                    }
                    Err(error) => {
                        let key = if self.registered.is_some() { " (max-message-size)" } else { "" };
                        self.log_end(format_args!("{error}{key}"));
                        return End::Misbehaved;
                    }
                };
                if let Err(what) = self.identity.check(&frame, &self.connection) {
                    self.log_end(what);
                    return End::Misbehaved;
                }
                let wire = *wire.get_or_insert_with(|| {
                    let wire = Wire::of_first_message(greeted.generation, greeted.msgpack, frame.payload);
                    self.connection.set_wire(wire);
                    wire
                });
                requests += 1;
                match wire.decode(frame.payload) {
                    Ok(call) => {
                        if let Err(end) = self.dispatch(call) {
                            return end;
                        }
                        if self.registered.is_some() {
                            frames.set_limit(self.limits.message_size);
                        }
                        // It may have asked for gigabytes before it went.
                        if outbox.is_closed() {
                            return End::Gone;
                        }
                    }
                    Err(error) => {
                        self.log_end(error);
                        return End::Misbehaved;
                    }
                }
            }
            self.flush_reads();
            self.keep_to_rates(std::mem::take(&mut requests));
            let spare = match frames.spare() {
                Ok(spare) => spare,
                Err(error) => {
                    self.log_end(format_args!("a message cannot be received: {error}"));
                    return End::Misbehaved;
                }
            };
            match outbox.sink().recv(spare) {
                Ok(0) | Err(_) => return End::Gone,
                Ok(received) => {
                    self.connection.has_received(received);
                    frames.filled(received);
                }
            }
        }
    }

    /// Waits if the client's address, or a network that it is in, is ahead of its rates. `requests`: those since the
    /// last call.
    fn keep_to_rates(&mut self, requests: u64) {
        let Some(registered) = &self.registered else { return };
        let connection = &self.connection;
        let Some(options) = self.policy.with_rates_for(&connection.peer) else {
            self.sent_paid = None;
            return;
        };
        let sent = connection.outbox.load().sent;
        let more = self.sent_paid.replace(sent).map_or(0, |paid| sent.saturating_sub(paid));
        let (answered, now) = (Answered { requests, sent: more }, self.server.clock().now());
        let wait = self.policy.count_answered(&options, &connection.peer, answered, now);
        // Others wait for its locks.
        let is_voted = || connection.transaction.is_voted().load(Ordering::SeqCst);
        let Some((wait, network)) = wait.filter(|_| !is_voted()) else { return };
        count(&registered.hosted.stats.throttled);
        let seconds = wait.as_secs_f64();
        let rates = "max-requests-per-second or max-sent-per-second";
        match network {
            None => {
                let message = format_args!("asks for more than {rates}, and waits for {seconds:.1} s");
                connection.peer.log(&client_log::THROTTLED, INFO, message);
            }
            Some(network) => {
                let message = format_args!(
                    "asks, with the other clients of {}, for more than its {rates}, and waits for {seconds:.1} s",
                    network.name()
                );
                connection.peer.log(&client_log::NETWORK_THROTTLED, INFO, message);
            }
        }
        drop(options);
        connection.outbox.wait_until_closed(wait);
    }

    /// The peer has broken the protocol.
    fn log_end(&self, what: impl std::fmt::Display) {
        self.log(&client_log::ENDED, ERROR, format_args!("{what}; the connection is closed"));
    }

    /// Logs an error of the peer, limited by `rate`, or by the rate of unregistered connections if it is one.
    pub(super) fn log(&self, rate: &'static LogRate, level: u8, message: std::fmt::Arguments<'_>) {
        let rate = if self.registered.is_some() { rate } else { &client_log::UNREGISTERED };
        self.connection.peer.log(rate, level, message);
    }

    /// Queues and sends the replies to the loads that were collected.
    pub(super) fn flush_reads(&mut self) {
        if let Some(registered) = &self.registered {
            self.reads.flush(registered);
        }
    }

    /// Gives back everything that the connection holds.
    fn end(mut self) {
        self.flush_reads();
        let connection = Arc::clone(&self.connection);
        let reason = connection.outbox.close_reason();
        if self.server.is_stopping() {
            // The client gets the answer to a finish that is under way.
            connection.transaction.wait_for_finish(|| connection.outbox.is_closed());
        }
        let hosted = self.registered.as_ref().map(|registered| Arc::clone(&registered.hosted));
        if let Some(registered) = self.registered.take() {
            self.end_verifying(&registered);
            if reason == Some(UNREAD) {
                count(&registered.hosted.stats.unread);
            }
            let doing = match &*connection.transaction.lock() {
                Transaction::None => "",
                Transaction::Voted { .. }
                | Transaction::Finishing { .. }
                | Transaction::Open(OpenTransaction { locks: Some(_), .. }) => " during locked transaction",
                _ => " during unlocked transaction",
            };
            // Registration ends last: publishing a finish that is under way still finds the connection.
            registered.abort();
            registered.hosted.remove_connection(&connection);
            let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            connection.peer.log(&client_log::DEPARTURES, INFO, format_args!("disconnected{doing}{why}"));
            let name = &registered.hosted.name;
            self.server.audit().note(Event::Disconnect, Some(name), Some(&connection), |facts| {
                facts.insert("why".into(), reason.into());
            });
        }
        connection.outbox.close("disconnected");
        // Behind the close: a dry run that begins now sees that.
        if let Some(hosted) = hosted {
            hosted.pack_plan.cancel_of(connection.id());
        }
        self.server.remove_client(&connection);
    }
}
