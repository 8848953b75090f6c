//! For which Python a record is written.

use super::value::PyValue;

/// Which Python a record is for, and the protocol of its pickles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Format {
    pub(super) is_python2: bool,
    pub(super) protocol: u8,
}

impl Format {
    /// Protocol 3, as ZODB 4 and later write it with Python 3.
    pub const PYTHON3: Format = Format { is_python2: false, protocol: 3 };
    /// Protocol 1, as ZODB 3 and 4 write it with Python 2.
    pub const PYTHON2: Format = Format { is_python2: true, protocol: 1 };

    /// Whether Python 2 has written the record. If it consists of values that both write alike, the protocol decides.
    pub fn is_python2(self) -> bool {
        self.is_python2
    }

    /// The protocol in which the record is written again: 1, 2 or 3.
    pub fn protocol(self) -> u8 {
        self.protocol
    }

    /// What Python calls `str`, as names of attributes are.
    pub fn native(self, text: &str) -> PyValue {
        if self.is_python2 { PyValue::str2(text.as_bytes()) } else { PyValue::text(text) }
    }
}
