//! Rate-limited log lines about clients. All lines about clients are written here ([`Peer::log`]): as one line, with
//! what clients choose escaped and cut, and within the limits below, so that no client fills the disk, forges a line
//! or hides what happens to others.
//!
//! Exempt are DEBUG and BLATHER, which are written only if they were asked for: their number is the operator's choice.
//!
//! The limits are meant for floods. An honest site loses no line that matters: hundreds of clients that restart at once
//! write fewer lines about themselves, and of errors 50 in a minute tell as much as a thousand.

use std::fmt;
use std::time::Instant;

use crate::base::level::{self, DEBUG, WARNING};
use crate::base::log_rate::{self, LogRate};
use crate::base::untrusted::one_line;
use crate::log_at;
use crate::server::peer::Peer;

/// Target of all log lines about clients, as in Python.
pub const LOG: &str = "ZEO.StorageServer";
/// Longest message, in bytes.
const LINE_MAX: usize = 2000;

/// Errors of unregistered connections.
pub static UNREGISTERED: LogRate = LogRate::new("errors of unregistered connections", 20, 300).same_once();
/// Handshakes.
pub static HANDSHAKES: LogRate = LogRate::new("handshakes", 500, 2000);
/// Certificates and users that were accepted.
pub static IDENTITIES: LogRate = LogRate::new("lines about certificates and users", 500, 2000);
/// Cache verification.
pub static VERIFICATIONS: LogRate = LogRate::new("lines about cache verification", 500, 2000);
/// Disconnected clients.
pub static DEPARTURES: LogRate = LogRate::new("ends of connections", 500, 2000);
/// Failed authentications; tools like fail2ban need fewer from one address.
pub static FAILED_AUTHENTICATIONS: LogRate = LogRate::new("failed authentications", 20, 1000);
/// Errors that calls ended with, and calls that are none.
pub static CALLS: LogRate = LogRate::new("errors of calls", 50, 500);
/// Calls for a transaction that is not the open one, `tpc_begin` and `register` once more.
pub static WRONG_STATE: LogRate = LogRate::new("calls that were out of order", 50, 500);
/// Errors of transactions, or of the storage of a transaction.
pub static TRANSACTIONS: LogRate = LogRate::new("errors of transactions", 50, 500);
/// Blobs that cannot be stored or sent.
pub static BLOBS: LogRate = LogRate::new("errors about blobs", 50, 500);
/// Objects that cannot be read.
pub static READS: LogRate = LogRate::new("errors of loads", 50, 500);
/// Connections that the server ends because of their messages.
pub static ENDED: LogRate = LogRate::new("ends of connections by the server", 50, 500);
/// Packs that were asked for, and how they ended.
pub static PACKS: LogRate = LogRate::new("lines about packs", 60, 300);
/// The same for packs by schedule, whose errors may quote what clients have stored.
pub static SCHEDULED_PACKS: LogRate = LogRate::new("lines about packs by schedule", 60, 300);
/// Transactions that wait for the locks of others.
pub static WAITING: LogRate = LogRate::new("lines about transactions that wait", 300, 1000);
/// Lines of the audit log that clients can cause without a commit.
pub static AUDITED_CONNECTIONS: LogRate = LogRate::new("lines of the audit log about connections", 600, 6000);
/// Addresses that are ahead of their rates.
pub static THROTTLED: LogRate =
    LogRate::new("waits for max-requests-per-second and max-sent-per-second", 1, 60);
/// Clients whose networks are ahead of their rates.
pub static NETWORK_THROTTLED: LogRate = LogRate::new("waits for the rates of a <network>", 1, 60);
/// Requests that took long.
pub static SLOW: LogRate = LogRate::new("slow requests", 60, 300);
/// Connections that are not served for lack of threads, descriptors and the like.
pub static NOT_SERVED: LogRate = LogRate::new("lines about clients that cannot be served", 20, 20);
/// Worker threads that cannot be started.
pub static NO_THREAD: LogRate = LogRate::first_of_run("threads could not be started");

/// Connections refused or closed by the limits on connections.
pub static NOT_ALLOWED: LogRate = LogRate::new("connections that 'allow' refuses", 1, 60);
/// Requests of HTTP for a name that is not the server's.
pub static OTHER_NAMES: LogRate = LogRate::new("requests of HTTP for other names", 1, 60);
/// What the rules of `<access>` do not permit.
pub static DENIED: LogRate = LogRate::new("clients and calls that <access> does not permit", 1, 60);
pub static FULL: LogRate = LogRate::first_of_run("connections were refused by max-connections");
pub static LISTENER_FULL: LogRate =
    LogRate::first_of_run("connections were refused by max-connections of a listener");
pub static ADDRESS_FULL: LogRate =
    LogRate::first_of_run("connections were refused by max-connections-per-address");
pub static TOO_SLOW: LogRate = LogRate::first_of_run("connections were closed by handshake-timeout");
pub static MADE_ROOM: LogRate =
    LogRate::first_of_run("connections were closed to make room, because of max-unregistered");
pub static NO_ROOM: LogRate = LogRate::first_of_run("connections were refused by max-unregistered");

impl Peer {
    /// `({label}) {message}` at one of Python's levels, if `rate` admits one more line about this client.
    pub fn log(&self, rate: &'static LogRate, level: u8, message: fmt::Arguments<'_>) {
        self.log_as(LOG, rate, level, message);
    }

    /// The same for another of Python's loggers.
    pub fn log_as(&self, logger: &str, rate: &'static LogRate, level: u8, message: fmt::Arguments<'_>) {
        if is_enabled(logger, level) {
            let message = one_line(LINE_MAX, message);
            if rate.admits(self.host(), &message) {
                self.write(logger, level, &message);
            }
        }
    }

    /// A line about the client's locks. Such lines are useful only if complete: at DEBUG none is left out.
    pub fn log_lock(&self, level: u8, message: fmt::Arguments<'_>) {
        if is_enabled(LOG, level) {
            let message = one_line(LINE_MAX, message);
            if is_enabled(LOG, DEBUG) || WAITING.admits(self.host(), &message) {
                self.write(LOG, level, &message);
            }
        }
    }

    fn write(&self, logger: &str, level: u8, message: &str) {
        // The client's name for itself was escaped when it was set.
        log_at!(target: logger, level, "({}) {message}", self.label());
    }
}

fn is_enabled(logger: &str, level: u8) -> bool {
    log::log_enabled!(target: logger, level::carrier(level))
}

/// A line about clients that names none of them.
pub fn log_without_peer(rate: &'static LogRate, level: u8, message: fmt::Arguments<'_>) {
    let message = one_line(LINE_MAX, message);
    if rate.admits(None, &message) {
        log_at!(target: LOG, level, "{message}");
    }
}

/// Logs how many lines were left out in minutes that are over; `at_once`, before the process ends: also in those that
/// are not.
pub fn log_left_out(now: Instant, at_once: bool) {
    for summary in log_rate::summaries(now, at_once) {
        log_at!(target: LOG, WARNING, "{summary}");
    }
}
