//! One state of a bucket or set, stand-alone or the only bucket of its tree: its items, and a cursor over them.

use super::class::{Family, Form, ItemType};
use super::compare::NodeValue;
use super::items::{self, is_single};
use super::refusal::{Reason, Stop};
use super::shape::{Kid, Kind, NodeId, Shape};

type Result<T> = std::result::Result<T, Stop>;

/// One state of a bucket.
pub struct Bucket<'s, 'a> {
    pub shape: &'s Shape<'a>,
    /// Keys and values alternating; in a set, only the keys.
    pub items: &'s [Kid],
    /// Offset in the record behind the last item.
    end: u32,
    /// The next bucket of the tree.
    pub next: Option<Kid>,
    /// Offset in the record behind the items and the next bucket.
    pub state_end: u32,
}

impl<'s, 'a> Bucket<'s, 'a> {
    /// The bucket of a record whose class has this form. A tree must have one bucket or none.
    pub fn open(form: Form, shape: &'s Shape<'a>) -> Result<Bucket<'s, 'a>> {
        let state = if form.is_tree() { bucket_of_tree(shape)? } else { Some(shape.state) };
        let state = match state {
            Some(state) if !matches!(shape.kind(state), Kind::None) => state,
            _ => return Ok(Bucket { shape, items: &[], end: 0, next: None, state_end: 0 }),
        };
        let (items, next) = match shape.tuple(state) {
            Some([items]) => (items, None),
            Some([items, next]) => (items, Some(*next)),
            _ => return Stop::error("not the state of a bucket"),
        };
        let Some(kids) = shape.tuple(items.node) else {
            return Stop::error("the items of a bucket are not a tuple");
        };
        if kids.len() % form.width() != 0 {
            return Stop::unsure("a key without a value");
        }
        // Both are tuples, whose last byte is the TUPLE opcode.
        let last = |id: NodeId| shape.node(id).end.saturating_sub(1);
        Ok(Bucket { shape, items: kids, end: last(items.node), next, state_end: last(state) })
    }

    /// Whether no item refers to another value of the record, so that the bytes of all items can be copied.
    pub fn stands_alone(&self) -> bool {
        self.items.first().is_some_and(|first| self.shape.stands_alone(first.start, self.end))
    }

    /// Whether no item is in the pickle's memo: numbers and the like, whose bytes are the same at any place.
    pub fn remembers_nothing(&self) -> bool {
        self.items.first().is_some_and(|first| !self.shape.has_events(first.start, self.end))
    }

    /// Checks that keys and values have the types of the family, as BTrees does when it loads the state. `items` starts
    /// at an even index. `true` if BTrees would also write them unchanged.
    pub fn check(&self, items: &[Kid], family: Family, form: Form, python2: bool) -> Result<bool> {
        let has_values = form.has_values();
        if family.key == ItemType::Object && (!has_values || family.value == ItemType::Object) {
            return Ok(true);
        }
        let is_usual = |item: ItemType, kid: &Kid| match (item, self.shape.kind(kid.node)) {
            (ItemType::Object, _) => true,
            (ItemType::Int { min, max }, Kind::Int(value)) => {
                min <= value && (value < 0 || value.unsigned_abs() <= max)
            }
            (ItemType::Float, Kind::Float(value)) => is_single(value),
            (ItemType::Bytes(len), Kind::Bytes(part)) => self.shape.bytes(part).len() == len,
            (ItemType::Bytes(len), Kind::Str(part)) => python2 && self.shape.bytes(part).len() == len,
            _ => false,
        };
        let value = |kid: &Kid| NodeValue::new(self.shape, kid.node);
        if !has_values {
            if items.iter().all(|key| is_usual(family.key, key)) {
                return Ok(true);
            }
            items.iter().try_for_each(|key| items::check(family.key, value(key)))?;
            return Ok(false);
        }
        let (pairs, _) = items.as_chunks::<2>();
        if pairs.iter().all(|[key, item]| is_usual(family.key, key) && is_usual(family.value, item)) {
            return Ok(true);
        }
        pairs.iter().try_for_each(|[key, item]| {
            items::check(family.key, value(key))?;
            items::check(family.value, value(item))
        })?;
        Ok(false)
    }
}

/// The state of the only bucket of a tree; `None` for an empty tree.
fn bucket_of_tree(shape: &Shape<'_>) -> Result<Option<NodeId>> {
    if matches!(shape.kind(shape.state), Kind::None) {
        return Ok(None);
    }
    match shape.tuple(shape.state) {
        Some([_, _]) => Stop::conflict(Reason::InnerNodeChanged),
        Some([children]) => match shape.tuple(children.node) {
            Some([bucket]) if shape.tuple(bucket.node).is_some() => Ok(Some(bucket.node)),
            _ => Stop::error("not the state of a tree with one bucket"),
        },
        _ => Stop::error("not the state of a tree"),
    }
}

/// How many keys and values lie completely in the bytes that all three records begin with.
pub fn common_items(buckets: &[Bucket<'_, '_>; 3], width: usize) -> usize {
    // If the items begin at the same offset, equal bytes are equal items. The last item does not count: it, or its memo
    // opcode, may extend beyond the common bytes.
    let [first, others @ ..] = buckets.each_ref().map(|bucket| bucket.items.first().map(|kid| kid.start));
    if others.iter().any(|other| *other != first) {
        return 0;
    }
    let begun = |bucket: &Bucket<'_, '_>| {
        bucket.items.partition_point(|kid| kid.start <= bucket.shape.common_end).saturating_sub(1)
    };
    let begun = buckets.iter().map(begun).min().unwrap_or(0);
    begun - begun % width
}

/// A cursor over the items of a bucket.
pub struct Cursor<'b, 's, 'a> {
    pub bucket: &'b Bucket<'s, 'a>,
    /// Keys and values of one item: 2, or 1 in a set.
    pub width: usize,
    /// The number of the current item, as BTrees counts: from 1, and -1 after the last.
    pub position: i32,
    /// Index of the current item's key in the bucket's `items`.
    pub at: usize,
    pub key: NodeValue<'s, 'a>,
    /// The value; in a set, the key again.
    pub value: NodeValue<'s, 'a>,
}

impl<'b, 's, 'a> Cursor<'b, 's, 'a> {
    pub fn new(bucket: &'b Bucket<'s, 'a>, width: usize) -> Cursor<'b, 's, 'a> {
        let nothing = NodeValue::new(bucket.shape, 0);
        let mut cursor = Cursor { bucket, width, position: 1, at: 0, key: nothing, value: nothing };
        cursor.load();
        cursor
    }

    /// Whether there is a current item.
    pub fn is_active(&self) -> bool {
        self.position >= 0
    }

    pub fn advance(&mut self) {
        self.position += 1;
        self.at += self.width;
        self.load();
    }

    /// Skips this number of keys and values.
    pub fn advance_by(&mut self, items: usize) {
        self.position += i32::try_from(items / self.width).unwrap_or(i32::MAX);
        self.at += items;
        self.load();
    }

    /// The bytes of the items from the current one on.
    pub fn rest(&self) -> &'a [u8] {
        self.bucket
            .shape
            .source
            .get(self.start_of(self.at) as usize..self.bucket.end as usize)
            .unwrap_or_default()
    }

    /// The keys and values from the current item on.
    pub fn items(&self) -> &'s [Kid] {
        self.bucket.items.get(self.at..).unwrap_or_default()
    }

    /// How many keys and values lie completely in the next `len` bytes, and how many bytes they take.
    pub fn items_within(&self, len: u32) -> (usize, u32) {
        let start = self.start_of(self.at);
        let rest = self.items();
        if self.bucket.end - start == len {
            return (rest.len(), len);
        }
        // The last of these may extend beyond.
        let begun = rest.partition_point(|kid| kid.start <= start + len).saturating_sub(1);
        let whole = begun - begun % self.width;
        (whole, self.start_of(self.at + whole) - start)
    }

    fn load(&mut self) {
        match self.bucket.items.get(self.at..self.at + self.width) {
            Some([key, rest @ ..]) => {
                self.key = NodeValue::new(self.bucket.shape, key.node);
                self.value =
                    rest.first().map_or(self.key, |value| NodeValue::new(self.bucket.shape, value.node));
            }
            _ => self.position = -1,
        }
    }

    /// Offset in the record of the key or value with this index in `items`; after the last one, the end of the items.
    pub fn start_of(&self, index: usize) -> u32 {
        self.bucket.items.get(index).map_or(self.bucket.end, |kid| kid.start)
    }
}
