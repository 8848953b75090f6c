//! A copy of all that can be read of a damaged file.
//!
//! Transactions that are whole are copied with their pointers adapted: of an undamaged file the copy has the same
//! bytes, but for pointers to previous records that a pack has left out. A back-pointer to a record that is lost is
//! replaced by the data, if that can be read. Of a transaction that is not whole, nothing is copied, or what can be
//! read of it, as the caller says.
//!
//! It always ends: each part of the file is looked at once. The memory is 8 to 16 bytes for each object, and what is
//! lost is noted.

use std::sync::Arc;

use super::data_file::DataFile;
use super::order::{InOrder, Placed};
use super::walk::{Damage, EndingKind, FoundRecord, FoundTxn, RecordPart, Walk};
use crate::base::ids::{Oid, Tid};
use crate::storage::file::format::{BACK_LEN, DataHeader, TXN_HEADER_LEN, TxnHeader};
use crate::storage::file::index::Index;
use crate::storage::file::moved::Moved;
use crate::storage::file::pack::out::Out;
use crate::storage::media::MediaFile;
use crate::storage::{Result, StorageError, TransactionMeta};

/// What to copy.
#[derive(Clone, Copy, Debug)]
pub struct RecoverOptions {
    /// Later transactions are left out.
    pub to: Tid,
    /// What can be read of a damaged transaction is copied, marked as packed.
    pub partial: bool,
    /// Later tids are unlikely.
    pub now: Tid,
    /// A server has the file open: its end may be a transaction that is being written.
    pub is_in_use: bool,
}

/// What became of a part of the file.
#[derive(Debug)]
pub enum Step {
    /// A transaction was copied, wholly or in part.
    Copied {
        tid: Tid,
        /// Where it ends in the damaged file.
        next: u64,
        /// What was wrong with it and is right in the copy, or is left out.
        mended: Vec<String>,
    },
    /// These bytes were not copied.
    Lost(LostPart),
    /// A transaction that an old program has marked as undone.
    Undone { len: u64 },
    /// The last bytes of the file, which are no committed transaction.
    Unfinished { len: u64 },
    /// All later ones are left out.
    Later,
}

/// A part of the file that is not in the copy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LostPart {
    pub pos: u64,
    pub end: u64,
    /// Of the transaction, if it can be read.
    pub tid: Option<Tid>,
    pub what: String,
    /// Number of its records that could be found.
    pub records: u64,
}

/// A revision that is not in the copy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LostRevision {
    pub oid: Oid,
    pub tid: Tid,
}

/// What is left of an object that has lost revisions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// A later revision is there: only history is lost.
    Later,
    /// This earlier revision is current again.
    Earlier(Tid),
    Nothing,
}

/// Copies a file, part by part.
pub struct Recovery<'a> {
    file: &'a DataFile,
    parts: InOrder<'a>,
    walk: Walk<'a>,
    out: Out,
    options: RecoverOptions,
    index: Index,
    moved: Moved,
    lost: Vec<LostRevision>,
    /// Of the transaction that was copied last: oid, position in the copy, length of the data.
    copied: Vec<(Oid, u64, u64)>,
    is_over: bool,
}

impl<'a> Recovery<'a> {
    /// `out`: the new file, which is empty. `doing`: for errors.
    pub fn new(
        file: &'a DataFile,
        out: Arc<dyn MediaFile>,
        doing: String,
        options: RecoverOptions,
    ) -> Result<Recovery<'a>> {
        let mut out = Out::new(out, doing);
        out.push(&file.format().magic())?;
        Ok(Recovery {
            file,
            parts: InOrder::new(file, options.now),
            walk: Walk::new(file),
            out,
            options,
            index: Index::new(),
            moved: Moved::default(),
            lost: Vec::new(),
            copied: Vec::new(),
            is_over: false,
        })
    }

    /// Copies the next part; `None` at the end, when all is written and synced.
    pub fn next_step(&mut self) -> Result<Option<Step>> {
        let placed = if self.is_over { None } else { self.parts.next_part()? };
        let step = match placed {
            None => {
                self.out.sync()?;
                return Ok(None);
            }
            Some(Placed::Transaction { txn, .. }) if txn.header.tid > self.options.to => {
                self.is_over = true;
                Step::Later
            }
            Some(Placed::Transaction { txn, .. }) if txn.header.status == b'u' => {
                Step::Undone { len: txn.next() - txn.pos }
            }
            Some(Placed::Transaction { txn, wrong_tid }) => self.transaction(txn, wrong_tid)?,
            Some(Placed::OutOfOrder { txn, why }) => {
                let records = self.lose(&txn)?;
                let tid = Some(txn.header.tid);
                Step::Lost(LostPart { pos: txn.pos, end: txn.next(), tid, what: why, records })
            }
            Some(Placed::Damage(damage)) => self.damage(damage)?,
            Some(Placed::Ending(ending))
                if self.options.is_in_use || !matches!(ending.kind, EndingKind::Torn(_)) =>
            {
                Step::Unfinished { len: self.file.end() - ending.pos }
            }
            Some(Placed::Ending(ending)) => {
                let what = ending.kind.text().to_string();
                self.damage(Damage { pos: ending.pos, end: self.file.end(), what })?
            }
        };
        Ok(Some(step))
    }

    /// Bytes of the copy.
    pub fn len(&self) -> u64 {
        self.out.end()
    }

    /// Objects and lengths of the data of the records that were copied with the last transaction; `None`: without data.
    pub fn copied(&self) -> impl Iterator<Item = (Oid, Option<u64>)> {
        self.copied.iter().map(|(oid, _, len)| (*oid, (*len > 0).then_some(*len)))
    }

    /// For each object with lost revisions the newest of them, and what is left. Complete after the last step.
    pub fn lost_objects(&mut self) -> Result<Vec<(LostRevision, Left)>> {
        // The newest first.
        self.lost.sort_unstable_by(|a, b| a.oid.cmp(&b.oid).then(b.tid.cmp(&a.tid)));
        self.lost.dedup_by_key(|lost| lost.oid);
        let mut all = Vec::new();
        for lost in std::mem::take(&mut self.lost) {
            let left = match self.index.pos(lost.oid) {
                0 => Left::Nothing,
                pos => match self.out.record(pos)?.tid {
                    tid if tid > lost.tid => Left::Later,
                    tid => Left::Earlier(tid),
                },
            };
            all.push((lost, left));
        }
        Ok(all)
    }

    /// Notes that nothing of a transaction is copied. Returns the number of its records that can be found.
    fn lose(&mut self, txn: &FoundTxn) -> Result<u64> {
        let (good, _) = self.readable(txn)?;
        let revisions =
            good.iter().map(|record| LostRevision { oid: record.header.oid, tid: record.header.tid });
        self.lost.extend(revisions);
        Ok(good.len() as u64)
    }

    /// The records that can be read with their data, and what is wrong with the others.
    fn readable(&mut self, txn: &FoundTxn) -> Result<(Vec<FoundRecord>, Vec<String>)> {
        let (mut good, mut flaws) = (Vec::new(), Vec::new());
        let mut cursor = self.walk.records(txn);
        while let Some(part) = self.walk.next_record(&mut cursor)? {
            match part {
                RecordPart::Record(record) => match self.place(&record) {
                    Ok(_) => good.push(record),
                    Err(StorageError::Corrupt { pos, what, .. }) => {
                        let FoundRecord { header, .. } = record;
                        self.lost.push(LostRevision { oid: header.oid, tid: header.tid });
                        flaws.push(format!("object 0x{} has no data: at {pos}: {what}", header.oid));
                    }
                    Err(error) => return Err(error),
                },
                RecordPart::Damage(damage) => flaws.push(format!("at {}: {}", damage.pos, damage.what)),
            }
        }
        Ok((good, flaws))
    }

    /// Where the data of a record is in the damaged file.
    fn place(&self, record: &FoundRecord) -> Result<Option<(u64, DataHeader)>> {
        let FoundRecord { pos, header, back } = *record;
        match (header.data_len, back) {
            (0, 0) => Ok(None),
            (0, back) => {
                self.file.behind(pos, header.oid, back)?;
                self.file.log().follow(header.oid, back)
            }
            _ => Ok(Some((pos, header))),
        }
    }

    fn transaction(&mut self, mut txn: FoundTxn, wrong_tid: Option<Tid>) -> Result<Step> {
        let mut mended = Vec::new();
        if let Some(tid) = wrong_tid {
            mended.push(format!("the tid in its header is {tid}"));
        }
        if let Some(wrong) = txn.wrong_len {
            mended.push(wrong.text());
        }
        if !txn.header.status_is_known() {
            mended.push(format!("its status is '{}'", [txn.header.status].escape_ascii()));
            txn.header.status = b' ';
        }
        let (good, flaws) = self.readable(&txn)?;
        if !flaws.is_empty() && (!self.options.partial || good.is_empty()) {
            self.lost.extend(
                good.iter().map(|record| LostRevision { oid: record.header.oid, tid: txn.header.tid }),
            );
            let (tid, records) = (Some(txn.header.tid), good.len() as u64);
            return Ok(Step::Lost(LostPart {
                pos: txn.pos,
                end: txn.next(),
                tid,
                what: flaws.join("; "),
                records,
            }));
        }
        if !flaws.is_empty() {
            txn.header.status = b'p';
            mended.extend(flaws);
        }
        let meta = self.walk.meta(&txn)?;
        self.copy(&txn, &meta, &good, &mut mended)?;
        Ok(Step::Copied { tid: txn.header.tid, next: txn.next(), mended })
    }

    /// Bytes that are no whole transaction. Their records can be found if they have the position as that of their
    /// transaction.
    fn damage(&mut self, damage: Damage) -> Result<Step> {
        let Damage { pos, end, what } = damage;
        let header = TxnHeader {
            tid: Tid::ZERO,
            len: end.saturating_sub(pos),
            status: b'p',
            user_len: 0,
            description_len: 0,
            extension_len: 0,
        };
        let mut txn = FoundTxn { pos, header, wrong_len: None };
        let (good, _) = self.readable(&txn)?;
        let tid = good.first().map(|record| record.header.tid);
        txn.header.tid = tid.unwrap_or(Tid::ZERO);
        let fits = self.parts.may_be(txn.header.tid) && txn.header.tid <= self.options.to;
        if self.options.partial && fits && good.iter().all(|record| record.header.tid == txn.header.tid) {
            let mut mended = vec![format!("{what}; user and description are lost")];
            self.copy(&txn, &TransactionMeta::default(), &good, &mut mended)?;
            self.parts.set_last(txn.header.tid);
            return Ok(Step::Copied { tid: txn.header.tid, next: end, mended });
        }
        let revisions =
            good.iter().map(|record| LostRevision { oid: record.header.oid, tid: record.header.tid });
        self.lost.extend(revisions);
        Ok(Step::Lost(LostPart { pos, end, tid, what, records: good.len() as u64 }))
    }

    fn copy(
        &mut self,
        txn: &FoundTxn,
        meta: &TransactionMeta,
        records: &[FoundRecord],
        mended: &mut Vec<String>,
    ) -> Result<()> {
        let tpos = self.out.end();
        self.moved.at(txn.pos, tpos);
        // The length is not known yet.
        self.out.push(&TxnHeader { len: 0, ..txn.header }.encode())?;
        for text in [&meta.user, &meta.description, &meta.extension] {
            self.out.push(text)?;
        }
        self.copied.clear();
        for record in records {
            self.copy_record(txn.header.tid, tpos, record, mended)?;
        }
        let len = self.out.end() - tpos;
        self.out.patch(tpos, &TxnHeader { len, ..txn.header }.encode())?;
        self.out.push(&len.to_be_bytes())?;
        // Not earlier: two records of one object both point to the revision before the transaction.
        for (oid, pos, len) in &self.copied {
            self.index.insert(*oid, *pos, *len);
        }
        const { assert!(TXN_HEADER_LEN == 23) };
        Ok(())
    }

    fn copy_record(
        &mut self,
        tid: Tid,
        tpos: u64,
        record: &FoundRecord,
        mended: &mut Vec<String>,
    ) -> Result<()> {
        let FoundRecord { pos, header, back } = *record;
        let oid = header.oid;
        if header.tid != tid {
            mended.push(format!("the record of object 0x{oid} has the tid {}", header.tid));
        }
        let here = self.out.end();
        let place = self.place(record)?;
        let new_back = match (header.data_len, back) {
            (0, back) if back != 0 => self.new_place(oid, back)?,
            _ => None,
        };
        let data = if new_back.is_some() { None } else { place };
        let data_len = data.map_or(0, |(_, header)| header.data_len);
        let new = DataHeader { tid, prev: self.index.pos(oid), tloc: tpos, data_len, ..header };
        self.out.push(&new.encode())?;
        self.moved.at(pos, here);
        match data {
            Some((at, header)) => {
                let found = FoundRecord { pos: at, header, back: 0 };
                self.push_data(&found)?;
            }
            None => self.out.push(&new_back.unwrap_or(0).to_be_bytes())?,
        }
        const { assert!(BACK_LEN == 8) };
        self.copied.push((oid, here, place.map_or(0, |(_, header)| header.data_len)));
        Ok(())
    }

    /// Copies the data piece by piece.
    fn push_data(&mut self, record: &FoundRecord) -> Result<()> {
        let mut apart = Vec::new();
        let data = self.walk.data(record, &mut apart)?;
        self.out.push(data)
    }

    /// The position in the copy of the record that a back-pointer leads to, if it was copied.
    fn new_place(&mut self, oid: Oid, back: u64) -> Result<Option<u64>> {
        let new = self.moved.to(back);
        if new == 0 || new >= self.out.end() {
            return Ok(None);
        }
        let was = self.file.log().read_record(back, Some(oid))?.header;
        let is = self.out.record(new)?;
        Ok((is.oid == oid && is.tid == was.tid).then_some(new))
    }
}
