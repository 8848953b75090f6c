//! Another server's storage as a storage of this one: `<zeoclient>` and `<clientstorage>`. The library is built on it,
//! too.
//!
//! Reads come from the cache or from the server. What they return is the state of the last transaction that was
//! published here, never a later one that has not arrived yet. Transactions are published one by one, in the server's
//! order, by the thread that receives them: see [`timeline`](super::timeline).

use std::ops::ControlFlow;
use std::time::Duration;

use super::ask::ask;
use super::blobs::ClientBlobs;
use super::cache::report::{CacheReport, CacheReporter};
use super::cache::trace::Trace;
use super::cache::{BLOCK_HEADER_LEN, Cache, CacheError, CacheOptions, CacheStats};
use super::commit::ServerVoted;
use super::connector::{Connector, ConnectorOptions, RetryLimits};
use super::dial::DialOptions;
use super::iterate::OidPool;
use super::one_link::OneLink;
use super::options::ClientOptions;
use super::packs;
use super::prepare::Prepares;
use super::results;
use super::timeline::{Listener, News};
use super::upstream::{LOG, Upstream};
use super::view::View;
use crate::base::clock::TimeSource;
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::base::sync::{Arc, Mutex, rank};
use crate::conflict::Resolver;
use crate::net::tls::ClientTls;
use crate::storage::{
    BlobDir, BlobFile, Blobs, CacheCounts, Commit, Committed, Delivery, ExtensionMethods, GroupTimes,
    History, HistoryEntry, Iterate, IternextRecord, LastInvalidations, Load, Loaded, Pack, PackPlan,
    PackRequest, Publisher, Refusal, Remote, Result, Staged, Storage, StorageError, Ticket, TidAt,
    TransactionIterator, Undo, UndoEntry, VoteResult, Voted,
};
use crate::wire::answers::AnswerError;
use crate::wire::calls::Call;
use crate::wire::encoder::pickled;
use crate::wire::value::{Value, unpickled};

/// Interval in which the cache is made durable.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// Object ids that are asked for at once. Python's servers give no more.
const OIDS_AT_ONCE: usize = 100;
/// Entries of undo logs and histories that are asked for at once, at first.
const ENTRIES_AT_ONCE: i64 = 64;

/// Python's interface of storages with blobs.
const BLOB_STORAGE: &str = "IBlobStorage";
/// Python's interfaces that a server may have and that this storage passes on.
const INTERFACES: [(&str, &str); 11] = [
    ("ZODB.interfaces", BLOB_STORAGE),
    ("ZODB.interfaces", "IStorageRestoreable"),
    ("ZODB.interfaces", "IStorageIteration"),
    ("ZODB.interfaces", "IStorageUndoable"),
    ("ZODB.interfaces", "IStorageCurrentRecordIteration"),
    ("ZODB.interfaces", "IExternalGC"),
    ("ZODB.interfaces", "IStorage"),
    ("ZODB.interfaces", "IStorageWrapper"),
    ("ZODB.interfaces", "IMVCCPrefetchStorage"),
    ("ZODB.interfaces", "ReadVerifyingStorage"),
    ("zope.interface", "Interface"),
];

/// The storage of another server. Disconnects when it is dropped.
pub struct ClientStorage {
    upstream: Arc<Upstream>,
    connector: Connector<Prepares>,
    oids: Mutex<OidPool, rank::OidPool>,
    reporter: Reporter,
}

/// For the lines of the log about the cache.
type Reporter = Arc<Mutex<CacheReporter, rank::CacheReport>>;

impl ClientStorage {
    /// Opens the cache and begins to connect. With [`ClientOptions::wait`] waits for a connection.
    ///
    /// Errors: options that are [refused](ClientOptions::check); the cache or a certificate cannot be read;
    /// [`StorageError::Disconnected`] if there was no connection in time.
    pub fn open(options: ClientOptions) -> Result<ClientStorage> {
        let refused = |message| StorageError::Refused { what: Refusal::Options, message };
        options.check().map_err(|error| refused(error.to_string()))?;
        let tls = options.tls.as_ref().map(|tls| ClientTls::load(&tls.files, tls.host.clone()));
        let tls = tls.transpose().map_err(|error| refused(format!("<ssl>: {error}")))?;
        let mut cache_options = CacheOptions::new(options.cache_path.as_deref(), options.cache_size);
        cache_options.trace = Trace::is_wanted();
        cache_options.memory = options.memory_size;
        let cache = Cache::open(cache_options).map_err(|error| match error {
            CacheError::Io { path, error } => {
                StorageError::Io { doing: format!("opening the cache {}", path.display()), error }
            }
            other => StorageError::Refused { what: Refusal::FileInUse, message: other.to_string() },
        })?;
        let blobs = ClientBlobs::open(&options)?;
        let dial = DialOptions {
            credentials: options.credentials.clone(),
            tls: tls.map(Arc::new),
            ..DialOptions::default()
        };
        let upstream = Upstream::new(options, cache, blobs, dial.clone());
        let publishing = Publishing(Arc::downgrade(&upstream));
        upstream.timeline.set_listener(Arc::new(publishing));
        let options = &upstream.options;
        let (shortest, longest) = options.disconnect_poll;
        let connecting = ConnectorOptions {
            name: upstream.name(),
            dial,
            retry: RetryLimits { min: shortest, max: longest.max(shortest) },
            read_only: options.read_only,
            read_only_fallback: options.read_only_fallback,
            ..ConnectorOptions::default()
        };
        let prepares = Arc::new(Prepares(Arc::clone(&upstream)));
        let connector = Connector::start(&options.addresses, prepares, connecting)
            .map_err(StorageError::io("starting the thread that connects"))?;
        // From here on it is ended when it is dropped, and the cache's file is free for another client.
        let reporter = Arc::new(Mutex::new(CacheReporter::new(TimeSource::SYSTEM)));
        let storage =
            ClientStorage { upstream: Arc::clone(&upstream), connector, oids: Mutex::default(), reporter };
        save_regularly(&upstream, &storage.reporter)
            .map_err(StorageError::io("starting the thread that saves the cache"))?;
        if options.wait {
            let connected = storage.connector.wait(options.wait_timeout);
            connected.map_err(|error| StorageError::Disconnected(format!("{}: {error}", upstream.name())))?;
        }
        Ok(storage)
    }

    /// A snapshot of the database as it is now.
    pub fn view(&self) -> View {
        View::new(&self.upstream)
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.upstream.in_use_now().is_some()
    }

    /// The connection in use, without waiting for one.
    pub(crate) fn one_link(&self) -> Option<OneLink> {
        let in_use = self.upstream.in_use_now()?;
        Some(OneLink::new(in_use.link, self.upstream.info()))
    }

    /// Has the server remove the revisions that were not current at `time` or later, in seconds since 1970. Waits for
    /// the end.
    pub fn pack_at(&self, time: f64) -> Result<()> {
        let in_use = self.upstream.in_use()?;
        Ok(ask(&in_use.link, &Call::Pack { time, wait: true }, None, |answer| answer.done())?)
    }

    /// What the cache has done since it was opened, and what is in it. The counters only grow.
    pub fn cache_stats(&self) -> CacheStats {
        self.upstream.timeline.cache().stats()
    }

    /// Gives the file of the cache another size, in bytes, until it is opened the next time, with the size of its
    /// options. To make it larger takes no time. Where it is made smaller, loads wait while what is left is read: about
    /// as long as it takes to open a cache of the new size that was not closed. Revisions behind the new end are
    /// dropped.
    ///
    /// If the disk fails, that is logged, and the cache is off until the next start.
    pub fn set_cache_size(&self, size: u64) {
        self.upstream.timeline.cache().resize(size);
    }

    fn end(&self) {
        self.upstream.close();
        self.connector.close();
        let cache = self.upstream.timeline.cache();
        let report = self.reporter.lock().report(cache.stats());
        log_report(&self.upstream, report);
        cache.close();
    }

    /// A revision for a reader: what ends after the last transaction that is published is current.
    fn as_published(&self, last: Tid, end: Option<Tid>) -> Option<Tid> {
        end.filter(|end| *end <= last)
    }
}

fn log_report(upstream: &Upstream, report: Option<CacheReport>) {
    if let Some(report) = report {
        log::info!(target: LOG, "{} {report}", upstream.name());
    }
}

/// The cache is made durable from time to time: what a power cut leaves is not much older. The log says how it does.
/// Unused links are closed.
fn save_regularly(upstream: &Arc<Upstream>, reporter: &Reporter) -> std::io::Result<()> {
    let (upstream, reporter) = (Arc::clone(upstream), Arc::clone(reporter));
    let thread = std::thread::Builder::new().name("zeo-cache".into());
    let saving = thread.spawn(move || {
        while !upstream.wait_for_close(SAVE_INTERVAL) {
            let cache = upstream.timeline.cache();
            cache.sync();
            // The reporter's lock is taken first, the cache's second.
            let report = reporter.lock().due(|| cache.stats());
            log_report(&upstream, report);
            upstream.lanes.close_unused();
        }
    });
    saving.map(drop)
}

impl Drop for ClientStorage {
    fn drop(&mut self) {
        self.end();
    }
}

/// Has what arrives published.
struct Publishing(std::sync::Weak<Upstream>);

impl Listener for Publishing {
    fn hear(&self, news: News<'_>, install: &mut dyn FnMut()) -> Option<Delivery> {
        let upstream = self.0.upgrade()?;
        match news {
            News::Transaction { change, ticket } => {
                let info = upstream.info();
                let committed = Committed {
                    tid: change.tid,
                    oids: change.oids.to_vec(),
                    object_count: info.object_count,
                    size: info.size,
                    // One that nobody here waits for.
                    ticket: ticket.unwrap_or_else(|| Box::new(())),
                    times: GroupTimes::default(),
                };
                upstream.publisher.publish(vec![committed], install)
            }
            News::Missed { last, oids } => upstream.publisher.missed(last, Some(oids.to_vec()), install),
            News::Everything { last } => upstream.publisher.missed(last, None, install),
        }
    }
}

impl Storage for ClientStorage {
    fn name(&self) -> String {
        let state = if self.upstream.in_use_now().is_some() { "connected" } else { "disconnected" };
        format!("{} ({state})", self.upstream.name())
    }

    fn is_read_only(&self) -> bool {
        self.upstream.options.read_only || self.upstream.in_use_now().is_none_or(|in_use| in_use.is_read_only)
    }

    fn remote(&self) -> Option<Remote> {
        Some(self.upstream.remote())
    }

    fn failure(&self) -> Option<String> {
        self.upstream.in_use_now().is_none().then(|| "its server cannot be reached".into())
    }

    fn object_count(&self) -> u64 {
        self.upstream.info().object_count
    }

    fn size(&self) -> u64 {
        self.upstream.info().size
    }

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        let info = self.upstream.info();
        let has_blobs = self.upstream.blobs.is_some();
        let has = |name| match name {
            // Servers before Z309 name no interfaces, and tell at the call.
            BLOB_STORAGE => has_blobs && (info.interfaces.is_empty() || info.provides(name)),
            _ => info.provides(name),
        };
        INTERFACES.into_iter().filter(|(_, name)| has(name)).collect()
    }

    fn last_transaction(&self) -> Tid {
        self.upstream.timeline.last_tid()
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        let mut oids = Vec::with_capacity(count);
        while oids.len() < count {
            let in_use = self.upstream.in_use()?;
            if in_use.is_read_only {
                return Err(StorageError::ReadOnly);
            }
            oids.extend(self.oids.lock().take(in_use.id, count - oids.len()));
            let missing = count - oids.len();
            if missing > 0 {
                let wanted =
                    u32::try_from(missing.clamp(1, OIDS_AT_ONCE)).unwrap_or(1).max(OIDS_AT_ONCE as u32);
                let given =
                    ask(&in_use.link, &Call::NewOids { count: wanted }, None, |answer| answer.oids())?;
                if given.is_empty() {
                    let message = format!("{}: the server gives out no object ids", self.upstream.name());
                    return Err(StorageError::Unsupported(message));
                }
                self.oids.lock().add(in_use.id, given);
            }
        }
        oids.sort_unstable();
        Ok(oids)
    }

    fn close(&self) -> Result<()> {
        self.end();
        Ok(())
    }

    fn iteration(&self) -> Option<&dyn Iterate> {
        self.upstream.info().provides("IStorageIteration").then_some(self)
    }

    fn undo(&self) -> Option<&dyn Undo> {
        self.upstream.info().supports_undo.then_some(self)
    }

    fn packing(&self) -> Option<&dyn Pack> {
        Some(self)
    }

    fn blobs(&self) -> Option<&dyn Blobs> {
        self.upstream.blobs.as_ref().map(|_| self as &dyn Blobs)
    }

    fn extension_methods(&self) -> Option<&dyn ExtensionMethods> {
        Some(self)
    }

    fn cache_counts(&self) -> Option<CacheCounts> {
        let CacheStats { loads, hits, used, size, .. } = self.cache_stats();
        Some(CacheCounts { loads, hits, used, size })
    }
}

impl ExtensionMethods for ClientStorage {
    fn names(&self) -> Vec<String> {
        self.upstream.info().extension_methods.clone()
    }

    fn call(&self, name: &str, arguments: &[u8]) -> Result<Vec<u8>> {
        let unsupported = |what: &str| StorageError::Unsupported(format!("{name}: {what}"));
        if !self.upstream.info().extension_methods.iter().any(|known| known == name) {
            return Err(unsupported("the server has no such method"));
        }
        let Some(Value::Tuple(args)) = unpickled(arguments) else {
            return Err(unsupported("the arguments are no plain data"));
        };
        let in_use = self.upstream.in_use()?;
        // A result that is no plain data is no reason to end the link.
        let result =
            ask(&in_use.link, &Call::Other { name, args: &args }, None, |answer| match answer.value() {
                Err(AnswerError::Broken(what)) => Ok(Err(what.to_string())),
                other => other.map(Ok),
            })?;
        result.map(|value| pickled(&value)).map_err(|what| unsupported(&what))
    }
}

/// Appends a record to `out`, behind `headroom` bytes. Returns where it begins.
fn append(data: &[u8], headroom: usize, out: &mut Vec<u8>) -> Result<usize> {
    let start = out.len() + headroom;
    let copied = memory::resize(out, start).and_then(|()| memory::append(out, data));
    copied.map_err(StorageError::io("reading an object"))?;
    Ok(start)
}

impl Load for ClientStorage {
    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        if let Some(loaded) = self.load_before_now(oid, before, headroom, out) {
            return loaded;
        }
        let last = self.upstream.timeline.last_tid();
        let found = self.upstream.load_before(oid, before.min(Tid(last.0 + 1)))?;
        let Some(revision) = found else { return Ok(None) };
        let start = append(&revision.data, headroom, out)?;
        Ok(Some(Loaded { start, serial: revision.serial, end: self.as_published(last, revision.end) }))
    }

    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        let last = self.upstream.timeline.last_tid();
        let len = out.len();
        // In front of the data is what belongs to it in the file of the cache.
        if let Err(error) = memory::resize(out, len + headroom.saturating_sub(BLOCK_HEADER_LEN)) {
            return Some(Err(StorageError::io("reading an object")(error)));
        }
        let Some(found) = self.upstream.timeline.cached(oid, before.min(Tid(last.0 + 1)), out) else {
            out.truncate(len);
            return None;
        };
        let end = self.as_published(last, found.end);
        Some(Ok(Some(Loaded { start: found.data.start, serial: found.start, end })))
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        let data =
            self.upstream.read(&Call::LoadSerial { oid, serial }, |answer| Ok(answer.bytes()?.to_vec()))?;
        let start = append(&data, headroom, out)?;
        Ok(Loaded { start, serial, end: None })
    }

    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        let last = self.upstream.timeline.last_tid();
        match self.upstream.load_before(oid, Tid(last.0 + 1))? {
            Some(revision) => Ok(revision.serial),
            None => Err(StorageError::PosKey(oid)),
        }
    }
}

impl History for ClientStorage {
    fn revisions(&self, oid: Oid, each: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()> {
        let mut count = ENTRIES_AT_ONCE;
        let mut seen = 0;
        loop {
            let entries = self.history(oid, usize::try_from(count).unwrap_or(usize::MAX))?;
            let is_all = (entries.len() as i64) < count;
            for entry in entries.into_iter().skip(seen) {
                seen += 1;
                if each(entry).is_break() {
                    return Ok(());
                }
            }
            if is_all {
                return Ok(());
            }
            count = count.saturating_mul(4);
        }
    }

    fn history(&self, oid: Oid, count: usize) -> Result<Vec<HistoryEntry>> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let entries = self.upstream.read(&Call::History { oid, count }, |answer| answer.history())?;
        Ok(entries.into_iter().filter_map(results::revision).collect())
    }

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        match self.upstream.read(&Call::RecordIternext { next }, |answer| answer.iterated_object()) {
            Ok(object) => Ok(Some(results::object(object))),
            // Python's servers say so that there is none.
            Err(StorageError::Server { class, .. }) if class.ends_with("ValueError") => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn last_invalidations(&self, _count: usize) -> Result<LastInvalidations> {
        // What the server would answer about the time before is not known. Clients of this one that have seen the last
        // transaction go on from it.
        Ok(LastInvalidations::new(Vec::new(), self.last_transaction()))
    }
}

impl Commit for ClientStorage {
    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        self.upstream.vote(staged, tid_at)
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        self.upstream.finish(voted.into_own::<ServerVoted>(), ticket);
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        let delivery = self.upstream.timeline.between_arrivals(|last| {
            self.upstream.publisher.set(publisher, LOG, &self.upstream.name());
            // It may have been asked for its last transaction before the last one arrived.
            self.upstream.publisher.missed(last, None, &mut || ())
        });
        delivery.into_iter().for_each(|deliver| deliver());
    }

    fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        self.upstream.resolver.set(resolver);
    }
}

impl Iterate for ClientStorage {
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        // Nothing that is not published here.
        let last = self.last_transaction();
        let stop = Some(stop.map_or(last, |stop| stop.min(last)));
        Ok(Box::new(self.upstream.iterate(start, stop)?))
    }
}

impl Undo for ClientStorage {
    fn undo_log(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()> {
        let (mut first, mut count) = (0i64, ENTRIES_AT_ONCE);
        loop {
            let call = Call::UndoLog { first, last: first.saturating_add(count) };
            let entries = self.upstream.read(&call, |answer| answer.undo_log())?;
            let is_all = entries.is_empty();
            first = first.saturating_add(entries.len() as i64);
            let mut undoable = entries.into_iter().filter_map(results::undoable);
            if undoable.any(|entry| each(entry).is_break()) || is_all {
                return Ok(());
            }
            count = count.saturating_mul(2).min(1000);
        }
    }

    fn undo_oids(&self, tid: Tid) -> Result<Vec<Oid>> {
        let not_found = StorageError::Undo { reason: "Invalid transaction id".into(), oid: None };
        let mut transactions = self.upstream.iterate(Some(tid), Some(tid))?;
        let Some(_) = transactions.next_transaction()? else { return Err(not_found) };
        let mut records = transactions.records()?;
        let mut oids = Vec::new();
        while let Some(record) = records.next_record()? {
            oids.push(record.oid);
        }
        Ok(oids)
    }

    fn undo_now(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        self.upstream.undo_now(staged)
    }
}

impl Blobs for ClientStorage {
    fn dir(&self) -> Option<&Arc<BlobDir>> {
        self.upstream.blobs.as_ref().map(ClientBlobs::dir)
    }

    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        self.upstream.load_blob(oid, serial)
    }

    fn load_blob_now(&self, oid: Oid, serial: Tid) -> Option<Result<BlobFile>> {
        self.upstream.load_blob_now(oid, serial)
    }
}

impl Pack for ClientStorage {
    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        let can_cancel = self.upstream.info().instance.is_some();
        packs::pack(&self.upstream.in_use()?.link, request.time, request.progress, can_cancel)
    }

    fn plan(&self, request: &PackRequest<'_>) -> Result<PackPlan> {
        let in_use = self.upstream.in_use()?;
        if self.upstream.info().instance.is_none() {
            let message = "Python's servers cannot tell what a pack would remove";
            return Err(StorageError::Unsupported(message.into()));
        }
        packs::plan(&in_use.link, request.time, request.progress)
    }
}
