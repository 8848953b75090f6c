//! The names of transactions in undoLog, which an undo gives back: the tid in base64.

use super::value::Value;
use crate::base::base64::DIGITS;
use crate::base::ids::Tid;

/// The name of a transaction in undoLog: its tid in base64.
pub fn undo_id(tid: Tid) -> [u8; 12] {
    // 64 bits and two of fill are 11 digits of 6 bits; then one `=`.
    let bits = u128::from(tid.0) << 2;
    let mut id = [b'='; 12];
    for (at, digit) in id.iter_mut().take(11).enumerate() {
        let value = usize::try_from(bits >> (60 - 6 * at) & 63).unwrap_or_default();
        *digit = DIGITS.get(value).copied().unwrap_or(b'=');
    }
    id
}

/// The tid that an undo's argument names. `None`: it is no such name.
pub fn tid_of(undo_id: &Value) -> Option<Tid> {
    decode_base64(undo_id.string()?).and_then(|bytes| Tid::from_slice(&bytes))
}

/// Decodes as Python does: bytes that are no digits are ignored. `None` if digits are missing.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut digits, mut pads) = (Vec::new(), 0usize, 0, 0);
    for &byte in text {
        if byte == b'=' {
            pads += 1;
            if digits >= 2 && digits + pads >= 4 {
                return Some(bytes);
            }
            continue;
        }
        let Some(digit) = DIGITS.iter().position(|&known| known == byte) else { continue };
        pads = 0;
        bits = (bits << 6 | digit) & 0xff_ffff;
        digits = (digits + 1) % 4;
        let whole = match digits {
            1 => continue,
            2 => bits >> 4,
            3 => bits >> 2,
            _ => bits,
        };
        bytes.push(u8::try_from(whole & 0xff).ok()?);
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
            assert_eq!(tid_of(&Value::bytes(id)), Some(Tid(tid)));
            assert_eq!(tid_of(&Value::text(format!("{id}\n"))), Some(Tid(tid)));
        }
        for wrong in [Value::bytes("AQIDBAUGBwg"), Value::bytes("AQIDBAUG"), Value::bytes(""), Value::None] {
            assert_eq!(tid_of(&wrong), None);
        }
    }
}
