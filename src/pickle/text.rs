//! Strings in pickles: the escapes of protocol 0, and valid text.

/// The part of a quoted string between its quotes.
pub fn unquoted(line: &[u8]) -> Option<&[u8]> {
    match line.trim_ascii() {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => Some(inner),
        _ => None,
    }
}

/// Resolves the escapes of Python 2's `repr` of a string: `each` gets every byte. `None`: an escape is malformed.
pub fn unescape_string(inner: &[u8], mut each: impl FnMut(u8)) -> Option<()> {
    let mut rest = inner.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            each(byte);
            continue;
        }
        match rest.next() {
            Some(b'\n') => {}
            Some(b'a') => each(7),
            Some(b'b') => each(8),
            Some(b'f') => each(12),
            Some(b'n') => each(b'\n'),
            Some(b'r') => each(b'\r'),
            Some(b't') => each(b'\t'),
            Some(b'v') => each(11),
            Some(b'x') => each(u8::try_from(hex(&[rest.next()?, rest.next()?])?).ok()?),
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    let Some(digit) = rest.next_if(|digit| (b'0'..=b'7').contains(digit)) else { break };
                    value = 8 * value + u32::from(digit - b'0');
                }
                // truncated as in C
                each((value & 0xff).to_le_bytes()[0]);
            }
            Some(quoted @ (b'\\' | b'\'' | b'"')) => each(quoted),
            // Before any other character the backslash stands for itself.
            Some(other) => {
                each(b'\\');
                each(other);
            }
            None => return None,
        }
    }
    Some(())
}

/// Resolves `raw-unicode-escape`: `each` gets every code point, surrogates included. Bytes outside escapes are Latin-1.
/// `None`: an escape is malformed.
pub fn unescape_text(line: &[u8], mut each: impl FnMut(u32)) -> Option<()> {
    let mut rest = line;
    loop {
        let (code, len) = match rest {
            [] => return Some(()),
            [b'\\', b'u', digits @ ..] => (hex(digits.get(..4)?)?, 6),
            [b'\\', b'U', digits @ ..] => (hex(digits.get(..8)?).filter(|code| *code <= 0x10_ffff)?, 10),
            // An escaped backslash begins no escape.
            [b'\\', b'\\', ..] => {
                each(u32::from(b'\\'));
                (u32::from(b'\\'), 2)
            }
            [byte, ..] => (u32::from(*byte), 1),
        };
        each(code);
        rest = rest.get(len..)?;
    }
}

/// Appends a code point as UTF-8. A surrogate, alone or as half of a pair from Python 2, is encoded as three bytes.
pub fn push_code(code: u32, out: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => {
            let [low, high, ..] = code.to_le_bytes();
            out.extend_from_slice(&[
                0xe0 | (high >> 4),
                0x80 | ((high & 0x0f) << 2) | (low >> 6),
                0x80 | (low & 0x3f),
            ]);
        }
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0u32, |value, digit| value.checked_mul(16)?.checked_add(char::from(*digit).to_digit(16)?))
}

/// Whether the bytes are UTF-8; lone surrogates are allowed, as in Python's pickle.
pub fn is_text(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        let Err(error) = str::from_utf8(rest) else { return true };
        let Some([0xed, 0xa0..=0xbf, 0x80..=0xbf, left @ ..]) = rest.get(error.valid_up_to()..) else {
            return false;
        };
        rest = left;
    }
}
