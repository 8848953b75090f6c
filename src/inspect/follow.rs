//! A `Data.fs` as it grows: each transaction, once it is whole.
//!
//! The position behind the last transaction is kept, with its tid. Whether the name has another file now is looked at
//! each time; then reading goes on in that file, behind the last transaction that was seen. The former file is read to
//! its end before, so a pack loses nothing. A file that was overwritten in place no longer has that transaction before
//! the position, and is searched for it, too.
//!
//! Always true: tids of transactions that are reported ascend, so that what a restored file repeats is reported once.
//! A transaction may be read before the server has synced it; a power cut can take such a one back.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::data_file::DataFile;
use super::tail::end_before_zeros;
use super::walk::{Damage, FoundTxn, Part, Walk};
use crate::base::clock::Stopwatch;
use crate::base::ids::Tid;
use crate::storage::file::backwards::Backwards;
use crate::storage::file::format::MAGIC_LEN;
use crate::storage::media::{Access, Identity, Media, MediaFile, RealMedia};
use crate::storage::{Refusal, Result, StorageError};

/// How long something that cannot be read may be what a server is just writing. Then it is damage.
const DOUBT: Duration = Duration::from_secs(5);
/// A file that did not change for this number of looks is not read again. The clock of the file system is coarse: of
/// two writes at its same time, the first look may see one.
const QUIET_LOOKS: u32 = 10;
/// A file that was overwritten is complete if it did not change for this number of looks.
const SETTLED_LOOKS: u32 = 2;
/// After this number of looks it is taken as it is.
const UNSETTLED_LOOKS_MAX: u32 = 100;

/// Something new.
#[derive(Debug)]
pub enum News {
    Transaction(FoundTxn),
    /// Bytes that are no transaction, and others follow.
    Damage(Damage),
    Replaced(Replaced),
}

/// Another file, or other content of the same one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// The last transaction that was seen.
    pub last: Tid,
    /// The last one up to it in the new file; zero: there is none.
    pub found: Tid,
    /// The new file does not have `last`, and not because it was packed.
    pub is_restored: bool,
}

/// Follows a file.
pub struct Follow {
    path: PathBuf,
    handle: Arc<dyn MediaFile>,
    file: DataFile,
    pos: u64,
    /// What [`tid_before`] says of `pos`.
    before: Tid,
    /// The latest transaction that was reported.
    last: Tid,
    /// A position where no transaction can be read, since then.
    doubt: Option<(u64, Stopwatch)>,
    seen: Identity,
    /// Looks since the file has changed.
    quiet_looks: u32,
    /// Looks at other content, which may not be complete.
    unsettled_looks: u32,
}

impl Follow {
    /// Follows the file behind its last whole transaction. Also returns the newest transactions, at most `count`, the
    /// oldest first; [`Follow::file`] has them.
    pub fn open(path: &Path, count: usize) -> Result<(Follow, Vec<FoundTxn>)> {
        let handle = open(path)?;
        let file = DataFile::of(path, Arc::clone(&handle))?;
        let Resumption { pos, before: last, .. } = place_behind(&file, Tid(u64::MAX))?;
        let (seen, before) = (Identity::default(), tid_before(&file, pos)?);
        let mut newest = VecDeque::new();
        let mut backwards = Backwards::new(file.log(), pos);
        while newest.len() < count
            && let Ok(Some((pos, header))) = backwards.next_txn()
        {
            newest.push_front(FoundTxn { pos, header, wrong_len: None });
        }
        let path = path.to_owned();
        let (doubt, quiet_looks, unsettled_looks) = (None, 0, 0);
        let follow =
            Follow { path, handle, file, pos, before, last, doubt, seen, quiet_looks, unsettled_looks };
        Ok((follow, newest.into()))
    }

    /// The file in which the transactions are that were reported last.
    pub fn file(&self) -> &DataFile {
        &self.file
    }

    /// Reports what is new. The file of a transaction is only valid during the call.
    ///
    /// Errors: what `report` returns; `Io`.
    pub fn look<E: From<StorageError>>(
        &mut self,
        report: &mut dyn FnMut(&DataFile, News) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let doing = || StorageError::io(format!("reading {}", self.path.display()));
        let named = match RealMedia.identity(&self.path) {
            Ok(named) => Some(named),
            // Between two renames.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(doing()(error).into()),
        };
        let own = self.handle.identity().map_err(doing())?;
        self.quiet_looks = if own == self.seen { self.quiet_looks + 1 } else { 0 };
        self.seen = own;
        if self.quiet_looks < QUIET_LOOKS {
            self.read_on(report)?;
        }
        if named.is_some_and(|named| !named.is_same_file(&own)) {
            // Not a FileStorage yet: it is being copied.
            let Ok(handle) = open(&self.path) else { return Ok(()) };
            let Some(file) = data_file(&self.path, &handle)? else { return Ok(()) };
            (self.handle, self.quiet_looks) = (handle, 0);
            self.go_on_in(file, report)?;
            self.read_on(report)?;
        }
        Ok(())
    }

    /// Reports what is new in the open file.
    fn read_on<E: From<StorageError>>(
        &mut self,
        report: &mut dyn FnMut(&DataFile, News) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let Some(file) = data_file(&self.path, &self.handle)? else { return Ok(()) };
        if file.end() >= self.pos && tid_before(&file, self.pos)? == self.before {
            self.file = file;
        } else if self.quiet_looks >= SETTLED_LOOKS || self.unsettled_looks > UNSETTLED_LOOKS_MAX {
            self.go_on_in(file, report)?;
        } else {
            self.unsettled_looks += 1;
            return Ok(());
        }
        let mut walk = Walk::from(&self.file, self.pos);
        while let Some(part) = walk.next_part()? {
            match part {
                Part::Transaction(txn) if txn.wrong_len.is_none() || is_damage(&mut self.doubt, txn.pos) => {
                    (self.pos, self.before) = (txn.next(), txn.header.tid);
                    if txn.wrong_len.is_some() {
                        self.before = tid_before(&self.file, self.pos)?;
                    }
                    if txn.header.tid > self.last {
                        self.last = txn.header.tid;
                        report(&self.file, News::Transaction(txn))?;
                    }
                }
                Part::Damage(damage) if is_damage(&mut self.doubt, damage.pos) => {
                    self.pos = damage.end;
                    self.before = tid_before(&self.file, self.pos)?;
                    report(&self.file, News::Damage(damage))?;
                }
                // It may be whole at the next look.
                Part::Transaction(_) | Part::Damage(_) => {
                    self.quiet_looks = 0;
                    break;
                }
                Part::Ending(_) => {}
            }
        }
        Ok(())
    }

    /// Goes on in a file behind the last transaction that was reported.
    fn go_on_in<E: From<StorageError>>(
        &mut self,
        file: DataFile,
        report: &mut dyn FnMut(&DataFile, News) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let Resumption { pos, before, is_packed } = place_behind(&file, self.last)?;
        (self.file, self.pos, self.doubt, self.unsettled_looks) = (file, pos, None, 0);
        self.before = tid_before(&self.file, pos)?;
        // A pack may take out the last transaction, but not what is before it without marking that as packed.
        let is_restored = before != self.last && !is_packed;
        report(&self.file, News::Replaced(Replaced { last: self.last, found: before, is_restored }))
    }
}

/// Whether nothing that can be read has come at this position for a while.
fn is_damage(doubt: &mut Option<(u64, Stopwatch)>, pos: u64) -> bool {
    match doubt {
        Some((at, since)) if *at == pos => since.passed() >= DOUBT,
        _ => {
            *doubt = Some((pos, Stopwatch::start()));
            false
        }
    }
}

fn open(path: &Path) -> Result<Arc<dyn MediaFile>> {
    RealMedia.open(path, Access::Read).map_err(StorageError::io(format!("opening {}", path.display())))
}

/// The file as it is now; `None` if it does not begin as a FileStorage.
fn data_file(path: &Path, handle: &Arc<dyn MediaFile>) -> Result<Option<DataFile>> {
    match DataFile::of(path, Arc::clone(handle)) {
        Ok(file) => Ok(Some(file)),
        Err(StorageError::Refused { what: Refusal::FileFormat, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The tid of the transaction that ends at `pos`; zero: there is none that can be read.
fn tid_before(file: &DataFile, pos: u64) -> Result<Tid> {
    match Backwards::new(file.log(), pos).next_txn() {
        Ok(found) => Ok(found.map_or(Tid::ZERO, |(_, header)| header.tid)),
        Err(StorageError::Corrupt { .. }) => Ok(Tid::ZERO),
        Err(error) => Err(error),
    }
}

/// A place between transactions.
struct Resumption {
    pos: u64,
    /// The transaction before it; zero: there is none.
    before: Tid,
    /// A pack has written it.
    is_packed: bool,
}

/// The place behind the last transaction that is not later than `last`.
fn place_behind(file: &DataFile, last: Tid) -> Result<Resumption> {
    let mut backwards = Backwards::new(file.log(), end_before_zeros(file)?);
    loop {
        match backwards.next_txn() {
            Ok(Some((_, header))) if header.status == b'c' || header.len < header.head_len() => break,
            Ok(Some((_, header))) if header.tid > last => {}
            Ok(Some((pos, header))) => {
                let pos = FoundTxn { pos, header, wrong_len: None }.next();
                return Ok(Resumption { pos, before: header.tid, is_packed: header.status == b'p' });
            }
            Ok(None) => return Ok(Resumption { pos: MAGIC_LEN, before: Tid::ZERO, is_packed: false }),
            // It does not end behind a transaction: one is being written, or the file is still being copied.
            Err(StorageError::Corrupt { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    let mut place = Resumption { pos: MAGIC_LEN, before: Tid::ZERO, is_packed: false };
    let mut walk = Walk::new(file);
    while let Some(part) = walk.next_part()? {
        // Former damage is not what comes now.
        let Part::Transaction(txn) = part else { continue };
        if txn.header.tid > last {
            break;
        }
        place = Resumption { pos: txn.next(), before: txn.header.tid, is_packed: txn.header.status == b'p' };
    }
    Ok(place)
}
