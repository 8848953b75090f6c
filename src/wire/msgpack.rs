//! Writes msgpack, the codec of M5 connections.

pub const NIL: u8 = 0xc0;
pub const FALSE: u8 = 0xc2;
pub const TRUE: u8 = 0xc3;
pub const BIN8: u8 = 0xc4;
pub const BIN16: u8 = 0xc5;
pub const BIN32: u8 = 0xc6;
pub const FLOAT32: u8 = 0xca;
pub const FLOAT64: u8 = 0xcb;
pub const UINT8: u8 = 0xcc;
pub const UINT16: u8 = 0xcd;
pub const UINT32: u8 = 0xce;
pub const UINT64: u8 = 0xcf;
pub const INT8: u8 = 0xd0;
pub const INT16: u8 = 0xd1;
pub const INT32: u8 = 0xd2;
pub const INT64: u8 = 0xd3;
pub const STR8: u8 = 0xd9;
pub const STR16: u8 = 0xda;
pub const STR32: u8 = 0xdb;
pub const ARRAY16: u8 = 0xdc;
pub const ARRAY32: u8 = 0xdd;
pub const MAP16: u8 = 0xde;
pub const MAP32: u8 = 0xdf;

pub fn put_int(value: i64, out: &mut Vec<u8>) {
    if let Ok(small) = i8::try_from(value)
        && small >= -32
    {
        out.extend_from_slice(&small.to_be_bytes());
    } else if let Ok(value) = u8::try_from(value) {
        out.extend_from_slice(&[UINT8, value]);
    } else if let Ok(value) = i8::try_from(value) {
        out.push(INT8);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u16::try_from(value) {
        out.push(UINT16);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        out.push(INT16);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(UINT32);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        out.push(INT32);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = u64::try_from(value) {
        out.push(UINT64);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(INT64);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub fn put_float(value: f64, out: &mut Vec<u8>) {
    out.push(FLOAT64);
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn put_bytes(value: &[u8], out: &mut Vec<u8>) {
    put_count(value.len(), [Some(BIN8), Some(BIN16), Some(BIN32)], out);
    out.extend_from_slice(value);
}

pub fn put_text(value: &str, out: &mut Vec<u8>) {
    match u8::try_from(value.len()) {
        Ok(len) if len < 32 => out.push(0xa0 | len),
        _ => put_count(value.len(), [Some(STR8), Some(STR16), Some(STR32)], out),
    }
    out.extend_from_slice(value.as_bytes());
}

pub fn begin_array(count: usize, out: &mut Vec<u8>) {
    match u8::try_from(count) {
        Ok(count) if count < 16 => out.push(0x90 | count),
        _ => put_count(count, [None, Some(ARRAY16), Some(ARRAY32)], out),
    }
}

pub fn begin_map(count: usize, out: &mut Vec<u8>) {
    match u8::try_from(count) {
        Ok(count) if count < 16 => out.push(0x80 | count),
        _ => put_count(count, [None, Some(MAP16), Some(MAP32)], out),
    }
}

/// A count in the shortest of the forms with 1, 2 and 4 bytes that exist.
fn put_count(count: usize, [one, two, four]: [Option<u8>; 3], out: &mut Vec<u8>) {
    if let (Some(format), Ok(count)) = (one, u8::try_from(count)) {
        out.extend_from_slice(&[format, count]);
    } else if let (Some(format), Ok(count)) = (two, u16::try_from(count)) {
        out.push(format);
        out.extend_from_slice(&count.to_be_bytes());
    } else if let Some(format) = four {
        // no value is longer than its frame, which is shorter than 2 GiB
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        out.push(format);
        out.extend_from_slice(&count.to_be_bytes());
    }
}
