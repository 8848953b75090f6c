//! How many requests of each kind a client has made, for monitoring. Each connection counts its own, and its session is
//! the only one that writes them: a request costs an addition to memory that no other thread writes.

use crate::base::sync::{AtomicU64, Ordering};
use crate::wire::request::Request;

/// A kind of request. What older generations call otherwise is of the same kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestKind {
    Load,
    LoadSerial,
    GetTid,
    History,
    Begin,
    Store,
    CheckCurrent,
    StoreBlob,
    Vote,
    Finish,
    Abort,
    Undo,
    UndoLog,
    NewOids,
    Invalidations,
    Verify,
    SendBlob,
    Iterate,
    Pack,
    Info,
    Other,
}

/// All kinds, in the order of their numbers.
const KINDS: [RequestKind; 21] = [
    RequestKind::Load,
    RequestKind::LoadSerial,
    RequestKind::GetTid,
    RequestKind::History,
    RequestKind::Begin,
    RequestKind::Store,
    RequestKind::CheckCurrent,
    RequestKind::StoreBlob,
    RequestKind::Vote,
    RequestKind::Finish,
    RequestKind::Abort,
    RequestKind::Undo,
    RequestKind::UndoLog,
    RequestKind::NewOids,
    RequestKind::Invalidations,
    RequestKind::Verify,
    RequestKind::SendBlob,
    RequestKind::Iterate,
    RequestKind::Pack,
    RequestKind::Info,
    RequestKind::Other,
];

impl RequestKind {
    fn of(request: &Request<'_>) -> RequestKind {
        match request {
            Request::LoadBefore { .. }
            | Request::Load { .. }
            | Request::LoadEx { .. }
            | Request::ZeoLoad { .. } => RequestKind::Load,
            Request::LoadSerial { .. } => RequestKind::LoadSerial,
            Request::GetTid { .. } | Request::GetSerial { .. } => RequestKind::GetTid,
            Request::History { .. } => RequestKind::History,
            Request::TpcBegin(_) => RequestKind::Begin,
            Request::Store { .. } | Request::Restore { .. } | Request::DeleteObject { .. } => {
                RequestKind::Store
            }
            Request::CheckCurrentSerial { .. } => RequestKind::CheckCurrent,
            Request::StoreBlobStart
            | Request::StoreBlobChunk { .. }
            | Request::StoreBlobEnd { .. }
            | Request::StoreBlobShared { .. } => RequestKind::StoreBlob,
            Request::Vote { .. } => RequestKind::Vote,
            Request::TpcFinish { .. } => RequestKind::Finish,
            Request::TpcAbort { .. } => RequestKind::Abort,
            Request::Undo { .. } => RequestKind::Undo,
            Request::UndoLog { .. } | Request::UndoInfo { .. } => RequestKind::UndoLog,
            Request::NewOid | Request::NewOids { .. } => RequestKind::NewOids,
            Request::GetInvalidations { .. } => RequestKind::Invalidations,
            Request::ZeoVerify { .. } | Request::Verify { .. } | Request::EndZeoVerify => RequestKind::Verify,
            Request::SendBlob { .. } => RequestKind::SendBlob,
            Request::IteratorStart { .. }
            | Request::IteratorNext { .. }
            | Request::IteratorRecordStart { .. }
            | Request::IteratorRecordNext { .. }
            | Request::IteratorGc { .. }
            | Request::RecordIternext { .. } => RequestKind::Iterate,
            Request::Pack { .. } | Request::PlanPack { .. } | Request::CancelPack { .. } => RequestKind::Pack,
            Request::GetInfo
            | Request::GetSizeInfo
            | Request::GetExtensionMethods
            | Request::LastTransaction
            | Request::Ping
            | Request::ServerStatus => RequestKind::Info,
            Request::Register { .. }
            | Request::GetAuthProtocol
            | Request::Other { .. }
            | Request::SetClientLabel { .. }
            | Request::Quiet
            | Request::ModifiedInVersion { .. }
            | Request::Versions { .. }
            | Request::VersionEmpty { .. }
            | Request::VersionOperation { .. }
            | Request::KeepAlive
            | Request::Malformed { .. } => RequestKind::Other,
        }
    }

    /// Its name in metrics: the method of today's protocol, or what several of them do.
    pub fn name(self) -> &'static str {
        match self {
            RequestKind::Load => "load",
            RequestKind::LoadSerial => "loadSerial",
            RequestKind::GetTid => "getTid",
            RequestKind::History => "history",
            RequestKind::Begin => "tpc_begin",
            RequestKind::Store => "store",
            RequestKind::CheckCurrent => "checkCurrentSerialInTransaction",
            RequestKind::StoreBlob => "storeBlob",
            RequestKind::Vote => "vote",
            RequestKind::Finish => "tpc_finish",
            RequestKind::Abort => "tpc_abort",
            RequestKind::Undo => "undo",
            RequestKind::UndoLog => "undoLog",
            RequestKind::NewOids => "new_oids",
            RequestKind::Invalidations => "getInvalidations",
            RequestKind::Verify => "verify",
            RequestKind::SendBlob => "sendBlob",
            RequestKind::Iterate => "iterate",
            RequestKind::Pack => "pack",
            RequestKind::Info => "info",
            RequestKind::Other => "other",
        }
    }
}

/// A number for each kind.
#[derive(Debug, Default)]
pub struct RequestCounts([AtomicU64; KINDS.len()]);

impl RequestCounts {
    /// A request has come. For the one thread that writes these numbers.
    pub fn count(&self, request: &Request<'_>) {
        let counter = self.0.get(RequestKind::of(request) as usize);
        counter.into_iter().for_each(|counter| {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        });
    }

    /// Adds the numbers of a connection that has ended. For any thread.
    pub fn take_in(&self, departed: &RequestCounts) {
        for (counter, of) in self.0.iter().zip(&departed.0) {
            counter.fetch_add(of.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// The kinds and their sums over all of these.
    pub fn sums<'a>(all: impl IntoIterator<Item = &'a RequestCounts>) -> Vec<(RequestKind, u64)> {
        let mut sums: Vec<(RequestKind, u64)> = KINDS.into_iter().map(|kind| (kind, 0)).collect();
        for counts in all {
            for ((_, sum), of) in sums.iter_mut().zip(&counts.0) {
                *sum += of.load(Ordering::Relaxed);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_has_its_place_and_its_name() {
        for (number, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, number, "{kind:?}");
        }
        let names: BTreeSet<&str> = KINDS.into_iter().map(RequestKind::name).collect();
        assert_eq!(names.len(), KINDS.len());
    }

    #[test]
    fn numbers_are_added_up() {
        let [one, other, departed] = [(); 3].map(|()| RequestCounts::default());
        for counts in [&one, &one, &other] {
            counts.count(&Request::Ping);
        }
        one.count(&Request::NewOid);
        departed.take_in(&one);
        departed.take_in(&other);
        for all in [vec![&one, &other], vec![&departed]] {
            let sums: Vec<_> =
                RequestCounts::sums(all).into_iter().filter(|(_, number)| *number > 0).collect();
            assert_eq!(sums, [(RequestKind::NewOids, 1), (RequestKind::Info, 3)]);
        }
    }
}
