//! A server with a storage of its own, which a section of the configuration file opens.
//!
//! `<memorystorage>` keeps objects in memory, up to a number of bytes, and of each object a number of revisions, for
//! clients that read the state of a moment ago. It is for data that may be lost, such as sessions:
//!
//! ```text
//! cat > zeo.conf <<END
//! <zeo>
//!   address 127.0.0.1:8100
//! </zeo>
//! <memorystorage 1>
//!   size-max 100000000
//!   revisions 5
//! </memorystorage>
//! END
//! cargo run --example own_storage -- -C zeo.conf
//! ```
//!
//! Clients can load, store and delete objects, and conflicts are merged. There is no history. The trait `Storage` has
//! what a storage may offer beyond that: iteration, undo, packing, blobs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use runzeo::commands::Extensions;
use runzeo::ids::{Oid, Tid};
use runzeo::storage::vote::{VoteSteps, check_delete, walk};
use runzeo::storage::{
    Commit, Committed, GroupTimes, History, HistoryEntry, IternextRecord, LastInvalidations, Load, Loaded,
    Op, OpKind, Publisher, PublisherSlot, Resolver, ResolverSlot, Result, Staged, Storage, StorageError,
    StorageKind, StorageSettings, Ticket, TidAt, Tids, VoteResult, Voted,
};

/// The name in log lines.
const TARGET: &str = "memorystorage";

pub struct MemoryStorage {
    name: String,
    /// In bytes of data.
    size_max: u64,
    /// How many revisions of an object are kept.
    revisions_max: usize,
    objects: RwLock<Objects>,
    /// The last oid that was given out.
    last_oid: Mutex<u64>,
    tids: Tids,
    /// Held from a tid's assignment until its transaction is published, so that transactions become visible in the
    /// order of their tids.
    commit: Mutex<()>,
    publisher: PublisherSlot,
    resolver: ResolverSlot,
}

#[derive(Default)]
struct Objects {
    /// The revisions of each object, oldest first; never empty.
    revisions: BTreeMap<Oid, Vec<Revision>>,
    /// Bytes of all data.
    size: u64,
    /// The last transaction.
    last: Tid,
    closed: bool,
}

struct Revision {
    tid: Tid,
    /// `None`: the object was deleted.
    data: Option<Vec<u8>>,
}

/// A transaction after its vote.
struct VotedTransaction {
    tid: Option<Tid>,
    records: Vec<(Oid, Option<Vec<u8>>)>,
    merged: Vec<Oid>,
}

impl Voted for VotedTransaction {
    fn tid(&self) -> Option<Tid> {
        self.tid
    }

    fn resolved(&self) -> &[Oid] {
        &self.merged
    }
}

impl MemoryStorage {
    pub fn new(name: String, size_max: u64, revisions_max: usize) -> MemoryStorage {
        MemoryStorage {
            name,
            size_max,
            revisions_max,
            objects: RwLock::default(),
            last_oid: Mutex::default(),
            tids: Tids::new(Tid::ZERO),
            commit: Mutex::default(),
            publisher: PublisherSlot::default(),
            resolver: ResolverSlot::default(),
        }
    }

    fn objects(&self) -> Result<RwLockReadGuard<'_, Objects>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        match objects.closed {
            true => Err(StorageError::Closed(format!("{} is closed", self.name))),
            false => Ok(objects),
        }
    }

    /// What the server gets of a transaction that is about to become visible.
    fn committed(&self, voted: &VotedTransaction, tid: Tid, ticket: Ticket) -> Committed {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let mut oids: Vec<Oid> = voted.records.iter().map(|(oid, _)| *oid).collect();
        oids.sort_unstable();
        oids.dedup();
        let new = oids.iter().filter(|oid| !objects.revisions.contains_key(oid)).count() as u64;
        let object_count = objects.revisions.len() as u64 + new;
        Committed {
            tid,
            oids,
            object_count,
            size: objects.size + len(&voted.records),
            ticket,
            times: GroupTimes::default(),
        }
    }
}

fn len(records: &[(Oid, Option<Vec<u8>>)]) -> u64 {
    records.iter().flat_map(|(_, data)| data).map(|data| data.len() as u64).sum()
}

impl Objects {
    fn of(&self, oid: Oid) -> Result<&[Revision]> {
        self.revisions.get(&oid).map(Vec::as_slice).ok_or(StorageError::PosKey(oid))
    }

    fn newest(&self, oid: Oid) -> Option<&Revision> {
        self.revisions.get(&oid)?.last()
    }

    fn install(&mut self, voted: VotedTransaction, tid: Tid, revisions_max: usize) {
        self.last = tid;
        self.size += len(&voted.records);
        for (oid, data) in voted.records {
            let revisions = self.revisions.entry(oid).or_default();
            // The last store of an object in a transaction counts.
            let replaced = revisions.pop_if(|last| last.tid == tid);
            revisions.push(Revision { tid, data });
            let kept = revisions.len().min(revisions_max.max(1));
            let dropped = revisions.drain(..revisions.len() - kept).chain(replaced);
            self.size -=
                dropped.filter_map(|revision| revision.data).map(|data| data.len() as u64).sum::<u64>();
        }
    }
}

/// Appends the data of a revision to `out`, behind `headroom` bytes. Returns where it begins.
fn append(oid: Oid, revision: &Revision, headroom: usize, out: &mut Vec<u8>) -> Result<usize> {
    let data = revision.data.as_ref().ok_or(StorageError::PosKey(oid))?;
    let start = out.len() + headroom;
    out.resize(start, 0);
    out.extend_from_slice(data);
    Ok(start)
}

impl Load for MemoryStorage {
    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let objects = self.objects()?;
        let (earlier, later) = {
            let revisions = objects.of(oid)?;
            revisions.split_at(revisions.partition_point(|revision| revision.tid < before))
        };
        let Some(revision) = earlier.last() else { return Ok(None) };
        let start = append(oid, revision, headroom, out)?;
        Ok(Some(Loaded { start, serial: revision.tid, end: later.first().map(|next| next.tid) }))
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        let objects = self.objects()?;
        let revision = objects.of(oid)?.iter().find(|revision| revision.tid == serial);
        let start = append(oid, revision.ok_or(StorageError::PosKey(oid))?, headroom, out)?;
        Ok(Loaded { start, serial, end: None })
    }

    fn get_tid(&self, oid: Oid) -> Result<Tid> {
        match self.objects()?.newest(oid) {
            Some(Revision { tid, data: Some(_), .. }) => Ok(*tid),
            _ => Err(StorageError::PosKey(oid)),
        }
    }
}

impl History for MemoryStorage {
    fn revisions(&self, oid: Oid, _: &mut dyn FnMut(HistoryEntry) -> ControlFlow<()>) -> Result<()> {
        self.objects()?.of(oid).map(drop)
    }

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        let objects = self.objects()?;
        let mut following = objects.revisions.range(next.unwrap_or(Oid::ZERO)..);
        let Some((&oid, revisions)) = following.next() else { return Ok(None) };
        match revisions.last() {
            Some(Revision { tid, data: Some(data), .. }) => Ok(Some(IternextRecord {
                oid,
                tid: *tid,
                data: data.clone(),
                next: following.next().map(|(oid, _)| *oid),
            })),
            _ => Err(StorageError::PosKey(oid)),
        }
    }

    fn last_invalidations(&self, _: usize) -> Result<LastInvalidations> {
        Ok(LastInvalidations::new(Vec::new(), self.objects()?.last))
    }
}

/// What a transaction writes, found in its vote.
struct Records<'a> {
    storage: &'a MemoryStorage,
    found: Vec<(Oid, Option<Vec<u8>>)>,
}

impl VoteSteps for Records<'_> {
    fn committed(&mut self, oid: Oid) -> Result<Option<Tid>> {
        Ok(self.storage.objects()?.newest(oid).map(|newest| newest.tid))
    }

    fn add(&mut self, staged: &mut Staged, _index: usize, op: Op) -> Result<()> {
        match op.kind {
            // Its conflict, if there was one, is merged.
            OpKind::Store { .. } => self.found.push((op.oid, Some(staged.payload(&op)?))),
            OpKind::Delete { serial } => {
                check_delete(op.oid, serial, self.committed(op.oid)?)?;
                self.found.push((op.oid, None));
            }
            OpKind::CheckCurrent { .. } => {}
            OpKind::Restore { .. } | OpKind::Undo { .. } => {
                let what = "neither takes copies with their own serials nor can it undo";
                return Err(StorageError::Unsupported(format!("{} {what}", self.storage.name)));
            }
        }
        Ok(())
    }
}

impl Commit for MemoryStorage {
    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        let mut records = Records { storage: self, found: Vec::new() };
        let (staged, merged) = walk(self, &self.resolver, staged, &mut records)?;
        let records = records.found;
        if !staged.blobs().is_empty() {
            return Err(StorageError::no_blobs().into());
        }
        if self.size() + len(&records) > self.size_max {
            return Err(StorageError::Quota.into());
        }
        let tid = self.tids.for_vote(tid_at, staged.tid)?;
        Ok(Box::new(VotedTransaction { tid, records, merged }))
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        let voted: VotedTransaction = voted.into_own();
        if let Err(error) = self.objects().map(drop) {
            return self.publisher.failed(ticket, error, TARGET, &self.name);
        }
        let committing = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let tid = self.tids.at_finish(voted.tid);
        // A storage on a disk makes the transaction durable here.
        let committed = self.committed(&voted, tid, ticket);
        let mut voted = Some(voted);
        let mut install = || {
            let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
            voted.take().into_iter().for_each(|voted| objects.install(voted, tid, self.revisions_max));
        };
        let delivery = self.publisher.publish(vec![committed], &mut install);
        drop(committing);
        // Sends the replies, so no lock is held any more.
        delivery.into_iter().for_each(|deliver| deliver());
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.publisher.set(publisher, TARGET, &self.name);
    }

    fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        self.resolver.set(resolver);
    }
}

impl Storage for MemoryStorage {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn object_count(&self) -> u64 {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).revisions.len() as u64
    }

    fn size(&self) -> u64 {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).size
    }

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        vec![("ZODB.interfaces", "IStorage"), ("zope.interface", "Interface")]
    }

    fn last_transaction(&self) -> Tid {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).last
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        // A client may have stored objects with oids that it did not get here.
        let largest = self.objects()?.revisions.keys().next_back().map_or(0, |oid| oid.0);
        let mut last_oid = self.last_oid.lock().unwrap_or_else(PoisonError::into_inner);
        let first = largest.max(*last_oid) + 1;
        *last_oid = first + count as u64 - 1;
        Ok((first..=*last_oid).map(Oid).collect())
    }

    fn close(&self) -> Result<()> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).closed = true;
        Ok(())
    }
}

/// Called at the start. An error ends it, with the line of the section in front.
fn open(settings: &StorageSettings) -> std::result::Result<Arc<dyn Storage>, String> {
    let name = settings.name.clone().unwrap_or_else(|| "memory".into());
    let size_max = settings.parse("size-max")?.unwrap_or(u64::MAX);
    let revisions_max = settings.parse("revisions")?.unwrap_or(10);
    Ok(Arc::new(MemoryStorage::new(name, size_max, revisions_max)))
}

pub fn extensions() -> Extensions {
    let mut extensions = Extensions::default();
    extensions.storages.register(StorageKind {
        name: "memorystorage",
        package: None,
        keys: &["size-max", "revisions"],
        is_layer: false,
        open,
    });
    extensions
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    runzeo::commands::runzeo::run_with(&extensions(), "own_storage", &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    /// What the program returns for a configuration whose storages are `section`.
    fn run(section: &str, option: &str) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("zeo.conf");
        let socket = dir.path().join("socket");
        let text = format!("<zeo>\n  address {}\n</zeo>\n{section}\n", socket.display());
        std::fs::write(&path, text).expect("written");
        let arguments = [OsString::from("-C"), path.into(), option.into()];
        format!("{:?}", runzeo::commands::runzeo::run_with(&extensions(), "own_storage", &arguments))
    }

    fn code(code: u8) -> String {
        format!("{:?}", ExitCode::from(code))
    }

    #[test]
    fn the_section_is_checked() {
        let checked = |section: &str| run(section, "--check");
        assert_eq!(checked("<memorystorage>\n  size-max 1000\n</memorystorage>"), code(0));
        // Inside a layer of the server.
        assert_eq!(checked("<demostorage>\n<memorystorage>\n</memorystorage>\n</demostorage>"), code(0));
        assert_eq!(checked("<memorystorage>\n  path x\n</memorystorage>"), code(2));
        assert_eq!(checked("<zeo>\n<memorystorage>\n</memorystorage>\n</zeo>"), code(2));
    }

    /// Signal handlers and the log are set up once in a process, so this is the only test that starts the server.
    #[test]
    fn the_server_starts_with_it() {
        assert_eq!(run("<memorystorage 1>\n  size-max 1000\n</memorystorage>", "--test"), code(0));
    }

    #[test]
    fn wrong_texts_are_named() {
        let values = vec![("size-max", "many".to_string())];
        let error = open(&StorageSettings { values, ..Default::default() }).err().expect("an error");
        assert_eq!(error, "size-max: 'many': invalid digit found in string");
    }
}
