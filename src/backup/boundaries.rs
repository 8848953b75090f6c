//! Whether bytes are the magic and whole transactions of a `Data.fs`, checked while they pass by.
//!
//! Only headers and lengths are read, so it costs nothing beside a sum. Records are not looked at.

#![deny(clippy::cast_possible_truncation)]

use std::fmt;

use crate::base::ids::Tid;
use crate::storage::file::FileFormat;
use crate::storage::file::format::{MAGIC_LEN, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader};

/// Something that is no whole transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Misfit {
    /// Where the transaction begins.
    pub pos: u64,
    what: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}", self.pos, self.what)
    }
}

/// A tid that is not later than the one before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reduction {
    /// Where the transaction begins.
    pub pos: u64,
    /// Its tid.
    pub tid: Tid,
}

/// The next bytes.
#[derive(Clone, Copy)]
enum Expects {
    Magic,
    Header,
    /// Bytes of a transaction that are passed over.
    Body {
        left: u64,
    },
    Trailer,
}

/// The state of the check.
pub struct Boundaries {
    expects: Expects,
    /// Bytes of a magic, header or trailer that were seen.
    seen: Vec<u8>,
    pos: u64,
    /// Where the last thing ended that was whole.
    whole_end: u64,
    header_len: u64,
    last_tid: Tid,
    misfit: Option<Misfit>,
    reductions: Vec<Reduction>,
}

/// Number of reductions that are kept.
const REDUCTIONS_MAX: usize = 1000;

impl Boundaries {
    /// Begins with the magic of a file.
    pub fn of_file() -> Boundaries {
        Boundaries {
            expects: Expects::Magic,
            seen: Vec::with_capacity(TXN_HEADER_LEN),
            pos: 0,
            whole_end: 0,
            header_len: 0,
            last_tid: Tid::ZERO,
            misfit: None,
            reductions: Vec::new(),
        }
    }

    /// Begins with a transaction at `pos`.
    pub fn from(pos: u64) -> Boundaries {
        Boundaries { expects: Expects::Header, pos, whole_end: pos, ..Boundaries::of_file() }
    }

    /// The next bytes. After a misfit nothing is checked any more.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.misfit.is_none() {
            let wanted = match self.expects {
                Expects::Body { left } => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    self.pos += len as u64;
                    bytes = bytes.get(len..).unwrap_or_default();
                    self.expects = match left - len as u64 {
                        0 => Expects::Trailer,
                        left => Expects::Body { left },
                    };
                    continue;
                }
                Expects::Magic => MAGIC_LEN.try_into().unwrap_or(0),
                Expects::Header => TXN_HEADER_LEN,
                Expects::Trailer => TRAILER_LEN,
            };
            let len = (wanted - self.seen.len()).min(bytes.len());
            let (now, later) = bytes.split_at(len);
            self.seen.extend_from_slice(now);
            self.pos += len as u64;
            bytes = later;
            if self.seen.len() == wanted {
                self.complete();
                self.seen.clear();
            }
        }
    }

    /// A magic, header or trailer is complete.
    fn complete(&mut self) {
        match self.expects {
            Expects::Magic => {
                if self.seen.first_chunk().is_none_or(|magic| FileFormat::from_magic(*magic).is_none()) {
                    return self.misfits("it does not begin with the magic FS21 or FS30");
                }
                (self.whole_end, self.expects) = (self.pos, Expects::Header);
            }
            Expects::Header => {
                let Some(header) = self.seen.first_chunk().map(TxnHeader::decode) else { return };
                if header.len < header.head_len() {
                    return self.misfits("this is no header of a transaction");
                }
                if header.status == b'c' {
                    return self.misfits("the transaction was voted and not finished");
                }
                if header.tid <= self.last_tid && self.reductions.len() < REDUCTIONS_MAX {
                    self.reductions.push(Reduction { pos: self.whole_end, tid: header.tid });
                }
                self.last_tid = self.last_tid.max(header.tid);
                self.header_len = header.len;
                self.expects = match header.len - TXN_HEADER_LEN as u64 {
                    0 => Expects::Trailer,
                    left => Expects::Body { left },
                };
            }
            Expects::Trailer => {
                if self.seen.first_chunk().map(|trailer| u64::from_be_bytes(*trailer))
                    != Some(self.header_len)
                {
                    return self.misfits("the length behind the transaction is not the one in its header");
                }
                (self.whole_end, self.expects) = (self.pos, Expects::Header);
            }
            Expects::Body { .. } => {}
        }
    }

    fn misfits(&mut self, what: &str) {
        self.misfit = Some(Misfit { pos: self.whole_end, what: what.into() });
    }

    /// What does not fit, if the stream ends here.
    pub fn misfit(&self) -> Option<Misfit> {
        if self.misfit.is_some() || self.pos == self.whole_end && !matches!(self.expects, Expects::Magic) {
            return self.misfit.clone();
        }
        let what = match self.expects {
            Expects::Magic => "the magic is not complete".into(),
            _ => format!("it ends at {}, in the middle of a transaction", self.pos),
        };
        Some(Misfit { pos: self.whole_end, what })
    }

    /// Tids that do not ascend, with the positions of their transactions.
    pub fn reductions(&self) -> &[Reduction] {
        &self.reductions
    }

    /// The number of bytes so far, counted from the start of the file.
    pub fn pos(&self) -> u64 {
        self.pos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(tid: u64, body: &[u8]) -> Vec<u8> {
        let len = (TXN_HEADER_LEN + body.len()) as u64;
        let header =
            TxnHeader { tid: Tid(tid), len, status: b' ', user_len: 0, description_len: 0, extension_len: 0 };
        [&header.encode()[..], body, &len.to_be_bytes()].concat()
    }

    fn checked(bytes: &[u8], step: usize) -> Boundaries {
        let mut boundaries = Boundaries::of_file();
        bytes.chunks(step).for_each(|chunk| boundaries.feed(chunk));
        boundaries
    }

    #[test]
    fn whole_transactions_fit_however_they_are_cut() {
        let bytes = [b"FS30".to_vec(), transaction(1, b""), transaction(2, &[7; 100])].concat();
        for step in [1, 3, 8, 1000] {
            let boundaries = checked(&bytes, step);
            assert_eq!((boundaries.misfit(), boundaries.pos()), (None, bytes.len() as u64));
            assert_eq!(boundaries.reductions(), []);
            for len in 0..bytes.len() {
                let is_whole = [4, 35].contains(&len);
                assert_eq!(checked(&bytes[..len], step).misfit().is_none(), is_whole, "{len}");
            }
        }
    }

    proptest::proptest! {
        /// However bytes are changed and cut, the answer is the same, and there is one.
        #[test]
        fn any_bytes_have_an_answer(
            changes in proptest::collection::vec((0..200usize, proptest::num::u8::ANY), 0..6),
            len in 0..200usize,
            step in 1..50usize,
        ) {
            let mut bytes = [b"FS30".to_vec(), transaction(1, b""), transaction(2, &[7; 100])].concat();
            for (at, byte) in changes {
                if let Some(to) = bytes.get_mut(at) {
                    *to = byte;
                }
            }
            bytes.truncate(len.max(1));
            let (one, other) = (checked(&bytes, step), checked(&bytes, bytes.len()));
            assert_eq!(one.misfit(), other.misfit());
            assert_eq!(one.reductions(), other.reductions());
        }
    }

    #[test]
    fn what_is_no_transaction_is_named() {
        let whole = transaction(5, &[7; 30]);
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut bytes = [b"FS30".to_vec(), whole.clone(), whole.clone()].concat();
            change(&mut bytes);
            assert_eq!(checked(&bytes, 7).misfit().unwrap().to_string(), expected);
        };
        check(&|b| b[0] = 0, "at 0: it does not begin with the magic FS21 or FS30");
        check(&|b| b[19] = 3, "at 4: this is no header of a transaction");
        check(&|b| b[20] = b'c', "at 4: the transaction was voted and not finished");
        check(&|b| b[64] ^= 1, "at 4: the length behind the transaction is not the one in its header");
        check(&|b| b.truncate(120), "at 65: it ends at 120, in the middle of a transaction");
        let bytes = [b"FS21".to_vec(), whole.clone(), whole.clone()].concat();
        assert_eq!(checked(&bytes, 9).reductions(), [Reduction { pos: 65, tid: Tid(5) }]);
    }
}
