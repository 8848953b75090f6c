//! Rows of an answer: one buffer for all, in which values are found when they are asked for.

use std::str;

use super::error::Malformed;

/// The rows of one execution.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The rows as they came, one behind the other.
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
    /// Rows that the statement returned or changed, as the server counts them.
    affected: u64,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The row with this number, from 0.
    pub fn get(&self, at: usize) -> Option<Row<'_>> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        Some(Row { body: self.bytes.get(start..end)? })
    }

    /// The first row.
    pub fn first(&self) -> Option<Row<'_>> {
        self.get(0)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        let row = |at| self.get(at).unwrap_or(Row { body: &[] });
        (0..self.len()).map(row)
    }

    /// Distributes the rows by the number in a column, from 1 to `count`.
    pub fn by_number(&self, column: usize, count: usize) -> Result<Vec<Rows>, Malformed> {
        let mut parts = vec![Rows::default(); count];
        for row in self.iter() {
            let at =
                usize::try_from(row.required_int8(column)?).ok().and_then(|number| number.checked_sub(1));
            let unknown = Malformed { column, why: "not one of the numbers" };
            let part = at.and_then(|at| parts.get_mut(at)).ok_or(unknown)?;
            part.push(row.body);
            part.affected += 1;
        }
        Ok(parts)
    }

    /// Number of rows that the statement returned, inserted, updated or deleted.
    pub fn affected(&self) -> u64 {
        self.affected
    }

    /// Adds the body of a row's message.
    pub(super) fn push(&mut self, body: &[u8]) {
        self.bytes.extend_from_slice(body);
        self.ends.push(self.bytes.len());
    }

    /// The tag of the command's end: `INSERT 0 5`, `SELECT 3`, `BEGIN`.
    pub(super) fn complete(&mut self, tag: &[u8]) {
        let last = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        self.affected = str::from_utf8(last).ok().and_then(|last| last.parse().ok()).unwrap_or(0);
    }
}

/// One row. Columns are numbered from 0. A value is `None` if it is null; an error if there is no such column, or if
/// the value is of another type.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The number of values, then for each its length (−1: null) and its bytes.
    body: &'a [u8],
}

impl<'a> Row<'a> {
    /// Checks that the values are as long as they claim.
    pub(super) fn parse(body: &'a [u8]) -> Option<Row<'a>> {
        let (count, mut rest) = body.split_first_chunk::<2>()?;
        for _ in 0..u16::from_be_bytes(*count) {
            (_, rest) = split_value(rest)?;
        }
        rest.is_empty().then_some(Row { body })
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.body.split_first_chunk().map_or(0, |(count, _)| u16::from_be_bytes(*count).into())
    }

    /// The value as it came.
    pub fn bytes(&self, column: usize) -> Result<Option<&'a [u8]>, Malformed> {
        let missing = Malformed { column, why: "there is no such column" };
        if column >= self.columns() {
            return Err(missing);
        }
        let mut rest = self.body.get(2..).unwrap_or_default();
        for _ in 0..column {
            (_, rest) = split_value(rest).ok_or_else(|| missing.clone())?;
        }
        split_value(rest).map(|(value, _)| value).ok_or(missing)
    }

    pub fn text(&self, column: usize) -> Result<Option<&'a str>, Malformed> {
        let text = |bytes| str::from_utf8(bytes).map_err(|_| Malformed { column, why: "not UTF-8" });
        self.bytes(column)?.map(text).transpose()
    }

    pub fn bool(&self, column: usize) -> Result<Option<bool>, Malformed> {
        match self.bytes(column)? {
            None => Ok(None),
            Some([0]) => Ok(Some(false)),
            Some([1]) => Ok(Some(true)),
            Some(_) => Err(Malformed { column, why: "not a boolean" }),
        }
    }

    /// A `bigint`, `integer` or `smallint`.
    pub fn int8(&self, column: usize) -> Result<Option<i64>, Malformed> {
        self.bytes(column)?.map(|bytes| int8(column, bytes)).transpose()
    }

    /// An `oid`.
    pub fn oid(&self, column: usize) -> Result<Option<u32>, Malformed> {
        let oid = |bytes: &[u8]| {
            let bytes = bytes.try_into().map_err(|_| Malformed { column, why: "not an oid" })?;
            Ok(u32::from_be_bytes(bytes))
        };
        self.bytes(column)?.map(oid).transpose()
    }

    pub fn float8(&self, column: usize) -> Result<Option<f64>, Malformed> {
        let float = |bytes: &[u8]| {
            let bytes = bytes.try_into().map_err(|_| Malformed { column, why: "not a double precision" })?;
            Ok(f64::from_be_bytes(bytes))
        };
        self.bytes(column)?.map(float).transpose()
    }

    /// The elements of an array of one dimension, as they came.
    pub fn elements(&self, column: usize) -> Result<Option<Vec<Option<&'a [u8]>>>, Malformed> {
        let parse = |bytes| elements(bytes).ok_or(Malformed { column, why: "not an array of one dimension" });
        self.bytes(column)?.map(parse).transpose()
    }

    /// An array of `bigint`, `integer` or `smallint` without nulls.
    pub fn int8s(&self, column: usize) -> Result<Option<Vec<i64>>, Malformed> {
        let null = Malformed { column, why: "an element of the array is null" };
        let one = |element: Option<&[u8]>| int8(column, element.ok_or_else(|| null.clone())?);
        self.elements(column)?.map(|elements| elements.into_iter().map(one).collect()).transpose()
    }

    /// As [`Row::int8`]; null is an error.
    pub fn required_int8(&self, column: usize) -> Result<i64, Malformed> {
        required(column, self.int8(column)?)
    }

    /// As [`Row::bytes`]; null is an error.
    pub fn required_bytes(&self, column: usize) -> Result<&'a [u8], Malformed> {
        required(column, self.bytes(column)?)
    }

    /// As [`Row::text`]; null is an error.
    pub fn required_text(&self, column: usize) -> Result<&'a str, Malformed> {
        required(column, self.text(column)?)
    }

    /// As [`Row::bool`]; null is an error.
    pub fn required_bool(&self, column: usize) -> Result<bool, Malformed> {
        required(column, self.bool(column)?)
    }
}

fn required<T>(column: usize, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or(Malformed { column, why: "is null" })
}

fn int8(column: usize, bytes: &[u8]) -> Result<i64, Malformed> {
    match *bytes {
        [a, b] => Ok(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Ok(i32::from_be_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Ok(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => Err(Malformed { column, why: "not an integer" }),
    }
}

/// The first value and what follows it.
fn split_value(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    match i32::from_be_bytes(*len) {
        -1 => Some((None, rest)),
        len => rest.split_at_checked(usize::try_from(len).ok()?).map(|(value, rest)| (Some(value), rest)),
    }
}

fn elements(bytes: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut reader = crate::base::bytes::Reader::new(bytes);
    let dimensions = reader.u32_be()?;
    let _has_nulls = reader.u32_be()?;
    let _element_type = reader.u32_be()?;
    if dimensions == 0 {
        return reader.is_empty().then(Vec::new);
    }
    let count = reader.u32_be()?;
    let _first_index = reader.u32_be()?;
    if dimensions != 1 {
        return None;
    }
    let mut rest = reader.rest();
    let mut found = Vec::new();
    for _ in 0..count {
        let element;
        (element, rest) = split_value(rest)?;
        found.push(element);
    }
    rest.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found() {
        let body = b"\0\x04\0\0\0\x08\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\0\0\0\x01\x01\0\0\0\x02hi";
        let mut rows = Rows::default();
        Row::parse(body).expect("well formed");
        rows.push(body);
        rows.complete(b"INSERT 0 12");
        assert_eq!((rows.len(), rows.affected()), (1, 12));
        let row = rows.first().expect("a row");
        assert_eq!(row.int8(0), Ok(Some(7)));
        assert_eq!(row.int8(1), Ok(None));
        assert_eq!(row.bool(2), Ok(Some(true)));
        assert_eq!(row.text(3), Ok(Some("hi")));
        assert!(row.bytes(4).is_err() && row.required_int8(1).is_err());
        // Two bytes are a smallint.
        assert_eq!(row.int8(3), Ok(Some(0x6869)));
    }

    #[test]
    fn rows_go_where_their_number_says() {
        let row = |number: u8, text: u8| [0, 2, 0, 0, 0, 1, text, 0, 0, 0, 2, 0, number];
        let mut rows = Rows::default();
        rows.push(&row(3, b'c'));
        rows.push(&row(1, b'a'));
        rows.push(&row(3, b'd'));
        let parts = rows.by_number(1, 3).expect("numbers");
        let texts = |part: &Rows| part.iter().map(|row| row.required_text(0).map(str::to_owned)).collect();
        let texts: Vec<Result<Vec<String>, Malformed>> = parts.iter().map(texts).collect();
        assert_eq!(texts, [Ok(vec!["a".into()]), Ok(vec![]), Ok(vec!["c".into(), "d".into()])]);
        for number in [0, 4] {
            let mut rows = Rows::default();
            rows.push(&row(number, b'a'));
            assert!(rows.by_number(1, 3).is_err(), "{number}");
        }
        assert!(rows.by_number(2, 3).is_err());
    }

    #[test]
    fn a_row_that_claims_too_much_is_refused() {
        for body in [
            b"".as_slice(),
            b"\0",
            b"\0\x01",
            b"\0\x01\0\0\0\x02a",
            b"\0\x01\xff\xff\xff\xfe",
            b"\0\0a",
            b"\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(Row::parse(body).is_none(), "{body:?}");
        }
        assert_eq!(Row::parse(b"\0\0").expect("no column").columns(), 0);
    }

    #[test]
    fn arrays_are_bounded_by_their_bytes() {
        assert_eq!(elements(b"\0\0\0\0\0\0\0\0\0\0\0\x14"), Some(vec![]));
        let huge = b"\0\0\0\x01\0\0\0\0\0\0\0\x14\xff\xff\xff\xff\0\0\0\x01\xff\xff\xff\xff";
        assert_eq!(elements(huge), None);
        let one = b"\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\x01\0\0\0\x01\0\0\0\x01a";
        assert_eq!(elements(one), Some(vec![Some(&b"a"[..])]));
    }
}
