//! Transactions with blobs in a shared directory: the name of a blob's file has the tid in it, and the file must be
//! there before the transaction is visible. So the tid is chosen before the call that commits, and the commit lock is
//! held from then on; for as long as it takes to give files their names, not from the vote on as clients of RelStorage
//! do.

use super::super::session::{malformed, only};
use super::desk::Finish;
use super::group::Group;
use super::locks::{COMMITS, LockKeys};
use super::writer::{COMMIT_WAIT_TIME, SequencerThread};
use crate::base::ids::Tid;
use crate::postgres::{Batch, Lost, ServerError, Statement, Type, Value};
use crate::storage::{Result, StorageError};

static LOCK_COMMITS: Statement =
    Statement { sql: "select pg_advisory_lock($1) is null", types: &[Type::Int8] };

/// Why files have no names yet.
enum NotPlaced {
    Lost(Lost),
    /// The commit lock is not granted.
    Busy(ServerError),
    Failed(StorageError),
}

impl From<StorageError> for NotPlaced {
    fn from(error: StorageError) -> NotPlaced {
        NotPlaced::Failed(error)
    }
}

impl SequencerThread {
    /// The group that is committed next, with its files in their places. The commit lock that this has taken is among
    /// the locks that the next message but one gives back.
    pub fn next_group(&mut self) -> std::result::Result<Option<Group>, Lost> {
        let Some(mut group) = Group::take(&mut self.waiting, self.number + 1) else { return Ok(None) };
        let placed = match group.finishes.as_mut_slice() {
            [finish] if finish.written.blobs.must_be_placed() => self.place(finish),
            _ => Ok(()),
        };
        match placed {
            Ok(()) => return Ok(Some(group)),
            Err(NotPlaced::Busy(error)) => self.commit_failed(group, &error),
            Err(NotPlaced::Failed(error)) => {
                // There is only one.
                if let Some(finish) = group.finishes.pop() {
                    self.fail(finish, error);
                }
            }
            Err(NotPlaced::Lost(lost)) => {
                self.again(group);
                return Err(lost);
            }
        }
        Ok(None)
    }

    fn place(&mut self, finish: &mut Finish) -> std::result::Result<(), NotPlaced> {
        let tid = match finish.written.tid {
            // With the commit lock.
            Some(promised) => promised,
            None => self.choose_tid()?,
        };
        Ok(finish.written.blobs.place(tid)?)
    }

    /// Takes the commit lock and returns the tid of the next transaction.
    fn choose_tid(&mut self) -> std::result::Result<Tid, NotPlaced> {
        let mut batch = Batch::new();
        let wait = self.commit_wait().as_millis().to_string();
        let last = self.shared.last().0 as i64;
        let filled = batch.execute(&COMMIT_WAIT_TIME, &[Value::Text(&wait)]);
        let filled = filled.and_then(|()| batch.execute(&LOCK_COMMITS, &[Value::Int8(COMMITS)]));
        batch.sync();
        // A statement of its own, which sees what was committed while the lock was waited for.
        let filled = filled.and_then(|()| batch.execute(&self.shared.sql.next_tid, &[Value::Int8(last)]));
        batch.sync();
        filled.map_err(StorageError::from)?;
        let mut answers = self.session.run(&batch).map_err(NotPlaced::Lost)?.into_iter();
        let locked = answers.next().ok_or_else(|| malformed("a lock"))?;
        locked.map_err(NotPlaced::Busy)?;
        self.free.push(LockKeys { exclusive: vec![COMMITS], ..LockKeys::default() });
        let rows = only(answers.next().ok_or_else(|| malformed("a tid"))?)?;
        let row = rows.first().ok_or_else(|| malformed("a tid"))?;
        let tid: Result<i64> = row.required_int8(0).map_err(StorageError::from);
        Ok(Tid(tid? as u64))
    }
}
