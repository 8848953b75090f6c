//! One file: its journal of checksums, and a pass of all checks over it.
//!
//! A pass reads the file that is served when it begins, up to the last transaction that is visible then, and looks for
//! the blobs that its records name. A blob is in its place before its transaction is visible. It ends early if a pack
//! replaces the file: only then a pack removes blobs.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::checksum::checksum;
use crate::base::ids::{Oid, Tid};
use crate::base::untrusted::one_line;
use crate::inspect::check::{Check, CheckOptions, Finding, FindingKind};
use crate::inspect::data_file::DataFile;
use crate::inspect::walk::{FoundTxn, Part, RecordPart, Walk};
use crate::storage::file::handle::{FileHandle, Served};
use crate::storage::file::pack::pace::Pace;
use crate::storage::file::sums::{STRETCH_MAX, Stretch, SumJournal};
use crate::storage::media::{MediaFile, RealMedia};
use crate::storage::{BlobDir, Result, StorageError};

/// Findings that are logged one by one in a pass; the rest is counted.
const LOGGED_MAX: u64 = 100;
/// Objects and transactions that are named in a finding.
const NAMED_MAX: usize = 5;
/// Findings that are remembered, so that each is logged once.
const KNOWN_MAX: usize = 100_000;
/// Stretches that are read before they are written to the journal together.
const STRETCHES_TOGETHER: usize = 256;

/// What looking for a blob costs, as bytes that are read: a page of its directory.
const BLOB_COST: u64 = 4096;

/// Looks at whether the file is still ours.
const LOOKS: usize = 5;

/// What a pass reports.
pub trait ScrubListener {
    /// Something is wrong that was not reported before.
    fn finding(&self, finding: &Finding);
    /// The journal cannot be used.
    fn no_journal(&self, why: &str);
    /// Whether the pass has to end.
    fn is_over(&self) -> bool;
}

/// The result of a pass.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Scrubbed {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes whose checksum was known before the pass.
    pub compared: u64,
    /// Revisions of blobs whose files were looked for.
    pub blobs: u64,
    /// All findings, also those that were reported before.
    pub findings: u64,
    /// Those of them that are about files of blobs.
    pub missing_blobs: u64,
    /// It ended early, because the file was replaced or the server stops.
    pub is_cut_short: bool,
}

/// Takes care of one file.
pub struct Scrubber {
    path: PathBuf,
    /// Where its blobs are, if it has any.
    blob_dir: Option<PathBuf>,
    handle: FileHandle,
    /// Bytes of a second.
    rate: u64,
    journal: Option<Journal>,
    /// Position and text of what was reported.
    known: HashSet<(u64, String)>,
    /// The journal cannot be written; this was said.
    is_without_journal: bool,
}

struct Journal {
    sums: SumJournal,
    /// Of the file that it is of.
    number: u64,
    /// See [`Served::rewinds`].
    rewinds: u64,
}

impl Scrubber {
    /// `rate` is not zero.
    pub fn new(path: &Path, blob_dir: Option<PathBuf>, handle: FileHandle, rate: u64) -> Scrubber {
        Scrubber {
            path: path.to_owned(),
            blob_dir,
            handle,
            rate,
            journal: None,
            known: HashSet::new(),
            is_without_journal: false,
        }
    }

    /// Bytes of a second, not zero, that the next pass reads.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    /// Sums what has no sum yet: what was committed since the last time; the whole file at first, and after a
    /// pack.
    pub fn follow(&mut self, listener: &dyn ScrubListener) {
        let Some(served) = self.handle.served().filter(|_| !self.is_without_journal) else { return };
        match self.sum_up(&served, listener) {
            // The file was cut off while it was read, or replaced. The next time it is another one.
            Err(error) if served.is_current() => self.give_up_journal(&error, listener),
            _ => {}
        }
    }

    fn sum_up(&mut self, served: &Served, listener: &dyn ScrubListener) -> io::Result<()> {
        let mut pace = Pace::new(self.rate);
        let is_over = || listener.is_over() || !served.is_current();
        let sums = &mut self.journal_of(served)?.sums;
        let (file, begun) = (served.file(), sums.covered());
        while sums.covered() < served.end && !is_over() {
            let mut stretches = Vec::new();
            let mut start = sums.covered();
            while start < served.end && stretches.len() < STRETCHES_TOGETHER && !is_over() {
                let stop = served.end.min(start + STRETCH_MAX);
                stretches.push((stop, sum_of(&*file, start, stop)?));
                start = stop;
                pace.keep(start - begun, is_over);
            }
            sums.push(&stretches)?;
        }
        Ok(())
    }

    fn give_up_journal(&mut self, error: &io::Error, listener: &dyn ScrubListener) {
        self.journal = None;
        self.is_without_journal = true;
        listener.no_journal(&error.to_string());
    }

    /// The journal of the file that is served; a new one if a pack has replaced it, or transactions were taken back.
    fn journal_of(&mut self, served: &Served) -> io::Result<&mut Journal> {
        let is_first = self.journal.is_none();
        let is_other =
            |journal: &Journal| (journal.number, journal.rewinds) != (served.number, served.rewinds());
        if self.journal.as_ref().is_none_or(is_other) {
            let is_trusted = is_first && self.handle.was_as_left() && served.rewinds() == 0;
            let sums = SumJournal::open(&RealMedia, &self.path, served.number, served.end, is_trusted)?;
            self.journal = Some(Journal { sums, number: served.number, rewinds: served.rewinds() });
        }
        self.journal.as_mut().ok_or_else(|| io::Error::other("there is no journal"))
    }

    /// Checks the whole file. Errors: it cannot be read.
    pub fn pass(&mut self, listener: &dyn ScrubListener) -> Result<Scrubbed> {
        let Some(served) = self.handle.served() else {
            return Err(StorageError::Closed(format!(
                "{} is not served, or read-only after an error",
                self.path.display()
            )));
        };
        if !self.is_without_journal
            && let Err(error) = self.journal_of(&served)
        {
            self.give_up_journal(&error, listener);
        }
        let mut scrubbed = Scrubbed { bytes: served.end, ..Scrubbed::default() };
        match self.check(&served, &mut scrubbed, listener) {
            // It was cut off while it was read.
            Err(_) if !served.is_current() => scrubbed.is_cut_short = true,
            checked => checked?,
        }
        Ok(scrubbed)
    }

    fn check(
        &mut self,
        served: &Served,
        scrubbed: &mut Scrubbed,
        listener: &dyn ScrubListener,
    ) -> Result<()> {
        let file = DataFile::up_to(&self.path, served.file(), served.end)?;
        let compared_end = self.journal.as_ref().map_or(0, |journal| journal.sums.covered().min(served.end));
        let blobs = self.blob_dir.as_ref().map(|dir| BlobDir::open(dir, true)).transpose()?;
        let options = CheckOptions { is_in_use: true, blobs: blobs.as_deref(), ..CheckOptions::default() };
        let mut check = Check::new(&file, options);
        let mut pace = Pace::new(self.rate);
        let mut compare = Compare { number: 0, txns: Vec::new() };
        let is_over = || listener.is_over() || !served.is_current();
        loop {
            let from = check.pos();
            let findings = check.next_findings()?;
            scrubbed.blobs = if blobs.is_some() { check.checked().blobs } else { 0 };
            pace.keep(check.pos().saturating_add(scrubbed.blobs.saturating_mul(BLOB_COST)), is_over);
            if is_over() {
                scrubbed.is_cut_short = true;
                return Ok(());
            }
            if from < compared_end {
                compare.txns.push((from, check.pos()));
            }
            if let Some(journal) = &self.journal {
                let done = check.pos().min(compared_end);
                let changed = compare.up_to(&file, &journal.sums, done, &mut scrubbed.compared)?;
                for finding in changed {
                    // A file that was put in its place, or written over it, is no damage, and the storage notices it. A
                    // commit at this moment may disturb the look.
                    if !(0..LOOKS).any(|_| served.is_ours()) {
                        scrubbed.is_cut_short = true;
                        return Ok(());
                    }
                    self.report(finding, scrubbed, listener);
                }
            }
            match findings {
                None => break,
                Some(findings) => {
                    findings.into_iter().for_each(|finding| self.report(finding, scrubbed, listener));
                }
            }
        }
        Ok(())
    }

    fn report(&mut self, finding: Finding, scrubbed: &mut Scrubbed, listener: &dyn ScrubListener) {
        scrubbed.findings += 1;
        scrubbed.missing_blobs += u64::from(finding.kind == FindingKind::Blob);
        let is_new = self.known.len() < KNOWN_MAX && self.known.insert((finding.pos, finding.what.clone()));
        if is_new && scrubbed.findings <= LOGGED_MAX {
            listener.finding(&finding);
        }
    }
}

/// The checksum of the bytes from `start` to `end`, at most [`STRETCH_MAX`].
fn sum_of(file: &dyn MediaFile, start: u64, end: u64) -> io::Result<u32> {
    let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
    match file.read_at(&mut bytes, start)? {
        len if len == bytes.len() => Ok(checksum(&[&bytes])),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Compares stretches with their sums, right behind the check, which has just read them.
struct Compare {
    /// Number of the next stretch.
    number: usize,
    /// Where the parts of the file begin and end that the next stretch may have.
    txns: Vec<(u64, u64)>,
}

impl Compare {
    /// Compares the stretches that end at `end` or before. Returns those that have changed.
    fn up_to(
        &mut self,
        file: &DataFile,
        sums: &SumJournal,
        end: u64,
        compared: &mut u64,
    ) -> Result<Vec<Finding>> {
        let mut found = Vec::new();
        while let Some(stretch) = sums.stretch(self.number).filter(|stretch| stretch.end <= end) {
            let Stretch { start, end, sum } = stretch;
            let now = sum_of(file.log().file(), start, end).map_err(file.log().io("reading", start))?;
            if now != sum {
                found.push(self.changed(file, stretch, now)?);
            }
            *compared += end - start;
            self.txns.retain(|(_, txn_end)| *txn_end > end);
            self.number += 1;
        }
        Ok(found)
    }

    /// What is in a stretch that has changed.
    fn changed(&self, file: &DataFile, stretch: Stretch, now: u32) -> Result<Finding> {
        let Stretch { start, end, sum } = stretch;
        let (mut tids, mut oids): (Vec<Tid>, Vec<Oid>) = (Vec::new(), Vec::new());
        let overlaps = |from: u64, to: u64| from < end && to > start;
        for (pos, _) in self.txns.iter().filter(|(from, to)| overlaps(*from, *to)) {
            let mut walk = Walk::from(file, *pos);
            let Some(Part::Transaction(txn)) = walk.next_part()? else { continue };
            tids.push(txn.header.tid);
            objects(&mut walk, &txn, &mut |from, to, oid| {
                if overlaps(from, to) {
                    oids.push(oid);
                }
            })?;
        }
        oids.sort_unstable();
        oids.dedup();
        let tid = tids.first().copied();
        let what = format!(
            "the bytes up to {end} are not those that were written here: their checksum is {now:08x}, and was {sum:08x}. \
             Transactions: {}; objects: {}",
            named(&tids),
            named(&oids)
        );
        let oid = oids.first().copied().filter(|_| oids.len() == 1);
        Ok(Finding { pos: start, tid, oid, what, kind: FindingKind::Damage })
    }
}

/// Calls `each` with the beginning, the end and the object of each record that can be read.
fn objects(walk: &mut Walk<'_>, txn: &FoundTxn, each: &mut dyn FnMut(u64, u64, Oid)) -> Result<()> {
    let mut cursor = walk.records(txn);
    while let Some(part) = walk.next_record(&mut cursor)? {
        if let RecordPart::Record(record) = part {
            each(record.pos, record.pos + record.header.record_len(), record.header.oid);
        }
    }
    Ok(())
}

/// The first few, and the number of the others.
fn named<T: ToString>(things: &[T]) -> String {
    let mut text = things.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match things.len().saturating_sub(NAMED_MAX) {
        0 if things.is_empty() => text.push_str("none that can be read"),
        0 => {}
        more => text.push_str(&format!(" and {more} more")),
    }
    text
}

/// A finding in words, as `zeofs test` prints it.
pub fn in_words(finding: &Finding) -> String {
    let Finding { pos, tid, oid, what, .. } = finding;
    let oid = oid.map_or_else(String::new, |oid| format!("object 0x{oid}, "));
    let tid = tid.map_or_else(String::new, |tid| format!("transaction {tid} of {}: ", tid.to_text()));
    format!("at {pos}: {oid}{tid}{}", one_line(1000, format_args!("{what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file::{FileStorage, FileStorageOptions};
    use crate::storage::prelude::*;
    use crate::storage::{Staged, TidAt, TransactionMeta};

    /// Rewinds the storage when the pass looks for the first time, and fails on findings.
    struct Rewinding<'a> {
        storage: &'a FileStorage,
        to: std::cell::Cell<Option<Tid>>,
    }

    impl ScrubListener for Rewinding<'_> {
        fn finding(&self, finding: &Finding) {
            panic!("{}", in_words(finding));
        }

        fn no_journal(&self, why: &str) {
            panic!("{why}");
        }

        fn is_over(&self) -> bool {
            if let Some(to) = self.to.take() {
                self.storage.replicable().unwrap().rewind(to).unwrap().unwrap();
                grow(self.storage, 7);
            }
            false
        }
    }

    fn grow(storage: &FileStorage, fill: u8) -> Vec<Tid> {
        (0..100)
            .map(|_| {
                let mut txn = Staged::new(TransactionMeta::default(), None, b' ', 10_000);
                let data =
                    [&b"\x80\x03cm\nC\n.\x80\x03B"[..], &3000u32.to_le_bytes(), &[fill; 3000], b"."].concat();
                txn.store(Oid(1), storage.get_tid(Oid(1)).unwrap_or(Tid::ZERO), &data).unwrap();
                storage.finish(storage.vote(txn, TidAt::Finish).unwrap(), Box::new(()));
                storage.last_transaction()
            })
            .collect()
    }

    #[test]
    fn what_takes_the_place_of_rewound_transactions_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let options = FileStorageOptions::new(dir.path().join("Data.fs"));
        let (path, handle) = (options.path.clone(), options.handle.clone());
        let storage = FileStorage::open(options).unwrap();
        let tids = grow(&storage, 1);
        let mut scrubber = Scrubber::new(&path, None, handle, u64::MAX);
        let listener = Rewinding { storage: &storage, to: None.into() };
        for (at, during_pass) in [(50, false), (20, true), (10, false)] {
            scrubber.follow(&listener);
            let whole = scrubber.pass(&listener).unwrap();
            assert_eq!((whole.findings, whole.is_cut_short), (0, false));
            assert!(whole.compared > 0);
            listener.to.set(Some(tids[at]));
            if during_pass {
                assert!(scrubber.pass(&listener).unwrap().is_cut_short);
            } else {
                // The checksums of before are of no use.
                listener.is_over();
                assert_eq!(scrubber.pass(&listener).unwrap().compared, 0);
            }
        }
    }
}
