//! Just enough of msgpack to talk to a ZEO server as ZEO 5 and 6 do.

use super::pickle::Value;

pub fn dumps(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::None => out.push(0xc0),
        Value::Bool(v) => out.push(if *v { 0xc3 } else { 0xc2 }),
        Value::Int(v @ 0..=127) => out.push(*v as u8),
        Value::Int(v) => {
            out.push(0xd3);
            out.extend_from_slice(&v.to_be_bytes());
        }
        Value::Float(v) => {
            out.push(0xcb);
            out.extend_from_slice(&v.to_be_bytes());
        }
        Value::Bytes(v) => {
            match u8::try_from(v.len()) {
                Ok(len) => out.extend_from_slice(&[0xc4, len]),
                Err(_) => long_head(0xc6, v.len(), out),
            }
            out.extend_from_slice(v);
        }
        Value::Text(v) => {
            head(0xa0, 31, 0xdb, v.len(), out);
            out.extend_from_slice(v.as_bytes());
        }
        Value::Tuple(items) | Value::List(items) => {
            head(0x90, 15, 0xdd, items.len(), out);
            items.iter().for_each(|item| write(item, out));
        }
        Value::Dict(items) => {
            head(0x80, 15, 0xdf, items.len(), out);
            for (key, value) in items {
                write(key, out);
                write(value, out);
            }
        }
        Value::Global(_) | Value::Object(..) => panic!("msgpack has no objects"),
    }
}

/// As Python's library: up to `short_max` the length is part of the tag.
fn head(short: u8, short_max: usize, long: u8, len: usize, out: &mut Vec<u8>) {
    if len <= short_max {
        out.push(short | len as u8);
    } else {
        long_head(long, len, out);
    }
}

fn long_head(tag: u8, len: usize, out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(len as u32).to_be_bytes());
}

pub fn loads(data: &[u8]) -> Value {
    let mut rest = data;
    let value = read(&mut rest);
    assert!(rest.is_empty(), "nothing after the message");
    value
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

fn number(rest: &mut &[u8], len: usize) -> u64 {
    take(rest, len).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn read(rest: &mut &[u8]) -> Value {
    let tag = take(rest, 1)[0];
    match tag {
        0x00..=0x7f => Value::Int(tag.into()),
        0xe0..=0xff => Value::Int((tag as i8).into()),
        0x80..=0x8f => dict(rest, (tag & 15).into()),
        0x90..=0x9f => array(rest, (tag & 15).into()),
        0xa0..=0xbf => string(rest, (tag & 31).into()),
        0xc0 => Value::None,
        0xc2 => Value::Bool(false),
        0xc3 => Value::Bool(true),
        0xc4..=0xc6 => {
            let len = number(rest, 1 << (tag - 0xc4));
            Value::Bytes(take(rest, len as usize).to_vec())
        }
        0xcb => Value::Float(f64::from_bits(number(rest, 8))),
        0xcc..=0xcf => Value::Int(number(rest, 1 << (tag - 0xcc)) as i64),
        0xd0 => Value::Int((number(rest, 1) as i8).into()),
        0xd1 => Value::Int((number(rest, 2) as i16).into()),
        0xd2 => Value::Int((number(rest, 4) as i32).into()),
        0xd3 => Value::Int(number(rest, 8) as i64),
        0xd9..=0xdb => {
            let len = number(rest, 1 << (tag - 0xd9));
            string(rest, len)
        }
        0xdc | 0xdd => {
            let len = number(rest, 2 << (tag - 0xdc));
            array(rest, len)
        }
        0xde | 0xdf => {
            let len = number(rest, 2 << (tag - 0xde));
            dict(rest, len)
        }
        other => panic!("msgpack {other:#04x}"),
    }
}

fn string(rest: &mut &[u8], len: u64) -> Value {
    Value::Text(String::from_utf8(take(rest, len as usize).to_vec()).expect("UTF-8"))
}

fn array(rest: &mut &[u8], len: u64) -> Value {
    Value::Tuple((0..len).map(|_| read(rest)).collect())
}

fn dict(rest: &mut &[u8], len: u64) -> Value {
    Value::Dict((0..len).map(|_| (read(rest), read(rest))).collect())
}
