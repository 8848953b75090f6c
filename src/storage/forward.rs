//! What a layer passes on unchanged to the storage below it.

/// Methods of a layer that the storage below it answers: `forward!(base: name, size, close);` in the `impl` of
/// [`Storage`](crate::storage::Storage), [`Load`](crate::storage::Load), [`History`](crate::storage::History) or
/// [`Commit`](crate::storage::Commit), where `base` is the field with that storage, an `Arc<dyn Storage>`.
///
/// A layer must name every method that it does not change: one that is neither named nor written would silently get its
/// default.
///
/// ```
/// use std::sync::Arc;
/// use runzeo::storage::{Commit, forward};
///
/// struct Layer {
///     base: Arc<dyn runzeo::storage::Storage>,
/// }
///
/// # impl runzeo::storage::Load for Layer {
/// #     forward!(base: load_before, load_before_now, load_serial, expect_read, get_tid);
/// # }
/// # impl runzeo::storage::History for Layer {
/// #     forward!(base: revisions, record_iternext, last_invalidations);
/// # }
/// # impl runzeo::storage::Storage for Layer {
/// #     forward!(base: name, is_read_only, object_count, size, interfaces, last_transaction, new_oids, close);
/// # }
/// impl Commit for Layer {
///     forward!(base: tids_after, vote, finish, abort, set_publisher, set_resolver);
/// }
/// ```
// `macro_export` puts it at the root of the crate; `storage` shows it.
#[doc(hidden)]
#[macro_export]
macro_rules! __forward {
    ($base:ident: $($method:ident),+ $(,)?) => { $($crate::__forward!(@$method $base);)+ };

    // Storage
    (@name $base:ident) => { fn name(&self) -> String { self.$base.name() } };
    (@is_read_only $base:ident) => { fn is_read_only(&self) -> bool { self.$base.is_read_only() } };
    (@object_count $base:ident) => { fn object_count(&self) -> u64 { self.$base.object_count() } };
    (@size $base:ident) => { fn size(&self) -> u64 { self.$base.size() } };
    (@interfaces $base:ident) => {
        fn interfaces(&self) -> Vec<(&'static str, &'static str)> { self.$base.interfaces() }
    };
    (@last_transaction $base:ident) => {
        fn last_transaction(&self) -> $crate::ids::Tid { self.$base.last_transaction() }
    };
    (@new_oids $base:ident) => {
        fn new_oids(&self, count: usize) -> $crate::storage::Result<Vec<$crate::ids::Oid>> {
            self.$base.new_oids(count)
        }
    };
    (@close $base:ident) => { fn close(&self) -> $crate::storage::Result<()> { self.$base.close() } };
    (@iteration $base:ident) => {
        fn iteration(&self) -> Option<&dyn $crate::storage::Iterate> { self.$base.iteration() }
    };
    (@undo $base:ident) => {
        fn undo(&self) -> Option<&dyn $crate::storage::Undo> { self.$base.undo() }
    };
    (@packing $base:ident) => {
        fn packing(&self) -> Option<&dyn $crate::storage::Pack> { self.$base.packing() }
    };
    (@blobs $base:ident) => {
        fn blobs(&self) -> Option<&dyn $crate::storage::Blobs> { self.$base.blobs() }
    };
    (@cache_counts $base:ident) => {
        fn cache_counts(&self) -> Option<$crate::storage::CacheCounts> { self.$base.cache_counts() }
    };
    (@sync_counts $base:ident) => {
        fn sync_counts(&self) -> Option<$crate::storage::SyncCounts> { self.$base.sync_counts() }
    };
    (@replication $base:ident) => {
        fn replication(&self) -> Option<$crate::storage::Replication> { self.$base.replication() }
    };
    (@secondaries $base:ident) => {
        fn secondaries(&self) -> Option<Vec<$crate::storage::Secondary>> { self.$base.secondaries() }
    };
    (@remote $base:ident) => {
        fn remote(&self) -> Option<$crate::storage::Remote> { self.$base.remote() }
    };
    (@failure $base:ident) => {
        fn failure(&self) -> Option<String> { self.$base.failure() }
    };
    (@pulse $base:ident) => {
        fn pulse(&self) -> $crate::storage::Pulse { self.$base.pulse() }
    };
    (@catch_up $base:ident) => {
        fn catch_up(&self) -> $crate::storage::Result<()> { self.$base.catch_up() }
    };
    (@bulk $base:ident) => {
        fn bulk(&self) -> Option<&dyn $crate::storage::Bulk> { self.$base.bulk() }
    };
    (@sync_later $base:ident) => {
        fn sync_later(&self) -> bool { self.$base.sync_later() }
    };
    (@save_index $base:ident) => {
        fn save_index(&self) -> $crate::storage::Result<bool> { self.$base.save_index() }
    };
    (@extension_methods $base:ident) => {
        fn extension_methods(&self) -> Option<&dyn $crate::storage::ExtensionMethods> {
            self.$base.extension_methods()
        }
    };

    // Load
    (@expect_read $base:ident) => { fn expect_read(&self, oid: $crate::ids::Oid) { self.$base.expect_read(oid) } };
    (@load_before $base:ident) => {
        fn load_before(
            &self,
            oid: $crate::ids::Oid,
            before: $crate::ids::Tid,
            headroom: usize,
            out: &mut Vec<u8>,
        ) -> $crate::storage::Result<Option<$crate::storage::Loaded>> {
            self.$base.load_before(oid, before, headroom, out)
        }
    };
    (@load_before_now $base:ident) => {
        fn load_before_now(
            &self,
            oid: $crate::ids::Oid,
            before: $crate::ids::Tid,
            headroom: usize,
            out: &mut Vec<u8>,
        ) -> Option<$crate::storage::Result<Option<$crate::storage::Loaded>>> {
            self.$base.load_before_now(oid, before, headroom, out)
        }
    };
    (@load_serial $base:ident) => {
        fn load_serial(
            &self,
            oid: $crate::ids::Oid,
            serial: $crate::ids::Tid,
            headroom: usize,
            out: &mut Vec<u8>,
        ) -> $crate::storage::Result<$crate::storage::Loaded> {
            self.$base.load_serial(oid, serial, headroom, out)
        }
    };
    (@get_tid $base:ident) => {
        fn get_tid(&self, oid: $crate::ids::Oid) -> $crate::storage::Result<$crate::ids::Tid> {
            self.$base.get_tid(oid)
        }
    };

    // History
    (@revisions $base:ident) => {
        fn revisions(
            &self,
            oid: $crate::ids::Oid,
            each: &mut dyn FnMut($crate::storage::HistoryEntry) -> std::ops::ControlFlow<()>,
        ) -> $crate::storage::Result<()> {
            self.$base.revisions(oid, each)
        }
    };
    (@record_iternext $base:ident) => {
        fn record_iternext(
            &self,
            next: Option<$crate::ids::Oid>,
        ) -> $crate::storage::Result<Option<$crate::storage::IternextRecord>> {
            self.$base.record_iternext(next)
        }
    };
    (@last_invalidations $base:ident) => {
        fn last_invalidations(&self, count: usize) -> $crate::storage::Result<$crate::storage::LastInvalidations> {
            self.$base.last_invalidations(count)
        }
    };

    // Commit
    (@tids_after $base:ident) => { fn tids_after(&self, tid: $crate::ids::Tid) { self.$base.tids_after(tid) } };
    (@vote $base:ident) => {
        fn vote(
            &self,
            staged: $crate::storage::Staged,
            tid_at: $crate::storage::TidAt,
        ) -> $crate::storage::VoteResult {
            self.$base.vote(staged, tid_at)
        }
    };
    (@finish $base:ident) => {
        fn finish(&self, voted: Box<dyn $crate::storage::Voted>, ticket: $crate::storage::Ticket) {
            self.$base.finish(voted, ticket)
        }
    };
    (@abort $base:ident) => { fn abort(&self, voted: Box<dyn $crate::storage::Voted>) { self.$base.abort(voted) } };
    (@set_publisher $base:ident) => {
        fn set_publisher(&self, publisher: std::sync::Arc<dyn $crate::storage::Publisher>) {
            self.$base.set_publisher(publisher)
        }
    };
    (@set_resolver $base:ident) => {
        fn set_resolver(&self, resolver: std::sync::Arc<dyn $crate::storage::Resolver>) {
            self.$base.set_resolver(resolver)
        }
    };
}

pub use crate::__forward as forward;
