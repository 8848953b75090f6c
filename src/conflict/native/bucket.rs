//! Buckets and sets, alone or as the only one of their tree: merged key by key.

use std::cmp::Ordering;
use std::iter::zip;

use super::class::{Family, Form, Item};
use super::compare::{Comparer, Value, integer};
use super::emit::{Emitter, Source};
use super::scan::common_len;
use super::shape::{Kid, Kind, NodeId, Shape};
use super::{Refusal, Stop};
use crate::pickle::opcode::*;
use crate::pickle::write::{Dialect, put_float, put_int};

type Result<T> = std::result::Result<T, Stop>;

/// One state of a bucket.
struct Bucket<'s, 'a> {
    shape: &'s Shape<'a>,
    items: &'s [Kid],
    /// Where the bytes of the items end
    end: u32,
    /// The next bucket of the tree
    next: Option<Kid>,
    /// Where the bytes of the state end
    state_end: u32,
}

/// Goes through the items of a bucket.
struct Cursor<'b, 's, 'a> {
    bucket: &'b Bucket<'s, 'a>,
    width: usize,
    /// Number of the current item, from 1; -1 behind the last: as BTrees tells it
    position: i32,
    /// Where the current item is among the bucket's
    at: usize,
    key: Value<'s, 'a>,
    /// The value; in a set the key once more
    value: Value<'s, 'a>,
}

impl<'b, 's, 'a> Cursor<'b, 's, 'a> {
    fn new(bucket: &'b Bucket<'s, 'a>, width: usize) -> Cursor<'b, 's, 'a> {
        let nothing = Value::new(bucket.shape, 0);
        let mut cursor = Cursor { bucket, width, position: 1, at: 0, key: nothing, value: nothing };
        cursor.load();
        cursor
    }

    fn is_active(&self) -> bool {
        self.position >= 0
    }

    fn advance(&mut self) {
        self.position += 1;
        self.at += self.width;
        self.load();
    }

    /// Pass over so many keys and values.
    fn advance_by(&mut self, items: usize) {
        self.position += i32::try_from(items / self.width).unwrap_or(i32::MAX);
        self.at += items;
        self.load();
    }

    /// The bytes of the items from the current one on
    fn rest(&self) -> &'a [u8] {
        self.bucket
            .shape
            .source
            .get(self.start_of(self.at) as usize..self.bucket.end as usize)
            .unwrap_or_default()
    }

    /// The items from the current one on
    fn items(&self) -> &'s [Kid] {
        self.bucket.items.get(self.at..).unwrap_or_default()
    }

    /// How many keys and values stand wholly in the next `len` bytes, and how many bytes they take.
    fn items_within(&self, len: u32) -> (usize, u32) {
        let start = self.start_of(self.at);
        let rest = self.bucket.items.get(self.at..).unwrap_or_default();
        if self.bucket.end - start == len {
            return (rest.len(), len);
        }
        // The last of these may reach beyond.
        let begun = rest.partition_point(|kid| kid.start <= start + len).saturating_sub(1);
        let whole = begun - begun % self.width;
        (whole, self.start_of(self.at + whole) - start)
    }

    fn load(&mut self) {
        match self.bucket.items.get(self.at..self.at + self.width) {
            Some([key, rest @ ..]) => {
                self.key = Value::new(self.bucket.shape, key.node);
                self.value = rest.first().map_or(self.key, |value| Value::new(self.bucket.shape, value.node));
            }
            _ => self.position = -1,
        }
    }

    fn start_of(&self, index: usize) -> u32 {
        self.bucket.items.get(index).map_or(self.bucket.end, |kid| kid.start)
    }
}

/// Merge three states; the merged record.
pub fn merge(family: Family, form: Form, states: &[Shape<'_>; 3]) -> Result<Vec<u8>> {
    let [old, committed, new] = states;
    let width = if form.has_values() { 2 } else { 1 };
    let open = |shape| -> Result<Bucket<'_, '_>> {
        let bucket = match form.is_tree() {
            true => bucket_state(shape)?,
            false => Some(shape.state),
        };
        Bucket::open(shape, bucket, width)
    };
    // The shape of all three trees is looked at before any bucket, and old before committed before new.
    let (old, committed, new) = (open(old)?, open(committed)?, open(new)?);
    let mut plain = true;
    let python2 = states.iter().all(|shape| shape.protocol < 3);
    let common = common_items([&old, &committed, &new], width);
    for (bucket, from) in [(&old, 0), (&committed, common), (&new, common)] {
        plain &=
            bucket.check(bucket.items.get(from..).unwrap_or_default(), family, form.has_values(), python2)?;
    }
    plain &= !states.iter().any(|shape| shape.has_nan);
    let len = states.iter().map(|shape| shape.source.len()).sum();
    let mut comparer = Comparer::new(python2, len);
    if !same_next(&mut comparer, &old, &committed)? || !same_next(&mut comparer, &old, &new)? {
        return conflict([-1; 3], 0);
    }
    if committed.items.is_empty() || new.items.is_empty() {
        return conflict([-1; 3], 12);
    }
    let mut sources = [Source::new(committed.shape), Source::new(new.shape)];
    let [_, head] = &mut sources;
    let protocol = committed.shape.protocol.max(new.shape.protocol);
    let emitter = Emitter::new(head, protocol, len);
    let alone = committed.stands_alone() && new.stands_alone();
    let mut merge = Merge {
        family,
        set: !form.has_values(),
        python2,
        comparer,
        i1: Cursor::new(&old, width),
        i2: Cursor::new(&committed, width),
        i3: Cursor::new(&new, width),
        sources,
        emitter,
        count: 0,
        pending: None,
        alone,
        plain,
        comparable: plain && [&old, &committed, &new].iter().all(|bucket| bucket.remembers_nothing()),
    };
    if form.is_tree() {
        merge.emitter.begin_single();
        merge.emitter.begin_single();
    }
    match new.next {
        Some(_) => merge.emitter.opcode(MARK),
        None => merge.emitter.begin_single(),
    }
    merge.emitter.opcode(MARK);
    if merge.plain {
        merge.take_unchanged(common)?;
    }
    merge.run()?;
    if merge.count == 0 {
        return conflict([-1; 3], 10);
    }
    merge.flush()?;
    let Merge { mut emitter, sources: [_, mut source], alone, .. } = merge;
    emitter.opcode(TUPLE);
    if alone {
        source.forget();
    }
    match new.next {
        Some(next) => {
            emitter.piece(&mut source, next.start, new.state_end)?;
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

fn conflict<T>(positions: [i32; 3], reason: u8) -> Result<T> {
    Err(Stop::Refused(Refusal::BTrees { positions, reason }))
}

/// The state of the only bucket of a tree, `None` for an empty tree.
fn bucket_state(shape: &Shape<'_>) -> Result<Option<NodeId>> {
    if matches!(shape.kind(shape.state), Kind::None) {
        return Ok(None);
    }
    match shape.tuple(shape.state) {
        Some([_, _]) => conflict([-1; 3], 11),
        Some([children]) => match shape.tuple(children.node) {
            Some([bucket]) if shape.tuple(bucket.node).is_some() => Ok(Some(bucket.node)),
            _ => Stop::error("the state is none of a tree with one bucket"),
        },
        _ => Stop::error("the state is none of a tree"),
    }
}

/// How many keys and values stand wholly in what all three records begin with.
fn common_items(buckets: [&Bucket<'_, '_>; 3], width: usize) -> usize {
    // From where the items begin, the same bytes are the same items, up to one that another follows. (The last may reach
    // beyond, or what it is remembered as.)
    let [first, others @ ..] = buckets.map(|bucket| bucket.items.first().map(|kid| kid.start));
    if others.iter().any(|other| *other != first) {
        return 0;
    }
    let begun = |bucket: &Bucket<'_, '_>| {
        bucket.items.partition_point(|kid| kid.start <= bucket.shape.common_end).saturating_sub(1)
    };
    let begun = buckets.into_iter().map(begun).min().unwrap_or(0);
    begun - begun % width
}

fn same_next(comparer: &mut Comparer, a: &Bucket<'_, '_>, b: &Bucket<'_, '_>) -> Result<bool> {
    match (a.next, b.next) {
        (None, None) => Ok(true),
        (Some(x), Some(y)) => {
            comparer.same_reference(Value::new(a.shape, x.node), Value::new(b.shape, y.node))
        }
        _ => Ok(false),
    }
}

impl<'s, 'a> Bucket<'s, 'a> {
    /// Do the items refer to nothing, so that their bytes can be taken as they are?
    fn stands_alone(&self) -> bool {
        self.items.first().is_some_and(|first| self.shape.stands_alone(first.start, self.end))
    }

    /// Are the items numbers and the like, which are the same bytes wherever they stand?
    fn remembers_nothing(&self) -> bool {
        self.items.first().is_some_and(|first| !self.shape.has_events(first.start, self.end))
    }

    fn open(shape: &'s Shape<'a>, state: Option<NodeId>, width: usize) -> Result<Bucket<'s, 'a>> {
        let state = match state {
            Some(state) if !matches!(shape.kind(state), Kind::None) => state,
            _ => return Ok(Bucket { shape, items: &[], end: 0, next: None, state_end: 0 }),
        };
        let (items, next) = match shape.tuple(state) {
            Some([items]) => (items, None),
            Some([items, next]) => (items, Some(*next)),
            _ => return Stop::error("the state is none of a bucket"),
        };
        let Some(kids) = shape.tuple(items.node) else {
            return Stop::error("the items of a bucket are no tuple");
        };
        if kids.len() % width != 0 {
            return Stop::unsure("a key without a value");
        }
        // Both are tuples, which end with one opcode.
        let last = |id: NodeId| shape.node(id).end.saturating_sub(1);
        Ok(Bucket { shape, items: kids, end: last(items.node), next, state_end: last(state) })
    }

    /// Are these keys and values what they are in this family? BTrees finds out when it loads the states. `true` if they also
    /// stand there as BTrees writes them.
    fn check(&self, items: &[Kid], family: Family, has_values: bool, python2: bool) -> Result<bool> {
        if family.key == Item::Object && (!has_values || family.value == Item::Object) {
            return Ok(true);
        }
        let is_usual = |item: Item, kid: &Kid| match (item, self.shape.kind(kid.node)) {
            (Item::Object, _) => true,
            (Item::Int { min, max }, Kind::Int(value)) => {
                min <= value && (value < 0 || value.unsigned_abs() <= max)
            }
            (Item::Float, Kind::Float(value)) => is_single(value),
            (Item::Bytes(len), Kind::Bytes(part)) => self.shape.bytes(part).len() == len,
            (Item::Bytes(len), Kind::Str(part)) => python2 && self.shape.bytes(part).len() == len,
            _ => false,
        };
        let value = |kid: &Kid| Value::new(self.shape, kid.node);
        if !has_values {
            if items.iter().all(|key| is_usual(family.key, key)) {
                return Ok(true);
            }
            items.iter().try_for_each(|key| check(family.key, value(key)))?;
            return Ok(false);
        }
        let (pairs, _) = items.as_chunks::<2>();
        if pairs.iter().all(|[key, item]| is_usual(family.key, key) && is_usual(family.value, item)) {
            return Ok(true);
        }
        pairs.iter().try_for_each(|[key, item]| {
            check(family.key, value(key))?;
            check(family.value, value(item))
        })?;
        Ok(false)
    }
}

fn check(item: Item, value: Value<'_, '_>) -> Result<()> {
    let fits = match (item, value.kind()) {
        (Item::Object, _) => true,
        (Item::Int { min, max }, Kind::Int(value)) => {
            value >= min && u64::try_from(value).is_ok_and(|value| value <= max) || (min..0).contains(&value)
        }
        (Item::Int { min, max }, _) => {
            integer(value).is_some_and(|value| i128::from(min) <= value && value <= i128::from(max))
        }
        (Item::Float, Kind::Float(_)) => true,
        (Item::Float, _) => integer(value).is_some_and(|value| i64::try_from(value).is_ok()),
        (Item::Bytes(len), Kind::Str(part) | Kind::Bytes(part)) => value.shape.bytes(part).len() == len,
        (Item::Bytes(_), _) => false,
    };
    match (fits, value.kind()) {
        (true, _) => Ok(()),
        (false, Kind::Object(_) | Kind::Odd(_)) => Stop::unsure("numbers of unknown classes"),
        (false, _) => Stop::error("a key or value of the wrong type, or out of range"),
    }
}

struct Merge<'b, 's, 'a> {
    family: Family,
    /// There are no values.
    set: bool,
    python2: bool,
    comparer: Comparer,
    /// old, committed, new
    i1: Cursor<'b, 's, 'a>,
    i2: Cursor<'b, 's, 'a>,
    i3: Cursor<'b, 's, 'a>,
    /// of committed and new
    sources: [Source<'s, 'a>; 2],
    emitter: Emitter,
    /// Items taken over
    count: usize,
    /// Bytes that are to be taken over, of items that stand beside each other
    pending: Option<(Side, u32, u32)>,
    /// No item refers to anything.
    alone: bool,
    /// All items stand there as BTrees writes them, and equal themselves.
    plain: bool,
    /// Items that are equal have the same bytes too: none is numbered in the memo.
    comparable: bool,
}

/// Whose item is taken over.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Side {
    Committed,
    New,
}

impl Merge<'_, '_, '_> {
    /// The rules of BTrees, in its order, with its reasons.
    fn run(&mut self) -> Result<()> {
        use Ordering::{Equal, Greater};
        while self.i1.is_active() && self.i2.is_active() && self.i3.is_active() {
            // Most items are as they were.
            if if self.comparable { self.take_same_bytes()? } else { self.take_same()? } {
                continue;
            }
            let order12 = self.order(self.i1.key, self.i2.key)?;
            let order13 = self.order(self.i1.key, self.i3.key)?;
            match (order12, order13) {
                (Equal, Equal) => {
                    let from = self.changed_value()?;
                    self.copy(from)?;
                    self.i1.advance();
                    self.i2.advance();
                    self.i3.advance();
                }
                (Equal, Greater) => self.take(Side::New)?,
                (Equal, _) => {
                    if !self.unchanged(self.i1.value, self.i2.value)? {
                        return self.conflict(2);
                    }
                    if self.i3.position == 1 {
                        return self.conflict(13);
                    }
                    self.i1.advance();
                    self.i2.advance();
                }
                (Greater, Equal) => self.take(Side::Committed)?,
                (_, Equal) => {
                    if !self.unchanged(self.i1.value, self.i3.value)? {
                        return self.conflict(3);
                    }
                    if self.i2.position == 1 {
                        return self.conflict(13);
                    }
                    self.i1.advance();
                    self.i3.advance();
                }
                _ => match (order12, order13, self.order(self.i2.key, self.i3.key)?) {
                    (_, _, Equal) => return self.conflict(4),
                    (Greater, _, Greater) => self.take(Side::New)?,
                    (Greater, _, _) => self.take(Side::Committed)?,
                    (_, Greater, _) => self.take(Side::New)?,
                    _ => return self.conflict(5),
                },
            }
        }
        while self.i2.is_active() && self.i3.is_active() {
            match self.order(self.i2.key, self.i3.key)? {
                Equal => return self.conflict(6),
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
                _ => return self.conflict(7),
            }
        }
        while self.i1.is_active() && self.i3.is_active() {
            match self.order(self.i1.key, self.i3.key)? {
                Greater => self.take(Side::New)?,
                Equal if self.unchanged(self.i1.value, self.i3.value)? => {
                    self.i1.advance();
                    self.i3.advance();
                }
                _ => return self.conflict(8),
            }
        }
        if self.i1.is_active() {
            return self.conflict(9);
        }
        while self.i2.is_active() {
            self.take(Side::Committed)?;
        }
        while self.i3.is_active() {
            self.take(Side::New)?;
        }
        Ok(())
    }

    /// Take over the items whose bytes are the same in all three. `false` if there are none.
    fn take_same_bytes(&mut self) -> Result<bool> {
        let (old, committed, new) = (self.i1.rest(), self.i2.rest(), self.i3.rest());
        // In this order: if these two have much in common that the old one has not, it is a conflict.
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

    /// Take over the items that are obviously the same in all three, one by one. `false` if there are none.
    fn take_same(&mut self) -> Result<bool> {
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

    /// Take over so many keys and values that are the same in all three, if all stand there as BTrees writes them.
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

    /// Take over bytes, as soon as it is known that those behind them are not.
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

    fn conflict<T>(&self, reason: u8) -> Result<T> {
        conflict([self.i1.position, self.i2.position, self.i3.position], reason)
    }

    /// All three have the key: whose value counts?
    fn changed_value(&mut self) -> Result<Side> {
        let (v1, v2, v3) = (self.i1.value, self.i2.value, self.i3.value);
        match self.unchanged(v1, v2) {
            Ok(true) => Ok(Side::New),
            Ok(false) => match self.unchanged(v1, v3)? {
                true => Ok(Side::Committed),
                false => self.conflict(1),
            },
            // Equal or not, committed has what counts if new has changed nothing.
            Err(Stop::Unsure(why)) => match self.unchanged(v1, v3) {
                Ok(true) => Ok(Side::Committed),
                Ok(false) | Err(Stop::Unsure(_)) => Err(Stop::Unsure(why)),
                Err(refused) => Err(refused),
            },
            Err(refused) => Err(refused),
        }
    }

    fn order(&mut self, a: Value<'_, '_>, b: Value<'_, '_>) -> Result<Ordering> {
        match self.family.key {
            Item::Object => self.comparer.keys(a, b),
            Item::Bytes(_) => self.fixed(a, b).map(|(a, b)| a.cmp(b)),
            _ => Ok(match (a.kind(), b.kind()) {
                (Kind::Int(a), Kind::Int(b)) => a.cmp(&b),
                _ => integer(a).cmp(&integer(b)),
            }),
        }
    }

    fn unchanged(&mut self, a: Value<'_, '_>, b: Value<'_, '_>) -> Result<bool> {
        if self.set {
            return Ok(true);
        }
        match self.family.value {
            Item::Object => self.comparer.values(a, b),
            Item::Bytes(_) => self.fixed(a, b).map(|(a, b)| a == b),
            Item::Float => {
                let (a, b) = (single(a), single(b));
                // A NaN equals everything there.
                Ok(!matches!(a.partial_cmp(&b), Some(Ordering::Less | Ordering::Greater)))
            }
            Item::Int { .. } => Ok(match (a.kind(), b.kind()) {
                (Kind::Int(a), Kind::Int(b)) => a == b,
                _ => integer(a) == integer(b),
            }),
        }
    }

    /// Byte strings of fixed length. An ASCII `str` of Python 2 is text in Python 3, and no key of these.
    fn fixed<'a>(&self, a: Value<'_, 'a>, b: Value<'_, 'a>) -> Result<(&'a [u8], &'a [u8])> {
        let part = |value: Value<'_, 'a>| match value.kind() {
            Kind::Bytes(part) => Some(value.shape.bytes(part)),
            Kind::Str(part) => {
                Some(value.shape.bytes(part)).filter(|bytes| self.python2 || !bytes.is_ascii())
            }
            _ => None,
        };
        match (part(a), part(b)) {
            (Some(a), Some(b)) => Ok((a, b)),
            _ => Stop::unsure("strings of different types"),
        }
    }

    /// Take over the current item and go to the next.
    fn take(&mut self, from: Side) -> Result<()> {
        self.copy(from)?;
        match from {
            Side::Committed => self.i2.advance(),
            Side::New => self.i3.advance(),
        }
        Ok(())
    }

    /// Take over the current item.
    fn copy(&mut self, side: Side) -> Result<()> {
        self.count += 1;
        let cursor = match side {
            Side::Committed => &self.i2,
            Side::New => &self.i3,
        };
        let (start, end) = (cursor.start_of(cursor.at), cursor.start_of(cursor.at + cursor.width));
        let usual = |item, value| self.plain || is_plain(item, value);
        if usual(self.family.key, cursor.key) && (self.set || usual(self.family.value, cursor.value)) {
            return self.take_bytes(side, start, end);
        }
        let (key, value) = (cursor.key, cursor.value);
        let middle = cursor.start_of(cursor.at + 1);
        self.flush()?;
        self.write_item(side, self.family.key, key, start, middle)?;
        if !self.set {
            self.write_item(side, self.family.value, value, middle, end)?;
        }
        Ok(())
    }

    fn write_item(
        &mut self,
        side: Side,
        item: Item,
        value: Value<'_, '_>,
        start: u32,
        end: u32,
    ) -> Result<()> {
        match (item, value.kind()) {
            (Item::Float, _) => put_float(single(value).into(), &mut self.emitter.out),
            (Item::Int { .. }, Kind::Bool(value)) => {
                put_int(Dialect::Python2, value.into(), &mut self.emitter.out);
            }
            _ => {
                self.pending = Some((side, start, end));
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Write what is to be taken over.
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

/// Does a key or value stand there as BTrees would write it? BTrees holds numbers as numbers of C, so `True` is 1 and a
/// float has 32 bits.
fn is_plain(item: Item, value: Value<'_, '_>) -> bool {
    match (item, value.kind()) {
        (Item::Int { .. }, Kind::Bool(_)) => false,
        (Item::Float, Kind::Float(float)) => is_single(float),
        (Item::Float, _) => false,
        _ => true,
    }
}

/// Is this a float of 32 bits?
#[allow(clippy::cast_possible_truncation)]
fn is_single(value: f64) -> bool {
    f64::from(value as f32).to_bits() == value.to_bits()
}

/// A float as BTrees has it: 32 bits.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn single(value: Value<'_, '_>) -> f32 {
    match value.kind() {
        Kind::Float(value) => value as f32,
        _ => integer(value).map_or(f32::NAN, |value| value as f32),
    }
}
