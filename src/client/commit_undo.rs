//! Undos that are answered before the vote, with the tid that their transaction will have: for clients of ZODB 3.8 and
//! 3.9.
//!
//! The server must answer them so, too: the transaction begins with its first undo, on a link of that protocol, and the
//! server locks its whole storage from then on, as it does for such a client of its own. The other operations are sent
//! at vote.

use super::ask::{AskError, ask};
use super::commit::BegunEarly;
use super::lanes::LaneKind;
use super::upstream::Upstream;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::storage::{OpKind, Result, Staged, StorageError};
use crate::wire::calls::Call;
use crate::wire::protocol::{Generation, UndoCall};
use crate::wire::undo_id::undo_id;

impl Upstream {
    /// Has the server undo what the last operation names. Returns the tid of the transaction and the undone objects.
    ///
    /// Errors: `Unsupported` if the server answers no undo before vote; those of an undo, after which the transaction
    /// may go on without it.
    pub fn undo_now(self: &Arc<Self>, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        let unsupported = || {
            let text = "its server answers no undo of clients of ZODB 3.9 and older";
            StorageError::Unsupported(format!("{}: {text}", self.name()))
        };
        let Some(OpKind::Undo { tid: undone }) = staged.ops().last().map(|op| op.kind) else {
            return Err(StorageError::Transaction("there is nothing to undo".into()));
        };
        let early = staged.begun.take().and_then(|begun| begun.downcast::<BegunEarly>().ok());
        let mut early = match early {
            Some(early) => early,
            None => {
                let begun = self.begin(staged, LaneKind::Serials(Generation::Z309))?;
                Box::new(BegunEarly { begun, tid: None, undone: Vec::new() })
            }
        };
        let link = early.begun.link().clone();
        if link.wire().undo_call() != UndoCall::Answered {
            return Err(unsupported());
        }
        let call = Call::Undo { undone: &undo_id(undone), txn: early.begun.txn };
        let answer = ask(&link, &call, None, |answer| answer.invalidations());
        let result = match answer {
            Ok(Some((tid, oids))) => {
                early.tid = Some(tid);
                early.undone.extend(&oids);
                Ok((tid, oids))
            }
            Ok(None) => return Err(unsupported()),
            Err(error @ AskError::Raised(_)) => Err(error.into()),
            Err(error) => return Err(error.into()),
        };
        staged.begun = Some(early);
        result
    }
}
