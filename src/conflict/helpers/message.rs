//! The messages between the server and a helper process.
//!
//! A message is the length of its header (four bytes, big endian), the header, and then records or texts, whose lengths
//! are in the header. The header is a pickled dict of names, numbers and booleans. Here serde-pickle writes the headers
//! of requests and reads the headers of answers; `helper.py` uses Python's own `pickle` module. Records and texts are
//! never inside a pickle, so they are neither copied nor converted, and their lengths are known before they are read.
//!
//! | from | header | behind it |
//! |---|---|---|
//! | server | `oid`, `committed_serial`, `read`, and the lengths `old`, `committed`, `new` | the three records |
//! | helper | `kind`, `retire`, `level`, and the lengths `name`, `body` | a name, a text or record |
//!
//! An answer is untrusted: application code runs in the helper. serde-pickle copies a value for each reference to it,
//! and recurses as deeply as the pickle nests, so a few bytes could use up all memory or the stack. [`is_flat`] refuses
//! such a header before it is read.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};
use serde_pickle::{DeOptions, SerOptions};

use crate::conflict::ThreeStates;
use crate::pickle::lex::Lexer;
use crate::pickle::opcode::*;

/// Upper bound on the bytes of a helper's header. Real ones have about a hundred.
pub const HEADER_LEN_MAX: usize = 512;
/// Upper bound on the bytes of a helper's record or text.
pub const BODY_LEN_MAX: u64 = 1 << 30;

/// A request: merge three states.
#[derive(Serialize)]
struct MergeRequest {
    oid: u64,
    committed_serial: u64,
    read: u64,
    /// Lengths of the three records in bytes.
    old: u64,
    committed: u64,
    new: u64,
}

/// The header of an answer.
#[derive(Debug, Deserialize)]
pub struct HelperAnswer {
    pub kind: AnswerKind,
    /// The server should start another helper.
    pub retire: bool,
    /// Level of a log record, as Python numbers it.
    pub level: u8,
    /// Length of a logger's name in bytes.
    pub name: u64,
    /// Length of a record or text in bytes.
    pub body: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// The helper is ready; the text has the versions of Python and ZODB.
    Ready,
    /// The helper cannot work; the text says why.
    Failed,
    /// The text is to be logged, under the name.
    Log,
    /// The body is the merged record.
    Resolved,
    /// The states were not merged; the text says why.
    Unresolved,
}

/// The header of a request, with its length. The three records follow.
pub fn request(states: &ThreeStates<'_>) -> io::Result<Vec<u8>> {
    let request = MergeRequest {
        oid: states.oid.0,
        committed_serial: states.committed_serial.0,
        read: states.read.0,
        old: states.old.len() as u64,
        committed: states.committed.len() as u64,
        new: states.new.len() as u64,
    };
    // Protocol 2 is the newest that Python 2 reads.
    let options = SerOptions::new().proto_v2();
    let mut message = vec![0; 4];
    serde_pickle::to_writer(&mut message, &request, options).map_err(io::Error::other)?;
    let len = u32::try_from(message.len() - 4).map_err(io::Error::other)?;
    message[..4].copy_from_slice(&len.to_be_bytes());
    Ok(message)
}

/// Parses the header of an answer. `InvalidData` if it is none.
pub fn answer(header: &[u8]) -> io::Result<HelperAnswer> {
    if header.len() > HEADER_LEN_MAX || !is_flat(header) {
        return Err(ErrorKind::InvalidData.into());
    }
    // Python 2 pickles its `str` as bytes.
    let options = DeOptions::new().decode_strings();
    let answer: HelperAnswer =
        serde_pickle::from_slice(header, options).map_err(|_| ErrorKind::InvalidData)?;
    if answer.name.saturating_add(answer.body) > BODY_LEN_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(answer)
}

/// Whether a pickle consists of what `pickle.dumps(..., 2)` writes for one dict of short strings, numbers and booleans:
/// nothing that duplicates, refers to something, or nests.
fn is_flat(pickle: &[u8]) -> bool {
    let mut lexer = Lexer::new(pickle);
    let (mut dicts, mut marks) = (0, 0);
    while let Ok(token) = lexer.token() {
        match token.opcode {
            STOP => return lexer.rest().is_empty(),
            EMPTY_DICT => dicts += 1,
            MARK => marks += 1,
            PROTO | BINPUT | SETITEM | SETITEMS | NEWTRUE | NEWFALSE => {}
            BININT1 | BININT2 | BININT | LONG1 | SHORT_BINSTRING | BINUNICODE => {}
            _ => return false,
        }
        if dicts > 1 || marks > 1 {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pickle.dumps(dict(kind=..., retire=False, level=20, name=0, body=70000), 2)` of Python 3.11 and 2.7.
    const ANSWERS: [&[u8]; 2] = [
        b"\x80\x02}q\0(X\x04\0\0\0kindq\x01X\x08\0\0\0resolvedq\x02X\x06\0\0\0retireq\x03\x89X\x05\0\0\0levelq\x04K\x14\
          X\x04\0\0\0nameq\x05K\0X\x04\0\0\0bodyq\x06Jp\x11\x01\0u.",
        b"\x80\x02}q\x01(U\x04bodyq\x02Jp\x11\x01\0U\x04kindq\x03U\x08resolvedq\x04U\x05levelq\x05K\x14\
          U\x04nameq\x06K\0U\x06retireq\x07\x89u.",
    ];

    #[test]
    fn answers_of_both_pythons() {
        for header in ANSWERS {
            let answer = answer(header).unwrap();
            assert_eq!((answer.kind, answer.retire), (AnswerKind::Resolved, false));
            assert_eq!((answer.level, answer.name, answer.body), (20, 0, 70_000));
        }
    }

    #[test]
    fn answers_that_would_cost_more_than_their_length() {
        let doubled = [&b"\x80\x02]"[..], &b"2a".repeat(100), b"."].concat();
        let nested = [&b"\x80\x02)"[..], &b"\x85".repeat(400), b"."].concat();
        let long = [&b"\x80\x02}("[..], &b"X\x04\0\0\0kindK\0".repeat(100), b"u."].concat();
        let refers = b"\x80\x02}q\0(X\x04\0\0\0kindh\0u.".to_vec();
        let called = b"\x80\x02cposix\nsystem\nU\x02id\x85R.".to_vec();
        let huge = [
            &b"\x80\x02}(X\x04\0\0\0kindX\x03\0\0\0logX\x06\0\0\0retire\x89X\x05\0\0\0levelK\x14"[..],
            b"X\x04\0\0\0nameK\0X\x04\0\0\0body\x8a\x05\0\0\0\0\x01u.",
        ]
        .concat();
        for header in [doubled, nested, long, refers, called, huge, b"\x80\x02}".to_vec(), Vec::new()] {
            let error = answer(&header).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{}", header.escape_ascii());
        }
        for header in ANSWERS {
            for cut in 0..header.len() {
                assert!(answer(&header[..cut]).is_err());
            }
        }
    }
}
