//! Writes a merged record from pieces of other records, copied as bytes.
//!
//! Only memo indexes are assigned anew. A shared value is written at its first use, even if it comes from a piece that
//! is not copied.

use super::refusal::Stop;
use super::shape::{DEPTH_MAX, NOWHERE, NodeId, Shape, What};
use crate::pickle::opcode::*;

/// The index of a value that has none.
const NOT_WRITTEN: u32 = u32::MAX;

/// A record that pieces are taken from.
pub struct Source<'s, 'a> {
    shape: &'s Shape<'a>,
    /// Index of the event at which the next piece probably begins.
    next_event: usize,
    /// Memo index of each written value, by node; empty until the first one.
    written: Vec<u32>,
}

impl<'s, 'a> Source<'s, 'a> {
    pub fn new(shape: &'s Shape<'a>) -> Source<'s, 'a> {
        Source { shape, next_event: 0, written: Vec::new() }
    }

    fn index_of(&self, node: NodeId) -> Option<u32> {
        self.written.get(node as usize).copied().filter(|index| *index != NOT_WRITTEN)
    }

    fn remember(&mut self, node: NodeId, index: u32) {
        if self.written.len() <= node as usize {
            self.written.resize(self.shape.node_count(), NOT_WRITTEN);
        }
        if let Some(entry) = self.written.get_mut(node as usize) {
            *entry = index;
        }
    }

    /// Forgets the assigned indexes: they are not valid any more.
    pub fn forget(&mut self) {
        self.written.clear();
    }
}

/// A record under construction.
pub struct Emitter {
    pub out: Vec<u8>,
    memo_next: u32,
    len_max: usize,
    /// Upper bound on the events that may still be examined for values written out of order.
    events_left: usize,
    pub protocol: u8,
}

impl Emitter {
    /// Starts a record with the beginning of `new`: its class and the head of the state.
    pub fn new(new: &mut Source<'_, '_>, protocol: u8, len: usize) -> Emitter {
        let shape = new.shape;
        let mut out = Vec::with_capacity(len / 2 + 64);
        out.extend_from_slice(shape.source.get(..shape.class_end).unwrap_or_default());
        if protocol > 1 {
            out.extend_from_slice(&[PROTO, protocol]);
        }
        let memo_next = u32::try_from(shape.class_memo().len()).unwrap_or(u32::MAX);
        for (index, node) in (0..).zip(shape.class_memo()) {
            // Values that the state does not refer to need no index.
            if *node != NOWHERE && shape.is_shared(*node) {
                new.remember(*node, index);
            }
        }
        let len_max = len.saturating_mul(2).saturating_add(1024);
        Emitter { out, memo_next, len_max, events_left: len_max, protocol }
    }

    pub fn opcode(&mut self, opcode: u8) {
        self.out.push(opcode);
    }

    /// Ends a tuple of one item; the item is written, after a MARK if the protocol needs one.
    pub fn end_single(&mut self) {
        self.out.push(if self.protocol > 1 { TUPLE1 } else { TUPLE });
    }

    /// Begins such a tuple.
    pub fn begin_single(&mut self) {
        if self.protocol <= 1 {
            self.out.push(MARK);
        }
    }

    /// Writes the bytes of a record unchanged. Allowed only if nothing in the merged record refers to an earlier value
    /// by its memo index: the indexes of two records may collide.
    pub fn verbatim(&mut self, source: &Source<'_, '_>, start: u32, end: u32) {
        self.out.extend_from_slice(source.shape.source.get(start as usize..end as usize).unwrap_or_default());
    }

    /// Writes the bytes of a record from `start` to `end`: one or more whole values.
    pub fn piece(&mut self, source: &mut Source<'_, '_>, start: u32, end: u32) -> Result<(), Stop> {
        let events = source.shape.events();
        let mut index = source.next_event;
        // Pieces come in order. Gaps are skipped event by event, so all pieces together are one pass.
        while events.get(index).is_some_and(|event| event.pos < start) {
            index += 1;
        }
        source.next_event = self.range(source, start, end, index, &[], 0)?;
        Ok(())
    }

    /// Writes a range of bytes. `first`: index of the first event that may be in it. `known`: values in it that are
    /// already written. Returns the index of the first event after the range.
    fn range(
        &mut self,
        source: &mut Source<'_, '_>,
        start: u32,
        end: u32,
        mut index: usize,
        mut known: &[Known],
        depth: u32,
    ) -> Result<usize, Stop> {
        let shape = source.shape;
        let mut from = start;
        while let Some(event) = shape.events().get(index).filter(|event| event.pos < end) {
            if let Some((first, rest)) = known.split_first()
                && first.start <= event.pos
            {
                known = rest;
                self.copy(shape, from, first.start)?;
                self.refer(first.index);
                from = first.end;
                while shape.events().get(index).is_some_and(|event| event.pos < from) {
                    index += 1;
                }
                continue;
            }
            self.copy(shape, from, event.pos)?;
            match event.what {
                What::Put => self.put(source, event.node),
                What::Get => self.get(source, event.node, depth)?,
                What::Drop => {}
            }
            from = event.pos + u32::from(event.len);
            index += 1;
        }
        self.copy(shape, from, end)?;
        Ok(index)
    }

    fn copy(&mut self, shape: &Shape<'_>, from: u32, to: u32) -> Result<(), Stop> {
        self.out.extend_from_slice(shape.source.get(from as usize..to as usize).unwrap_or_default());
        if self.out.len() > self.len_max {
            return Stop::unsure("values that share too much");
        }
        Ok(())
    }

    /// Adds the written value to the memo, if something refers to it.
    fn put(&mut self, source: &mut Source<'_, '_>, node: NodeId) {
        if !source.shape.is_shared(node) || source.index_of(node).is_some() {
            return;
        }
        let index = self.memo_next;
        self.memo_next += 1;
        source.remember(node, index);
        match u8::try_from(index) {
            Ok(index) => self.out.extend_from_slice(&[BINPUT, index]),
            Err(_) => {
                self.out.push(LONG_BINPUT);
                self.out.extend_from_slice(&index.to_le_bytes());
            }
        }
    }

    /// Writes a reference to a value, or the value if it is not written yet.
    fn get(&mut self, source: &mut Source<'_, '_>, node: NodeId, depth: u32) -> Result<(), Stop> {
        if let Some(index) = source.index_of(node) {
            self.refer(index);
            return Ok(());
        }
        if depth >= DEPTH_MAX {
            return Stop::unsure("values that are nested too deeply");
        }
        let place = source.shape.node(node);
        let first = source.shape.events().partition_point(|event| event.pos < place.start);
        let known = self.known(source, first, place.end)?;
        self.range(source, place.start, place.end, first, &known, depth + 1)?;
        self.put(source, node);
        Ok(())
    }

    /// The values in a range that are already written: the outermost ones, in order.
    fn known(&mut self, source: &Source<'_, '_>, first: usize, end: u32) -> Result<Vec<Known>, Stop> {
        let events = source.shape.events().get(first..).unwrap_or_default();
        let mut known: Vec<Known> = Vec::new();
        let mut seen = 0;
        for event in events.iter().take_while(|event| event.pos < end) {
            seen += 1;
            if event.what != What::Put {
                continue;
            }
            if let Some(index) = source.index_of(event.node) {
                let place = source.shape.node(event.node);
                // The memo opcode is inside a list, but after a string.
                let end = place.end.max(event.pos + u32::from(event.len));
                while known.last().is_some_and(|inner| inner.start >= place.start) {
                    known.pop();
                }
                if known.last().is_none_or(|outer| outer.end <= place.start) {
                    known.push(Known { start: place.start, end, index });
                }
            }
        }
        match self.events_left.checked_sub(seen) {
            Some(left) => self.events_left = left,
            None => return Stop::unsure("values that share too much"),
        }
        Ok(known)
    }

    fn refer(&mut self, index: u32) {
        match u8::try_from(index) {
            Ok(index) => self.out.extend_from_slice(&[BINGET, index]),
            Err(_) => {
                self.out.push(LONG_BINGET);
                self.out.extend_from_slice(&index.to_le_bytes());
            }
        }
    }
}

/// A value that was written out of order.
struct Known {
    start: u32,
    end: u32,
    index: u32,
}
