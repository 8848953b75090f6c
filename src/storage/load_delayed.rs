//! A storage whose loads take 10 ms: with it ZEO's own tests provoke races between loads and invalidations.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use super::forward::forward;
use super::{Loaded, Result, Storage};
use crate::base::ids::{Oid, Tid};

const DELAY: Duration = Duration::from_millis(10);

/// See the module.
pub struct LoadDelayed {
    base: Arc<dyn Storage>,
}

impl LoadDelayed {
    pub fn new(base: Arc<dyn Storage>) -> LoadDelayed {
        LoadDelayed { base }
    }
}

impl Storage for LoadDelayed {
    forward!(
        base: name, is_read_only, object_count, size, interfaces, extension_methods, extension_method,
        last_transaction, tids_after, new_oids, expect_read, get_tid, revisions, record_iternext, last_invalidations,
        iterate, vote, finish, abort, set_publisher, set_resolver, supports_undo, undo_log, undo_oids,
        undo_now, pack, blob_dir, load_blob, close
    );

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

    /// As if all came from a slow disk.
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
