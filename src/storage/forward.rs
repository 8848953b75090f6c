//! Methods that a layer passes on unchanged to the storage below it: `forward!(base: name, size, close);` in the `impl`
//! of a trait.
//!
//! A layer must name every method that it does not change: one that is neither named nor written would silently get its
//! default. `tests/storage/contract/layers.rs` finds those.

macro_rules! forward {
    ($base:ident: $($method:ident),+ $(,)?) => { $(forward!(@$method $base);)+ };

    // Storage
    (@name $base:ident) => { fn name(&self) -> String { self.$base.name() } };
    (@is_read_only $base:ident) => { fn is_read_only(&self) -> bool { self.$base.is_read_only() } };
    (@object_count $base:ident) => { fn object_count(&self) -> u64 { self.$base.object_count() } };
    (@size $base:ident) => { fn size(&self) -> u64 { self.$base.size() } };
    (@interfaces $base:ident) => {
        fn interfaces(&self) -> Vec<(&'static str, &'static str)> { self.$base.interfaces() }
    };
    (@last_transaction $base:ident) => { fn last_transaction(&self) -> Tid { self.$base.last_transaction() } };
    (@new_oids $base:ident) => {
        fn new_oids(&self, count: usize) -> Result<Vec<Oid>> { self.$base.new_oids(count) }
    };
    (@close $base:ident) => { fn close(&self) -> Result<()> { self.$base.close() } };
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
    (@failure $base:ident) => {
        fn failure(&self) -> Option<String> { self.$base.failure() }
    };
    (@pulse $base:ident) => {
        fn pulse(&self) -> $crate::storage::Pulse { self.$base.pulse() }
    };
    (@catch_up $base:ident) => {
        fn catch_up(&self) -> Result<()> { self.$base.catch_up() }
    };
    (@save_index $base:ident) => {
        fn save_index(&self) -> Result<bool> { self.$base.save_index() }
    };
    (@extension_methods $base:ident) => {
        fn extension_methods(&self) -> Option<&dyn $crate::storage::ExtensionMethods> {
            self.$base.extension_methods()
        }
    };

    // Load
    (@expect_read $base:ident) => { fn expect_read(&self, oid: Oid) { self.$base.expect_read(oid) } };
    (@get_tid $base:ident) => { fn get_tid(&self, oid: Oid) -> Result<Tid> { self.$base.get_tid(oid) } };

    // History
    (@revisions $base:ident) => {
        fn revisions(
            &self,
            oid: Oid,
            each: &mut dyn FnMut($crate::storage::HistoryEntry) -> std::ops::ControlFlow<()>,
        ) -> Result<()> {
            self.$base.revisions(oid, each)
        }
    };
    (@record_iternext $base:ident) => {
        fn record_iternext(&self, next: Option<Oid>) -> Result<Option<$crate::storage::IternextRecord>> {
            self.$base.record_iternext(next)
        }
    };
    (@last_invalidations $base:ident) => {
        fn last_invalidations(&self, count: usize) -> Result<$crate::storage::LastInvalidations> {
            self.$base.last_invalidations(count)
        }
    };

    // Commit
    (@tids_after $base:ident) => { fn tids_after(&self, tid: Tid) { self.$base.tids_after(tid) } };
    (@vote $base:ident) => {
        fn vote(&self, staged: Staged, tid_at: TidAt) -> $crate::storage::VoteResult {
            self.$base.vote(staged, tid_at)
        }
    };
    (@finish $base:ident) => {
        fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) { self.$base.finish(voted, ticket) }
    };
    (@abort $base:ident) => { fn abort(&self, voted: Box<dyn Voted>) { self.$base.abort(voted) } };
    (@set_publisher $base:ident) => {
        fn set_publisher(&self, publisher: Arc<dyn $crate::storage::Publisher>) {
            self.$base.set_publisher(publisher)
        }
    };
    (@set_resolver $base:ident) => {
        fn set_resolver(&self, resolver: Arc<dyn $crate::conflict::Resolver>) {
            self.$base.set_resolver(resolver)
        }
    };
}

pub(crate) use forward;
