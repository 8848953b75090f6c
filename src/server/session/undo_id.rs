//! The names of transactions in undoLog, which an undo gives back: the tid in base64.

use crate::base::ids::Tid;
use crate::exceptions;
use crate::storage::StorageError;
use crate::wire::exception::PyException;
use crate::wire::value::Value;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The name of a transaction in undoLog: its tid in base64.
pub fn undo_id(tid: Tid) -> [u8; 12] {
    // 64 bits and two of fill are 11 digits of 6 bits; then one `=`.
    let bits = u128::from(tid.0) << 2;
    let mut id = [b'='; 12];
    for (at, digit) in id.iter_mut().take(11).enumerate() {
        *digit = BASE64[(bits >> (60 - 6 * at)) as usize & 63];
    }
    id
}

/// The tid that an undo's argument names.
pub fn tid_of(undo_id: &Value) -> Result<Tid, PyException> {
    let bytes = undo_id.string().and_then(decode_base64);
    let tid = bytes.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok()).map(Tid::from_bytes);
    tid.ok_or_else(|| {
        let reason = "this is no transaction id: it must be an 'id' of undoLog, 8 bytes in base64";
        exceptions::of_storage_error(&StorageError::Undo { reason, oid: None })
    })
}

/// Decodes as Python does: bytes that are no digits are ignored. `None` if digits are missing.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut digits, mut pads) = (Vec::new(), 0u32, 0, 0);
    for &byte in text {
        if byte == b'=' {
            pads += 1;
            if digits >= 2 && digits + pads >= 4 {
                return Some(bytes);
            }
            continue;
        }
        let Some(digit) = BASE64.iter().position(|&known| known == byte) else { continue };
        pads = 0;
        bits = bits << 6 | digit as u32;
        digits = (digits + 1) % 4;
        match digits {
            1 => {}
            2 => bytes.push((bits >> 4) as u8),
            3 => bytes.push((bits >> 2) as u8),
            _ => bytes.push(bits as u8),
        }
    }
    (digits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_ids_are_base64_of_tids() {
        for (tid, id) in [
            (0x0102_0304_0506_0708, "AQIDBAUGBwg="),
            (0, "AAAAAAAAAAA="),
            (u64::MAX, "//////////8="),
            (0x03e8_9f4b_5c6d_7e8f, "A+ifS1xtfo8="),
        ] {
            assert_eq!(undo_id(Tid(tid)), id.as_bytes());
            assert_eq!(tid_of(&Value::bytes(id)), Ok(Tid(tid)));
            assert_eq!(tid_of(&Value::text(format!("{id}\n"))), Ok(Tid(tid)));
        }
        let name = |value: Value| tid_of(&value).unwrap_err().name;
        // Not a ValueError or an AssertionError without a word, which look like bugs of the server.
        for wrong in [Value::bytes("AQIDBAUGBwg"), Value::bytes("AQIDBAUG"), Value::bytes(""), Value::None] {
            assert_eq!(name(wrong), "UndoError");
        }
    }
}
