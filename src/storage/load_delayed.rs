//! A storage whose loads take 10 ms. ZEO's own tests use it to provoke races between loads and invalidations.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use super::forward::forward;
use super::{Commit, History, Load, Loaded, Result, Staged, Storage, Ticket, TidAt, Voted};
use crate::base::ids::{Oid, Tid};

const DELAY: Duration = Duration::from_millis(10);

/// The storage `base` with slow loads.
pub struct LoadDelayed {
    base: Arc<dyn Storage>,
}

impl LoadDelayed {
    /// A layer over `base`.
    pub fn new(base: Arc<dyn Storage>) -> LoadDelayed {
        LoadDelayed { base }
    }
}

impl Storage for LoadDelayed {
    forward!(
        base: name, is_read_only, object_count, size, interfaces, last_transaction, new_oids, close, iteration, undo,
        packing, blobs, extension_methods, cache_counts, sync_counts, failure, pulse, save_index,
        catch_up
    );
}

impl Load for LoadDelayed {
    forward!(base: expect_read, get_tid);

    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let loaded = self.base.load_before(oid, before, headroom, out);
        sleep(DELAY);
        loaded
    }

    /// As if every record came from a slow disk.
    fn load_before_now(
        &self,
        _oid: Oid,
        _before: Tid,
        _headroom: usize,
        _out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        None
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        let loaded = self.base.load_serial(oid, serial, headroom, out);
        sleep(DELAY);
        loaded
    }
}

impl History for LoadDelayed {
    forward!(base: revisions, record_iternext, last_invalidations);
}

impl Commit for LoadDelayed {
    forward!(base: tids_after, vote, finish, abort, set_publisher, set_resolver);
}
