//! The calls that have no answer yet. Each is taken out exactly once: by its answer, by its caller who has waited long
//! enough, or by the end of the link.

use std::collections::HashMap;
use std::mem;

use super::end::EndCause;
use crate::base::sync::{Mutex, rank};
use crate::wire::calls::CallIds;

/// The calls; a `C` says what becomes of the answer.
pub(super) struct Pending<C>(Mutex<Table<C>, rank::LinkPending>);

struct Table<C> {
    calls: HashMap<i64, C>,
    ids: CallIds,
    /// Set before the calls are given up, so that no call comes too late to be among them.
    ended: Option<EndCause>,
}

impl<C> Pending<C> {
    pub fn new(ids: CallIds) -> Pending<C> {
        Pending(Mutex::new(Table { calls: HashMap::new(), ids, ended: None }))
    }

    /// A new call and its id. After the end: the closure back, and the cause.
    pub fn add(&self, on_answer: C) -> Result<i64, (C, EndCause)> {
        let mut table = self.0.lock();
        if let Some(cause) = &table.ended {
            return Err((on_answer, cause.clone()));
        }
        let id = table.ids.take();
        table.calls.insert(id, on_answer);
        Ok(id)
    }

    /// The call with this id, which is not pending any more.
    pub fn take(&self, id: i64) -> Option<C> {
        self.0.lock().calls.remove(&id)
    }

    /// Refuses later calls. False: they are refused already, for another cause.
    pub fn end(&self, cause: EndCause) -> bool {
        let mut table = self.0.lock();
        let is_first = table.ended.is_none();
        table.ended.get_or_insert(cause);
        is_first
    }

    /// After the end: the cause, and all calls without an answer, oldest first.
    pub fn give_up(&self) -> (EndCause, Vec<C>) {
        let mut table = self.0.lock();
        let cause = table.ended.get_or_insert(EndCause::Closed).clone();
        let mut calls: Vec<(i64, C)> = mem::take(&mut table.calls).into_iter().collect();
        drop(table);
        calls.sort_by_key(|(id, _)| *id);
        (cause, calls.into_iter().map(|(_, on_answer)| on_answer).collect())
    }
}
