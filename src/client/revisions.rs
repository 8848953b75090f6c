//! The cache, as the timeline changes it and as verification sees it.

use super::cache::{Cache, Cached, SharedRevision};
use super::timeline::Revisions;
use super::upstream::LOG;
use super::verify::CacheToVerify;
use crate::base::ids::{Oid, Tid};

impl Revisions for Cache {
    fn load_before(&self, oid: Oid, before: Tid, out: &mut Vec<u8>) -> Option<Cached> {
        // A load of a leaf looks more than once. The one that asks the server counts the miss.
        self.look_up(oid, before, out)
    }

    fn load_shared(&self, oid: Oid, before: Tid) -> Option<SharedRevision> {
        self.look_up_shared(oid, before)
    }

    fn current_start(&self, oid: Oid) -> Option<Tid> {
        Cache::current_start(self, oid)
    }

    fn store(&self, oid: Oid, start: Tid, end: Option<Tid>, data: &[u8]) {
        Cache::store(self, oid, start, end, data);
    }

    fn invalidate(&self, oid: Oid, tid: Option<Tid>) {
        Cache::invalidate(self, oid, tid);
    }

    fn clear(&self) {
        Cache::clear(self);
    }

    fn set_last_tid(&self, tid: Tid) {
        if let Err(error) = Cache::set_last_tid(self, tid) {
            log::error!(target: LOG, "{error}");
        }
    }
}

impl CacheToVerify for Cache {
    fn last_tid(&self) -> Option<Tid> {
        Cache::last_tid(self)
    }

    fn current(&self) -> Vec<(Oid, Tid)> {
        self.current_contents()
    }
}
