//! Merging three states of a bucket or set, key by key, by the rules of BTrees.
//!
//! Three cursors go through the states in the order of their keys. An item that one transaction inserted or changed is
//! copied if the other transaction left its key alone; the other cases are in [`Reason`]. Items are copied as bytes, in
//! runs as long as possible.

use std::cmp::Ordering;
use std::iter::zip;

use super::bucket::{Bucket, Cursor, common_items};
use super::class::{Family, Form, ItemType};
use super::compare::{Comparer, NodeValue, integer};
use super::emit::{Emitter, Source};
use super::items::{are_same, fixed, is_plain, single};
use super::refusal::{Reason, Refusal, Stop};
use super::scan::common_len;
use super::shape::{Kid, Kind, Shape};
use crate::pickle::opcode::*;
use crate::pickle::write::{Dialect, put_float, put_int};

type Result<T> = std::result::Result<T, Stop>;

/// The merged record of three states: old, committed, new.
pub fn merge(family: Family, form: Form, states: &[Shape<'_>; 3]) -> Result<Vec<u8>> {
    let [old, committed, new] = states;
    // As BTrees: the shape of all three trees is checked before any item, and old before committed before new.
    let buckets = [Bucket::open(form, old)?, Bucket::open(form, committed)?, Bucket::open(form, new)?];
    let common = common_items(&buckets, form.width());
    let mut merge = BucketMerge::new(family, form, &buckets, common)?;
    merge.begin();
    if merge.plain {
        merge.take_unchanged(common)?;
    }
    merge.run()?;
    if merge.count == 0 {
        return Stop::conflict(Reason::MergedIsEmpty);
    }
    merge.end()
}

fn same_next(comparer: &mut Comparer, a: &Bucket<'_, '_>, b: &Bucket<'_, '_>) -> Result<bool> {
    match (a.next, b.next) {
        (None, None) => Ok(true),
        (Some(x), Some(y)) => {
            comparer.same_reference(NodeValue::new(a.shape, x.node), NodeValue::new(b.shape, y.node))
        }
        _ => Ok(false),
    }
}

struct BucketMerge<'b, 's, 'a> {
    family: Family,
    form: Form,
    /// All records were written by Python 2.
    python2: bool,
    comparer: Comparer,
    /// Old.
    i1: Cursor<'b, 's, 'a>,
    /// Committed.
    i2: Cursor<'b, 's, 'a>,
    /// New.
    i3: Cursor<'b, 's, 'a>,
    /// Of committed and new.
    sources: [Source<'s, 'a>; 2],
    emitter: Emitter,
    /// Number of copied items.
    count: usize,
    /// A run of adjacent items to be copied: its state, and its bytes from and to.
    pending: Option<(Side, u32, u32)>,
    /// No item of committed or new refers to another value of its record.
    alone: bool,
    /// BTrees would write all items unchanged, and each equals itself.
    plain: bool,
    /// Equal items have equal bytes: no item is in a memo.
    comparable: bool,
}

/// The state that an item is taken from.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Side {
    Committed,
    New,
}

impl<'b, 's, 'a> BucketMerge<'b, 's, 'a> {
    /// Makes the checks that need no comparison of keys. `common`: this number of keys and values is the same in all
    /// three states.
    fn new(
        family: Family,
        form: Form,
        buckets: &'b [Bucket<'s, 'a>; 3],
        common: usize,
    ) -> Result<BucketMerge<'b, 's, 'a>> {
        let [old, committed, new] = buckets;
        let shapes = buckets.each_ref().map(|bucket| bucket.shape);
        let python2 = shapes.iter().all(|shape| shape.protocol < 3);
        let mut plain = !shapes.iter().any(|shape| shape.has_nan);
        for (bucket, from) in [(old, 0), (committed, common), (new, common)] {
            plain &= bucket.check(bucket.items.get(from..).unwrap_or_default(), family, form, python2)?;
        }
        let len = shapes.iter().map(|shape| shape.source.len()).sum();
        let mut comparer = Comparer::new(python2, len);
        if !same_next(&mut comparer, old, committed)? || !same_next(&mut comparer, old, new)? {
            return Stop::conflict(Reason::BucketSplit);
        }
        if committed.items.is_empty() || new.items.is_empty() {
            return Stop::conflict(Reason::BucketEmptied);
        }
        let mut sources = [Source::new(committed.shape), Source::new(new.shape)];
        let [_, head] = &mut sources;
        let emitter = Emitter::new(head, committed.shape.protocol.max(new.shape.protocol), len);
        Ok(BucketMerge {
            family,
            form,
            python2,
            comparer,
            i1: Cursor::new(old, form.width()),
            i2: Cursor::new(committed, form.width()),
            i3: Cursor::new(new, form.width()),
            sources,
            emitter,
            count: 0,
            pending: None,
            alone: committed.stands_alone() && new.stands_alone(),
            plain,
            comparable: plain && buckets.iter().all(Bucket::remembers_nothing),
        })
    }

    /// Writes the part before the first item.
    fn begin(&mut self) {
        if self.form.is_tree() {
            self.emitter.begin_single();
            self.emitter.begin_single();
        }
        match self.i3.bucket.next {
            Some(_) => self.emitter.opcode(MARK),
            None => self.emitter.begin_single(),
        }
        self.emitter.opcode(MARK);
    }

    /// Writes the part after the last item; returns the record.
    fn end(mut self) -> Result<Vec<u8>> {
        self.flush()?;
        let BucketMerge { mut emitter, sources: [_, mut source], alone, i3, form, .. } = self;
        emitter.opcode(TUPLE);
        if alone {
            source.forget();
        }
        match i3.bucket.next {
            Some(next) => {
                emitter.piece(&mut source, next.start, i3.bucket.state_end)?;
                emitter.opcode(TUPLE);
            }
            None => emitter.end_single(),
        }
        if form.is_tree() {
            emitter.end_single();
            emitter.end_single();
        }
        emitter.opcode(STOP);
        Ok(emitter.out)
    }

    /// The rules of BTrees in its order, with its error reasons.
    fn run(&mut self) -> Result<()> {
        while self.i1.is_active() && self.i2.is_active() && self.i3.is_active() {
            // Most items are unchanged.
            if !self.take_same()? {
                self.merge_next()?;
            }
        }
        self.merge_ends()
    }

    /// Merges the next key of three states that all have one.
    fn merge_next(&mut self) -> Result<()> {
        use Ordering::{Equal, Greater};
        let order12 = self.order(self.i1.key, self.i2.key)?;
        let order13 = self.order(self.i1.key, self.i3.key)?;
        match (order12, order13) {
            (Equal, Equal) => {
                let side = self.changed_value()?;
                self.copy(side)?;
                self.i1.advance();
                self.i2.advance();
                self.i3.advance();
            }
            (Equal, Greater) => self.take(Side::New)?,
            (Equal, _) => {
                if !self.unchanged(self.i1.value, self.i2.value)? {
                    return self.conflict(Reason::CommittedChangedNewDeleted);
                }
                if self.i3.position == 1 {
                    return self.conflict(Reason::FirstKeyDeleted);
                }
                self.i1.advance();
                self.i2.advance();
            }
            (Greater, Equal) => self.take(Side::Committed)?,
            (_, Equal) => {
                if !self.unchanged(self.i1.value, self.i3.value)? {
                    return self.conflict(Reason::NewChangedCommittedDeleted);
                }
                if self.i2.position == 1 {
                    return self.conflict(Reason::FirstKeyDeleted);
                }
                self.i1.advance();
                self.i3.advance();
            }
            _ => match (order12, order13, self.order(self.i2.key, self.i3.key)?) {
                (_, _, Equal) => return self.conflict(Reason::BothInsertedOrDeleted),
                (Greater, _, Greater) => self.take(Side::New)?,
                (Greater, _, _) => self.take(Side::Committed)?,
                (_, Greater, _) => self.take(Side::New)?,
                _ => return self.conflict(Reason::BothDeleted),
            },
        }
        Ok(())
    }

    /// Merges the rest when at least one of the three states has ended.
    fn merge_ends(&mut self) -> Result<()> {
        use Ordering::{Equal, Greater};
        while self.i2.is_active() && self.i3.is_active() {
            match self.order(self.i2.key, self.i3.key)? {
                Equal => return self.conflict(Reason::BothInserted),
                Greater => self.take(Side::New)?,
                _ => self.take(Side::Committed)?,
            }
        }
        while self.i1.is_active() && self.i2.is_active() {
            match self.order(self.i1.key, self.i2.key)? {
                Greater => self.take(Side::Committed)?,
                Equal if self.unchanged(self.i1.value, self.i2.value)? => {
                    self.i1.advance();
                    self.i2.advance();
                }
                _ => return self.conflict(Reason::NewDeletedEnd),
            }
        }
        while self.i1.is_active() && self.i3.is_active() {
            match self.order(self.i1.key, self.i3.key)? {
                Greater => self.take(Side::New)?,
                Equal if self.unchanged(self.i1.value, self.i3.value)? => {
                    self.i1.advance();
                    self.i3.advance();
                }
                _ => return self.conflict(Reason::CommittedDeletedEnd),
            }
        }
        if self.i1.is_active() {
            return self.conflict(Reason::BothDeletedEnd);
        }
        while self.i2.is_active() {
            self.take(Side::Committed)?;
        }
        while self.i3.is_active() {
            self.take(Side::New)?;
        }
        Ok(())
    }

    fn conflict<T>(&self, reason: Reason) -> Result<T> {
        let positions = [self.i1.position, self.i2.position, self.i3.position];
        Err(Refusal::BTrees { positions, reason }.into())
    }

    // -- comparing

    /// The key is in all three states: returns the state whose value is used.
    fn changed_value(&mut self) -> Result<Side> {
        let (v1, v2, v3) = (self.i1.value, self.i2.value, self.i3.value);
        match self.unchanged(v1, v2) {
            Ok(true) => Ok(Side::New),
            Ok(false) => match self.unchanged(v1, v3)? {
                true => Ok(Side::Committed),
                false => self.conflict(Reason::BothChanged),
            },
            // If new has not changed the value, committed's value is used in either case.
            Err(Stop::Unsure(why)) => match self.unchanged(v1, v3) {
                Ok(true) => Ok(Side::Committed),
                Ok(false) | Err(Stop::Unsure(_)) => Err(Stop::Unsure(why)),
                Err(refused) => Err(refused),
            },
            Err(refused) => Err(refused),
        }
    }

    /// The order of two keys.
    fn order(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> Result<Ordering> {
        match self.family.key {
            ItemType::Object => self.comparer.keys(a, b),
            ItemType::Bytes(_) => fixed(self.python2, a, b).map(|(a, b)| a.cmp(b)),
            _ => Ok(match (a.kind(), b.kind()) {
                (Kind::Int(a), Kind::Int(b)) => a.cmp(&b),
                _ => integer(a).cmp(&integer(b)),
            }),
        }
    }

    /// Whether two values of one key are equal. In a set they always are.
    fn unchanged(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> Result<bool> {
        if !self.form.has_values() {
            return Ok(true);
        }
        match self.family.value {
            ItemType::Object => self.comparer.values(a, b),
            ItemType::Bytes(_) => fixed(self.python2, a, b).map(|(a, b)| a == b),
            item => Ok(are_same(item, a, b)),
        }
    }

    // -- taking over

    /// Copies the items that follow and are the same in all three states. `false` if there is none.
    fn take_same(&mut self) -> Result<bool> {
        if self.comparable { self.take_same_bytes() } else { self.take_same_items() }
    }

    /// Copies items whose bytes are the same in all three states.
    fn take_same_bytes(&mut self) -> Result<bool> {
        let (old, committed, new) = (self.i1.rest(), self.i2.rest(), self.i3.rest());
        // These two first: if they share many bytes that old does not have, it is a conflict.
        let len = common_len(new, committed);
        let len = common_len(new.get(..len).unwrap_or_default(), old);
        let (items, end) = self.i3.items_within(u32::try_from(len).unwrap_or(0));
        let whole = |cursor: &Cursor<'_, '_, '_>| {
            cursor.start_of(cursor.at + items) - cursor.start_of(cursor.at) == end
        };
        if items == 0 || !whole(&self.i1) || !whole(&self.i2) {
            return Ok(false);
        }
        self.take_unchanged(items)?;
        Ok(true)
    }

    /// Copies items one by one that are the same in all three states without Python's comparison.
    fn take_same_items(&mut self) -> Result<bool> {
        let [one, two, three] = [&self.i1, &self.i2, &self.i3].map(|cursor| cursor.bucket.shape);
        let items = zip(zip(self.i1.items(), self.i2.items()), self.i3.items());
        let same = |((a, b), c): &((&Kid, &Kid), &Kid)| {
            three.same(c.node, one, a.node) && three.same(c.node, two, b.node)
        };
        let same = items.take_while(same).count();
        let same = same - same % self.i3.width;
        if self.plain {
            self.take_unchanged(same)?;
            return Ok(same > 0);
        }
        for _ in 0..same / self.i3.width {
            self.copy(Side::New)?;
            self.i1.advance();
            self.i2.advance();
            self.i3.advance();
        }
        Ok(same > 0)
    }

    /// Copies this number of keys and values, which are the same in all three states, if BTrees would write them
    /// unchanged.
    fn take_unchanged(&mut self, items: usize) -> Result<()> {
        if items > 0 {
            let (start, end) = (self.i3.start_of(self.i3.at), self.i3.start_of(self.i3.at + items));
            self.take_bytes(Side::New, start, end)?;
            self.count += items / self.i3.width;
            for cursor in [&mut self.i1, &mut self.i2, &mut self.i3] {
                cursor.advance_by(items);
            }
        }
        Ok(())
    }

    /// Copies the current item and advances.
    fn take(&mut self, side: Side) -> Result<()> {
        self.copy(side)?;
        match side {
            Side::Committed => self.i2.advance(),
            Side::New => self.i3.advance(),
        }
        Ok(())
    }

    /// Copies the current item.
    fn copy(&mut self, side: Side) -> Result<()> {
        self.count += 1;
        let cursor = match side {
            Side::Committed => &self.i2,
            Side::New => &self.i3,
        };
        let (start, end) = (cursor.start_of(cursor.at), cursor.start_of(cursor.at + cursor.width));
        let has_values = self.form.has_values();
        let usual = |item, value| self.plain || is_plain(item, value);
        if usual(self.family.key, cursor.key) && (!has_values || usual(self.family.value, cursor.value)) {
            return self.take_bytes(side, start, end);
        }
        let (key, value) = (cursor.key, cursor.value);
        let middle = cursor.start_of(cursor.at + 1);
        self.flush()?;
        self.write_item(side, self.family.key, key, start, middle)?;
        if has_values {
            self.write_item(side, self.family.value, value, middle, end)?;
        }
        Ok(())
    }

    /// Adds bytes to the run to be copied; a run that they do not continue is written first.
    fn take_bytes(&mut self, side: Side, start: u32, end: u32) -> Result<()> {
        match &mut self.pending {
            Some((pending, _, pending_end)) if *pending == side && *pending_end == start => {
                *pending_end = end;
            }
            _ => {
                self.flush()?;
                self.pending = Some((side, start, end));
            }
        }
        Ok(())
    }

    /// Writes a key or value as BTrees would.
    fn write_item(
        &mut self,
        side: Side,
        item: ItemType,
        value: NodeValue<'_, '_>,
        start: u32,
        end: u32,
    ) -> Result<()> {
        match (item, value.kind()) {
            (ItemType::Float, _) => put_float(single(value).into(), &mut self.emitter.out),
            (ItemType::Int { .. }, Kind::Bool(value)) => {
                put_int(Dialect::Python2, value.into(), &mut self.emitter.out);
            }
            _ => {
                self.pending = Some((side, start, end));
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes the pending run.
    fn flush(&mut self) -> Result<()> {
        let Some((side, start, end)) = self.pending.take() else { return Ok(()) };
        let [committed, new] = &mut self.sources;
        let source = match side {
            Side::Committed => committed,
            Side::New => new,
        };
        if self.alone {
            self.emitter.verbatim(source, start, end);
            return Ok(());
        }
        self.emitter.piece(source, start, end)
    }
}
