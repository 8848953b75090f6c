//! Methods that a layer hands on unchanged to the storage below it.
//!
//! A layer names every method that it does not change: `forward!(base: name, size, close);`. A method with a default that is
//! neither named nor written would be lost without a word; `tests/storage/contract/layers.rs` finds those.

/// See the module.
macro_rules! forward {
    ($base:ident: $($method:ident),+ $(,)?) => { $(forward!(@$method $base);)+ };

    (@name $base:ident) => {
        fn name(&self) -> String { self.$base.name() }
    };
    (@is_read_only $base:ident) => {
        fn is_read_only(&self) -> bool { self.$base.is_read_only() }
    };
    (@object_count $base:ident) => {
        fn object_count(&self) -> u64 { self.$base.object_count() }
    };
    (@size $base:ident) => {
        fn size(&self) -> u64 { self.$base.size() }
    };
    (@interfaces $base:ident) => {
        fn interfaces(&self) -> Vec<(&'static str, &'static str)> { self.$base.interfaces() }
    };
    (@extension_methods $base:ident) => {
        fn extension_methods(&self) -> Vec<&'static str> { self.$base.extension_methods() }
    };
    (@extension_method $base:ident) => {
        fn extension_method(&self, name: &str) -> $crate::storage::Result<i64> {
            self.$base.extension_method(name)
        }
    };
    (@last_transaction $base:ident) => {
        fn last_transaction(&self) -> $crate::base::ids::Tid { self.$base.last_transaction() }
    };
    (@tids_after $base:ident) => {
        fn tids_after(&self, tid: $crate::base::ids::Tid) { self.$base.tids_after(tid) }
    };
    (@new_oids $base:ident) => {
        fn new_oids(&self, count: usize) -> $crate::storage::Result<Vec<$crate::base::ids::Oid>> {
            self.$base.new_oids(count)
        }
    };
    (@expect_read $base:ident) => {
        fn expect_read(&self, oid: $crate::base::ids::Oid) { self.$base.expect_read(oid) }
    };
    (@load_before $base:ident) => {
        fn load_before(
            &self,
            oid: $crate::base::ids::Oid,
            before: $crate::base::ids::Tid,
            headroom: usize,
            out: &mut Vec<u8>,
        ) -> $crate::storage::Result<Option<$crate::storage::Loaded>> {
            self.$base.load_before(oid, before, headroom, out)
        }
    };
    (@load_serial $base:ident) => {
        fn load_serial(
            &self,
            oid: $crate::base::ids::Oid,
            serial: $crate::base::ids::Tid,
            headroom: usize,
            out: &mut Vec<u8>,
        ) -> $crate::storage::Result<$crate::storage::Loaded> {
            self.$base.load_serial(oid, serial, headroom, out)
        }
    };
    (@get_tid $base:ident) => {
        fn get_tid(&self, oid: $crate::base::ids::Oid) -> $crate::storage::Result<$crate::base::ids::Tid> {
            self.$base.get_tid(oid)
        }
    };
    (@revisions $base:ident) => {
        fn revisions(
            &self,
            oid: $crate::base::ids::Oid,
            each: &mut dyn FnMut($crate::storage::HistoryEntry) -> std::ops::ControlFlow<()>,
        ) -> $crate::storage::Result<()> {
            self.$base.revisions(oid, each)
        }
    };
    (@record_iternext $base:ident) => {
        fn record_iternext(
            &self,
            next: Option<$crate::base::ids::Oid>,
        ) -> $crate::storage::Result<Option<$crate::storage::IternextRecord>> {
            self.$base.record_iternext(next)
        }
    };
    (@last_invalidations $base:ident) => {
        fn last_invalidations(
            &self,
            count: usize,
        ) -> $crate::storage::Result<$crate::storage::LastInvalidations> {
            self.$base.last_invalidations(count)
        }
    };
    (@iterate $base:ident) => {
        fn iterate(
            &self,
            start: Option<$crate::base::ids::Tid>,
            stop: Option<$crate::base::ids::Tid>,
        ) -> $crate::storage::Result<Box<dyn $crate::storage::TransactionIterator>> {
            self.$base.iterate(start, stop)
        }
    };
    (@vote $base:ident) => {
        fn vote(
            &self,
            staged: $crate::storage::Staged,
            tid_at: $crate::storage::TidAt,
        ) -> $crate::storage::Result<Box<dyn $crate::storage::Voted>> {
            self.$base.vote(staged, tid_at)
        }
    };
    (@finish $base:ident) => {
        fn finish(&self, voted: Box<dyn $crate::storage::Voted>, ticket: $crate::storage::Ticket) {
            self.$base.finish(voted, ticket)
        }
    };
    (@abort $base:ident) => {
        fn abort(&self, voted: Box<dyn $crate::storage::Voted>) { self.$base.abort(voted) }
    };
    (@set_publisher $base:ident) => {
        fn set_publisher(&self, publisher: std::sync::Arc<dyn $crate::storage::Publisher>) {
            self.$base.set_publisher(publisher)
        }
    };
    (@set_resolver $base:ident) => {
        fn set_resolver(&self, resolver: std::sync::Arc<dyn $crate::conflict::Resolver>) {
            self.$base.set_resolver(resolver)
        }
    };
    (@supports_undo $base:ident) => {
        fn supports_undo(&self) -> bool { self.$base.supports_undo() }
    };
    (@undo_log $base:ident) => {
        fn undo_log(
            &self,
            each: &mut dyn FnMut($crate::storage::UndoEntry) -> std::ops::ControlFlow<()>,
        ) -> $crate::storage::Result<()> {
            self.$base.undo_log(each)
        }
    };
    (@undo_oids $base:ident) => {
        fn undo_oids(
            &self,
            tid: $crate::base::ids::Tid,
        ) -> $crate::storage::Result<Vec<$crate::base::ids::Oid>> {
            self.$base.undo_oids(tid)
        }
    };
    (@undo_now $base:ident) => {
        fn undo_now(
            &self,
            staged: &mut $crate::storage::Staged,
        ) -> $crate::storage::Result<($crate::base::ids::Tid, Vec<$crate::base::ids::Oid>)> {
            self.$base.undo_now(staged)
        }
    };
    (@pack $base:ident) => {
        fn pack(&self, request: &$crate::storage::PackRequest<'_>) -> $crate::storage::Result<()> {
            self.$base.pack(request)
        }
    };
    (@blob_dir $base:ident) => {
        fn blob_dir(&self) -> Option<std::sync::Arc<$crate::storage::BlobDir>> { self.$base.blob_dir() }
    };
    (@load_blob $base:ident) => {
        fn load_blob(
            &self,
            oid: $crate::base::ids::Oid,
            serial: $crate::base::ids::Tid,
        ) -> $crate::storage::Result<$crate::storage::BlobFile> {
            self.$base.load_blob(oid, serial)
        }
    };
    (@close $base:ident) => {
        fn close(&self) -> $crate::storage::Result<()> { self.$base.close() }
    };
}

pub(crate) use forward;
