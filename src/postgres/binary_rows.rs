//! The rows of a binary COPY.

use super::value::length;

/// The signature, no flags, and no extension of the header.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What follows the last row.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Rows for `copy ... from stdin (format binary)`. Each has a [`BinaryRows::begin`] and as many values as that says.
#[derive(Debug)]
pub struct BinaryRows {
    bytes: Vec<u8>,
}

impl Default for BinaryRows {
    fn default() -> BinaryRows {
        BinaryRows { bytes: HEADER.to_vec() }
    }
}

impl BinaryRows {
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER.len()
    }

    /// Bytes in memory.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Begins a row.
    pub fn begin(&mut self, columns: i16) {
        self.bytes.extend(columns.to_be_bytes());
    }

    pub fn null(&mut self) {
        self.bytes.extend((-1_i32).to_be_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.bytes(&[u8::from(value)]);
    }

    /// Returns the place of the value, for [`BinaryRows::replace_int8`].
    pub fn int8(&mut self, value: i64) -> usize {
        self.bytes(&value.to_be_bytes());
        self.bytes.len() - size_of::<i64>()
    }

    /// A text or a `bytea`, whose length the caller has bounded.
    pub fn bytes(&mut self, value: &[u8]) {
        self.bytes.extend(length(value.len()).to_be_bytes());
        self.bytes.extend(value);
    }

    /// Changes a value.
    pub fn replace_int8(&mut self, at: usize, value: i64) {
        self.bytes[at..at + size_of::<i64>()].copy_from_slice(&value.to_be_bytes());
    }

    /// What is sent.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.extend(TRAILER);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_form_that_the_server_reads() {
        let mut rows = BinaryRows::default();
        assert!(rows.is_empty());
        rows.begin(3);
        let at = rows.int8(7);
        rows.null();
        rows.bytes(b"ab");
        rows.replace_int8(at, 258);
        assert!(!rows.is_empty());
        let expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
            \0\x03\0\0\0\x08\0\0\0\0\0\0\x01\x02\xff\xff\xff\xff\0\0\0\x02ab\xff\xff";
        assert_eq!(rows.into_bytes(), expected);
    }
}
