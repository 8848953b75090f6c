//! Records in hexadecimal, behind `.h`: the transformation of ZODB's own tests.

use std::borrow::Cow;
use std::io;

use super::Codec;

/// Writes records in hexadecimal.
pub struct Hex;

impl Codec for Hex {
    fn encode<'a>(&self, record: &'a [u8]) -> Cow<'a, [u8]> {
        let digit = |half: u8| char::from_digit(half.into(), 16).map_or(b'0', |digit| digit as u8);
        let digits = record.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        Cow::Owned(b".h".iter().copied().chain(digits).collect())
    }

    fn decode<'a>(&self, kept: &'a [u8], _: usize) -> io::Result<Cow<'a, [u8]>> {
        let digits = kept.strip_prefix(b".h").ok_or_else(|| io::Error::other("it does not begin with .h"))?;
        let half = |digit: &u8| char::from(*digit).to_digit(16).ok_or("it is not hexadecimal");
        let byte = |pair: &[u8]| match pair {
            [high, low] => Ok((half(high)? << 4 | half(low)?) as u8),
            _ => Err("it has an odd number of digits"),
        };
        let record: Result<Vec<u8>, &str> = digits.chunks(2).map(byte).collect();
        record.map(Cow::Owned).map_err(io::Error::other)
    }
}
