//! Finds out whether a call was slow, and notes it.

use super::{CallTimes, SlowRequest, WaitedFor, line};
use crate::base::level::WARNING;
use crate::base::untrusted::Untrusted;
use crate::server::client_log;
use crate::server::registered::Registered;
use crate::server::transaction::state::TransactionId;

impl Registered {
    /// A call that begins now.
    pub fn begin_call(&self, method: &'static str) -> CallTimes {
        CallTimes::begin(method, self.hosted.clock.now())
    }

    /// Counts a call whose last step has ended. Returns what is to be noted if it was slow.
    pub fn end_call(&self, call: &CallTimes) -> Option<SlowRequest> {
        let took = call.total();
        self.hosted.call_histograms.count(call.method, took);
        let slow = self.hosted.slow_requests.is_slow(took);
        slow.then(|| {
            let behind = call.behind.map(|behind| WaitedFor {
                client: behind.owner,
                label: self.hosted.connection(behind.owner).map(|connection| connection.peer.label()),
                oid: behind.oid,
            });
            SlowRequest {
                at: self.hosted.clock.system_time(),
                method: call.method,
                client: self.connection.id(),
                label: self.connection.peer.label(),
                took,
                steps: call.steps(),
                behind,
                oid: None,
                tid: None,
                transaction: None,
            }
        })
    }

    /// Keeps a slow request for reports, and logs it. Not while a lock is held that forbids logging.
    pub fn note_slow(&self, slow: Option<SlowRequest>) {
        if let Some(request) = slow {
            self.connection.peer.log(&client_log::SLOW, WARNING, format_args!("{}", line(&request)));
            self.hosted.slow_requests.push(request);
        }
    }
}

impl SlowRequest {
    /// It was for this transaction.
    pub fn of_transaction(mut self, id: &TransactionId) -> SlowRequest {
        let text = |bytes: &[u8]| Untrusted(&String::from_utf8_lossy(bytes)).to_string();
        self.transaction = Some([text(&id.user), text(&id.description)]);
        self
    }
}
