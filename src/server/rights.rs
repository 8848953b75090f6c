//! What a client may do with its storage, and which calls need which right.
//!
//! Reading is the right to be connected at all, so no call asks for it. A client that has registered to read has no
//! right to write whatever its rights are ([`Registered::read_only`](super::registered::Registered)).

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::exceptions;
use crate::wire::exception::PyException;
use crate::wire::request::Request;

/// The rights of a client, beyond reading.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rights {
    /// Transactions.
    pub write: bool,
    /// Undoing transactions, which is a transaction as well.
    pub undo: bool,
    /// Packs, their dry runs, and cancelling a pack.
    pub pack: bool,
    /// Going through all transactions or all objects, as a copy of the whole storage does.
    pub iterate: bool,
    /// Methods that only some storages have: what they do is not known here.
    pub admin: bool,
}

/// The rights of a connection, which a reload may change. A call reads them once.
#[derive(Debug, Default)]
pub struct HeldRights(AtomicU8);

impl HeldRights {
    pub fn get(&self) -> Rights {
        Rights::of_bits(self.0.load(Ordering::Relaxed))
    }

    /// Returns what they were.
    pub fn set(&self, rights: Rights) -> Rights {
        Rights::of_bits(self.0.swap(rights.bits(), Ordering::Relaxed))
    }
}

impl Rights {
    fn bits(self) -> u8 {
        let Rights { write, undo, pack, iterate, admin } = self;
        [write, undo, pack, iterate, admin].into_iter().rev().fold(0, |bits, has| bits << 1 | u8::from(has))
    }

    fn of_bits(bits: u8) -> Rights {
        let [write, undo, pack, iterate, admin] = [0, 1, 2, 3, 4].map(|bit| bits >> bit & 1 == 1);
        Rights { write, undo, pack, iterate, admin }
    }

    pub const ALL: Rights = Rights { write: true, undo: true, pack: true, iterate: true, admin: true };
    /// Nothing that can change the storage.
    pub const READING: Rights =
        Rights { write: false, undo: false, pack: false, iterate: true, admin: false };

    /// What both permit.
    pub fn and(self, other: Rights) -> Rights {
        Rights {
            write: self.write && other.write,
            undo: self.undo && other.undo,
            pack: self.pack && other.pack,
            iterate: self.iterate && other.iterate,
            admin: self.admin && other.admin,
        }
    }

    fn has(self, need: Need) -> bool {
        match need {
            Need::Nothing => true,
            Need::Write => self.write,
            Need::Undo => self.undo,
            Need::Pack => self.pack,
            Need::Iterate => self.iterate,
        }
    }

    /// The right that a call needs and that is not among these, and the error for the client.
    pub fn refuse(self, request: &Request<'_>) -> Option<(&'static str, PyException)> {
        let need = Need::of(request);
        (!self.has(need)).then(|| (need.word(), self.error(need.word(), need != Need::Iterate)))
    }

    /// The same for a method that only some storages have.
    pub fn refuse_extension(self) -> Option<(&'static str, PyException)> {
        (!self.admin).then(|| ("admin", self.error("admin", true)))
    }

    /// Where nothing can be written, a change is refused with the error of a read-only server, which every client
    /// knows.
    fn error(self, right: &str, is_change: bool) -> PyException {
        match is_change && !self.write {
            true => exceptions::read_only_error(),
            false => exceptions::storage_error(&format!("the server does not permit this client to {right}")),
        }
    }
}

/// As in the configuration: `read, write`.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("read")?;
        let Rights { write, undo, pack, iterate, admin } = *self;
        let rights =
            [(write, "write"), (undo, "undo"), (pack, "pack"), (iterate, "iterate"), (admin, "admin")];
        rights.iter().filter(|(has, _)| *has).try_for_each(|(_, word)| write!(f, ", {word}"))
    }
}

/// The right that a call needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    Nothing,
    Write,
    Undo,
    Pack,
    Iterate,
}

impl Need {
    fn word(self) -> &'static str {
        match self {
            Need::Nothing => "read",
            Need::Write => "write",
            Need::Undo => "undo",
            Need::Pack => "pack",
            Need::Iterate => "iterate",
        }
    }

    /// Without a `_` arm, so that no new call can be forgotten.
    fn of(request: &Request<'_>) -> Need {
        match request {
            Request::NewOid
            | Request::NewOids { .. }
            | Request::TpcBegin(_)
            | Request::Store { .. }
            | Request::CheckCurrentSerial { .. }
            | Request::DeleteObject { .. }
            | Request::Restore { .. }
            | Request::Vote { .. }
            | Request::TpcFinish { .. }
            | Request::TpcAbort { .. }
            | Request::StoreBlobStart
            | Request::StoreBlobChunk { .. }
            | Request::StoreBlobEnd { .. }
            | Request::StoreBlobShared { .. } => Need::Write,
            Request::Undo { .. } => Need::Undo,
            Request::Pack { .. } | Request::PlanPack { .. } | Request::CancelPack { own_plan: false } => {
                Need::Pack
            }
            Request::IteratorStart { .. }
            | Request::IteratorNext { .. }
            | Request::IteratorRecordStart { .. }
            | Request::IteratorRecordNext { .. }
            | Request::RecordIternext { .. } => Need::Iterate,
            // `Other`: see `refuse_extension`.
            Request::Register { .. }
            | Request::GetAuthProtocol
            | Request::GetInfo
            | Request::GetSizeInfo
            | Request::GetExtensionMethods
            | Request::Other { .. }
            | Request::LastTransaction
            | Request::Ping
            | Request::ServerStatus
            | Request::SetClientLabel { .. }
            | Request::GetInvalidations { .. }
            | Request::ZeoVerify { .. }
            | Request::Verify { .. }
            | Request::EndZeoVerify
            | Request::LoadBefore { .. }
            | Request::Load { .. }
            | Request::LoadEx { .. }
            | Request::ZeoLoad { .. }
            | Request::LoadSerial { .. }
            | Request::GetSerial { .. }
            | Request::GetTid { .. }
            | Request::History { .. }
            | Request::ModifiedInVersion { .. }
            | Request::Versions { .. }
            | Request::VersionEmpty { .. }
            | Request::VersionOperation { .. }
            | Request::SendBlob { .. }
            | Request::UndoLog { .. }
            | Request::UndoInfo { .. }
            | Request::IteratorGc { .. }
            | Request::KeepAlive
            | Request::Malformed { .. }
            | Request::Quiet
            | Request::CancelPack { own_plan: true } => Need::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_rights_are_those_that_were_set() {
        let held = HeldRights::default();
        let mut before = held.get();
        assert_eq!(before, Rights::of_bits(0));
        for bits in 0..32 {
            let rights = Rights::of_bits(bits);
            assert_eq!(held.set(rights), before);
            assert_eq!(held.get(), rights);
            assert_eq!(rights.bits(), bits);
            before = rights;
        }
    }
}
