//! What can be undone (undoLog, undoInfo; see [`super::description`]), and undos that are buffered until vote.
//!
//! An undo that is answered at once is in [`transaction::undo`](crate::server::transaction::undo).

use std::ops::ControlFlow;

use crate::base::ids::Tid;
use crate::exceptions;
use crate::server::registered::Registered;
use crate::server::replies::{post_published, reply_frame};
use crate::server::session::Session;
use crate::server::session::description::{Description, Specification};
use crate::server::session::entries::Entries;
use crate::storage::StorageError;
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;
use crate::wire::undo_id;
use crate::wire::value::Value;

impl Session {
    /// `undoLog(first, last)` and `undoInfo(first, last, specification)`: a list of dicts, newest first. A negative
    /// `last` is how many are wanted.
    pub(super) fn undo_log(
        &self,
        registered: &Registered,
        id: &OwnedMsgId,
        first: i64,
        last: i64,
        specification: Option<Specification>,
    ) {
        let last = if last < 0 { first.saturating_sub(last) } else { last };
        let index = |at: i64| usize::try_from(at.max(0)).unwrap_or(usize::MAX);
        let (first, last) = (index(first), index(last));
        let count_max = last.saturating_sub(first).min(self.server.limits().undo_log);
        let (Registered { hosted, connection, .. }, id) = (registered.clone(), id.clone());
        // A client that does not read its undo logs must not keep the threads that make them.
        self.connection.wait_for_room();
        let method = if specification.is_some() { "undoInfo" } else { "undoLog" };
        self.read_in_background(registered, method, move || {
            let mut entries = Entries::new(&connection, count_max);
            let mut to_skip = first;
            let found = if entries.is_full() {
                Ok(())
            } else {
                hosted.storage.require_undo().and_then(|undo| {
                    undo.undo_log(&mut |entry| {
                        if to_skip > 0 && specification.is_none() {
                            to_skip -= 1;
                            return ControlFlow::Continue(());
                        }
                        let described = Description::new(&entry);
                        if specification.as_ref().is_some_and(|wanted| !wanted.fits(&described)) {
                            return break_if(connection.outbox.is_closed());
                        }
                        match to_skip.checked_sub(1) {
                            Some(left) => to_skip = left,
                            None => entries.push(&described.into_value()),
                        }
                        break_if(entries.is_full())
                    })
                })
            };
            let frame = match found {
                Ok(()) => entries.frame(&id),
                Err(error) => reply_frame(&connection, &id, &Err(exceptions::of_storage_error(&error))),
            };
            // The log is read only once, however long it is: a transaction that was committed since may be missing in
            // it.
            post_published(&hosted, &connection, frame);
        });
    }

    /// `undoa(trans_id, id)`: undone at vote, which also reports errors in `trans_id`.
    pub(super) fn undo_buffered(
        &self,
        registered: &Registered,
        transaction: &[u8],
        undone: &Value,
    ) -> Result<(), PyException> {
        let tid = undone_tid(undone);
        self.stage(registered, transaction, "undoa", |staged| {
            if let Ok(tid) = &tid {
                staged.undo(*tid);
            }
            Ok(())
        })?;
        if let Err(exception) = tid {
            self.refuse_vote(&exception);
        }
        Ok(())
    }
}

/// The tid that an undo's argument names.
pub(super) fn undone_tid(undone: &Value) -> Result<Tid, PyException> {
    undo_id::tid_of(undone).ok_or_else(|| {
        let reason = "this is no transaction id: it must be an 'id' of undoLog, 8 bytes in base64";
        exceptions::of_storage_error(&StorageError::Undo { reason: reason.into(), oid: None })
    })
}

/// For a walk that ends when it has found enough.
fn break_if(is_enough: bool) -> ControlFlow<()> {
    if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
