//! Integers of pickles: two's complement, and decimal digits.

/// Two's complement of any length, little endian, extended to `N` bytes. `None` if it is longer.
#[inline]
pub fn widened<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let fill = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; N];
    // A loop, because a copy of unknown length would be a call.
    wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    (bytes.len() <= N).then_some(wide)
}

/// The digits of a line, without surrounding white space and without the `L` of a `long`. `None` if it is no decimal
/// number.
pub fn digits(line: &[u8], is_long: bool) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let digits =
        if is_long { line.strip_suffix(b"L").or(line.strip_suffix(b"l")).unwrap_or(line) } else { line };
    let unsigned = digits.strip_prefix(b"-").or(digits.strip_prefix(b"+")).unwrap_or(digits);
    (!unsigned.is_empty() && unsigned.iter().all(u8::is_ascii_digit)).then_some(digits)
}

/// Upper bound on decimal digits of an integer: the conversion is quadratic.
const DIGITS_MAX: usize = 400;

/// Two's complement, little endian, of a decimal number with a sign or without.
pub fn two_complement(digits: &[u8]) -> Option<Vec<u8>> {
    let (negative, digits) = match digits {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits {
        let mut carry = u16::from(digit - b'0');
        for byte in &mut bytes {
            let [low, high] = (u16::from(*byte) * 10 + carry).to_le_bytes();
            *byte = low;
            carry = high.into();
        }
        bytes.extend(carry.to_le_bytes().first().filter(|byte| **byte > 0));
    }
    bytes.push(0);
    if negative {
        let mut carry = true;
        for byte in &mut bytes {
            (*byte, carry) = (!*byte).overflowing_add(carry.into());
        }
    }
    Some(bytes)
}
