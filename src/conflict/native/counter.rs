//! Classes whose state is a number.

use super::class::Counter;
use super::compare::{Comparer, NodeValue, integer};
use super::emit::{Emitter, Source};
use super::refusal::{Refusal, Stop};
use super::shape::{Kind, Shape};
use crate::pickle::opcode::{LONG, STOP};
use crate::pickle::write::{Dialect, put_big_int, put_int};

/// Merges three states; returns the merged record.
pub fn merge(counter: Counter, states: &[Shape<'_>; 3]) -> Result<Vec<u8>, Stop> {
    let [old, committed, new] = states.each_ref().map(|shape| NodeValue::new(shape, shape.state));
    let python2 = states.iter().all(|shape| shape.protocol < 3);
    let len = states.iter().map(|shape| shape.source.len()).sum();
    let protocol = committed.shape.protocol.max(new.shape.protocol);
    let mut comparer = Comparer::new(python2, len);
    let mut larger = |a, b, wanted| Ok::<_, Stop>(comparer.order(a, b, 0)? == wanted);
    use std::cmp::Ordering::{Greater, Less};
    let chosen = match counter {
        Counter::Sum => {
            let (Some(old), Some(committed), Some(new)) = (integer(old), integer(committed), integer(new))
            else {
                return Stop::unsure("a length that is no integer");
            };
            let sum = committed.checked_add(new).and_then(|sum| sum.checked_sub(old));
            let sum = sum.ok_or(Refusal::Error("a length beyond 128 bits"))?;
            return Ok(record(&states[2], protocol, python2, sum));
        }
        // Python's max and min prefer the first of equals.
        Counter::Maximum => {
            if larger(new, committed, Greater)? {
                new
            } else {
                committed
            }
        }
        Counter::Minimum => {
            if larger(new, committed, Less)? {
                new
            } else {
                committed
            }
        }
        Counter::Increaser => {
            let first = if larger(committed, old, Greater)? { committed } else { old };
            if larger(new, first, Greater)? { new } else { first }
        }
    };
    if !matches!(
        chosen.kind(),
        Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) | Kind::Text(_)
    ) {
        return Stop::unsure("a value that is no number");
    }
    let mut head = Source::new(&states[2]);
    let mut emitter = Emitter::new(&mut head, protocol, len);
    let place = chosen.shape.node(chosen.id);
    emitter.piece(&mut Source::new(chosen.shape), place.start, place.end)?;
    emitter.opcode(STOP);
    Ok(emitter.out)
}

fn record(new: &Shape<'_>, protocol: u8, python2: bool, value: i128) -> Vec<u8> {
    let mut out = Emitter::new(&mut Source::new(new), protocol, new.source.len()).out;
    match i64::try_from(value) {
        Ok(value) => put_int(if python2 { Dialect::Python2 } else { Dialect::Python3 }, value, &mut out),
        Err(_) if protocol < 2 => out.extend_from_slice(format!("{}{value}L\n", char::from(LONG)).as_bytes()),
        Err(_) => put_big_int(shortest(&value.to_le_bytes()), &mut out),
    }
    out.push(STOP);
    out
}

/// Two's complement without bytes that only repeat the sign.
fn shortest(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., top] = bytes
        && let [.., below] = rest
        && ((*top == 0 && below & 0x80 == 0) || (*top == 0xff && below & 0x80 != 0))
    {
        bytes = rest;
    }
    bytes
}
