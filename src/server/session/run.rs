//! The loop of a session: read what is there, answer all of it, wait for more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::base::sync::Arc;
use crate::net::stream::{Sink, Stream};
use crate::server::Server;
use crate::server::connection::{Connection, Transaction};
use crate::server::hosted::LOG;
use crate::server::outbox::Outbox;
use crate::server::session::greeting::greet;
use crate::server::session::{Session, abort, iterate, load};
use crate::wire::frame::FrameReader;
use crate::wire::protocol::Wire;

/// Longest message of a peer that has not registered yet: names of storages and credentials are short.
const STRANGER_MESSAGE_LEN_MAX: usize = 64 << 10;

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed, or its connection broke.
    Gone,
    /// It broke the protocol; the line for the log has been written.
    Misbehaved,
}

/// Serve one client until it goes. `peer` is its address as the log shows it.
pub fn serve(server: &Arc<Server>, stream: Stream, id: u64, peer: String) {
    let outbox = Arc::new(Outbox::new(stream));
    let connection = Arc::new(Connection::new(id, outbox, peer));
    if !server.add_client(&connection) {
        connection.outbox.sink().shutdown();
        return;
    }
    let mut session = Session {
        server: Arc::clone(server),
        connection,
        registered: None,
        reads: load::Batch::default(),
        iterators: iterate::Iterators::default(),
        verifying: false,
    };
    // A bug's panic (which the panic hook has logged) ends this connection, and nothing else.
    let ended = catch_unwind(AssertUnwindSafe(|| session.run()));
    if ended.is_err() {
        let label = session.connection.label();
        log::error!(target: LOG, "({label}) internal error, the connection is closed");
    }
    session.end();
}

impl Session {
    fn run(&mut self) -> End {
        let mut frames = FrameReader::with_limit(STRANGER_MESSAGE_LEN_MAX);
        let outbox = Arc::clone(&self.connection.outbox);
        let peer = self.connection.label();
        let greeted = match greet(&self.server, &outbox, &mut frames, &peer) {
            Ok(Some(greeted)) => greeted,
            Ok(None) | Err(_) => return End::Gone,
        };
        let mut wire: Option<Wire> = None;
        loop {
            loop {
                let frame = match frames.next() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => {
                        log::error!(target: LOG, "({}) {error}; the connection is closed", self.connection.label());
                        return End::Misbehaved;
                    }
                };
                let wire = *wire.get_or_insert_with(|| {
                    let wire = Wire::of_first_message(greeted.generation, greeted.msgpack, frame.payload);
                    self.connection.set_wire(wire);
                    wire
                });
                match wire.decode(frame.payload) {
                    Ok(call) => {
                        if let Err(end) = self.dispatch(call) {
                            return end;
                        }
                        if self.registered.is_some() {
                            frames.set_limit(self.server.message_len_max());
                        }
                        // It may have asked for gigabytes before it went.
                        if outbox.is_closed() {
                            return End::Gone;
                        }
                    }
                    Err(error) => {
                        log::error!(target: LOG, "({}) {error}; the connection is closed", self.connection.label());
                        return End::Misbehaved;
                    }
                }
            }
            self.flush_reads();
            match outbox.sink().recv(frames.spare()) {
                Ok(0) | Err(_) => return End::Gone,
                Ok(received) => frames.filled(received),
            }
        }
    }

    /// Queue and send the replies to reads that were collected.
    pub(super) fn flush_reads(&mut self) {
        if let Some(on) = &self.registered {
            self.reads.flush(&on.hosted, &self.connection);
        }
    }

    /// Give back everything that the client had.
    fn end(mut self) {
        self.flush_reads();
        let connection = Arc::clone(&self.connection);
        let reason = connection.outbox.close_reason();
        if self.server.is_stopping() {
            wait_for_finish(&connection);
        }
        if let Some(on) = self.registered.take() {
            self.end_verifying(&on);
            let doing = match &*connection.transaction.lock() {
                Transaction::None => "",
                Transaction::Voted { .. } | Transaction::Finishing { .. } => " during locked transaction",
                _ => " during unlocked transaction",
            };
            // Registration ends last: publishing a finish that is under way still finds the connection.
            abort(&on.hosted, &connection);
            on.hosted.remove_connection(&connection);
            let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            log::info!(target: LOG, "({}) disconnected{doing}{why}", connection.label());
        }
        connection.outbox.close("disconnected");
        self.server.remove_client(&connection);
    }
}

/// A stop answers what is being finished (rule L4).
fn wait_for_finish(connection: &Connection) {
    while matches!(*connection.transaction.lock(), Transaction::Finishing { .. }) {
        if connection.outbox.close_reason().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
