//! Protocol generations, codecs and dialects, and the table of what differs.
//!
//! [`TABLE`] has a row per generation; every difference is a method on [`Wire`] that reads the row. The server
//! asks `wire.sends_serialnos()`, never which generation it is. `docs/protocol.md` shows the same table with
//! reasons.

use std::fmt;

pub use crate::pickle::Dialect;

/// A protocol generation, oldest first. Msgpack is not a generation of its own: `M5` is [`Generation::Z5`]
/// with [`Codec::Msgpack`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Generation {
    Z200,
    Z201,
    Z303,
    Z308,
    Z309,
    Z310,
    Z3101,
    Z4,
    Z5,
}

/// How messages are encoded.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Codec {
    Pickle(Dialect),
    Msgpack,
}

/// The dialect of a peer, from its first message after the handshake. Python 2's cPickle writes protocol 1, which
/// has no PROTO opcode and says False as `I00`; Python 3, and zodbpickle in Python 2, begin with `\x80\x03`.
pub fn dialect_of_first_message(frame: &[u8]) -> Dialect {
    match frame {
        [0x80, protocol, ..] if *protocol >= 3 => Dialect::Python3,
        _ => Dialect::Python2,
    }
}

/// What one connection speaks. Two connections with the same `Wire` can be sent the same bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Wire {
    pub generation: Generation,
    pub codec: Codec,
}

/// How a client undoes a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UndoCall {
    /// `undo(trans_id, id)` is a call like any other and returns (tid, oids).
    Answered,
    /// `undoa(trans_id, id)` is buffered like a store; vote tells which objects it changed.
    Buffered,
}

/// What differs: one row of [`TABLE`].
struct Row {
    generation: Generation,
    name: &'static str,
    /// Arguments and results have a version beside each oid.
    versions: bool,
    /// `serialnos` before the reply to vote, and exceptions as pickled instances.
    serialnos: bool,
    register_returns_tid: bool,
    undo: UndoCall,
    /// Calls outside a fixed list, an exception in a call that wants no reply: the connection is closed.
    strict: bool,
    /// What `server_status` has.
    status_verifying_clients: bool,
    status_last_transaction: bool,
    no_blob_names_path: bool,
}

impl Row {
    const fn new(generation: Generation, name: &'static str) -> Row {
        use Generation::*;
        let g = generation as u8;
        Row {
            generation,
            name,
            versions: g < Z309 as u8,
            serialnos: g < Z5 as u8,
            register_returns_tid: g >= Z5 as u8,
            undo: if g < Z310 as u8 { UndoCall::Answered } else { UndoCall::Buffered },
            strict: g >= Z5 as u8,
            status_verifying_clients: g < Z5 as u8,
            status_last_transaction: g >= Z4 as u8,
            no_blob_names_path: g >= Z4 as u8,
        }
    }
}

/// The generations, oldest first.
const TABLE: [Row; 9] = [
    Row::new(Generation::Z200, "Z200"),
    Row::new(Generation::Z201, "Z201"),
    Row::new(Generation::Z303, "Z303"),
    Row::new(Generation::Z308, "Z308"),
    Row::new(Generation::Z309, "Z309"),
    Row::new(Generation::Z310, "Z310"),
    Row::new(Generation::Z3101, "Z3101"),
    Row::new(Generation::Z4, "Z4"),
    Row::new(Generation::Z5, "Z5"),
];

impl Generation {
    fn row(self) -> &'static Row {
        // The enum and the table have the same order; a test compares them.
        TABLE.get(self as usize).unwrap_or(&TABLE[8])
    }

    /// `Z308` … `Z5`, as in a handshake.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// From `Z308` … `Z5`.
    pub fn parse(name: &[u8]) -> Option<Generation> {
        TABLE.iter().find(|row| row.name.as_bytes() == name).map(|row| row.generation)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the server says first: the newest protocol that it wants to speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Announcement {
    pub generation: Generation,
    pub msgpack: bool,
}

impl Announcement {
    /// `Z5`, or `M5` with msgpack.
    pub fn new(msgpack: bool) -> Announcement {
        Announcement { generation: Generation::Z5, msgpack }
    }

    /// From the environment variable `ZEO_SERVER_PROTOCOL`: `Z4`, `Z308` as ZEO 4 and older write it, or `5`, `4`
    /// as ZEO 5 does. `None`: not a protocol.
    pub fn from_env(value: &str, msgpack: bool) -> Option<Announcement> {
        let value = value.trim();
        let generation = match value.as_bytes().first()? {
            b'Z' => Generation::parse(value.as_bytes())?,
            _ => Generation::parse(format!("Z{value}").as_bytes())?,
        };
        Some(Announcement { generation, msgpack: msgpack && generation == Generation::Z5 })
    }

    /// The bytes of the first frame, without the length.
    pub fn bytes(self) -> Vec<u8> {
        let mut name = self.generation.name().as_bytes().to_vec();
        if let (true, Some(first)) = (self.msgpack, name.first_mut()) {
            *first = b'M';
        }
        name
    }
}

/// A client's answer to the announcement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It speaks this from now on.
    Speaks { generation: Generation, msgpack: bool },
    /// A monitoring tool: it wants one frame of JSON and then the end of the connection.
    RuOk,
}

/// A handshake that no client that we know would send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadHandshake(pub Vec<u8>);

impl fmt::Display for BadHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad handshake '{}'", self.0.escape_ascii())
    }
}

impl std::error::Error for BadHandshake {}

/// Understand the first frame of a client. Old clients answer the smaller, byte by byte, of their own protocol and
/// the announced one; ZEO 5 and 6 put the first letter of the announcement before their own number. As
/// Python's servers do, the answer decides about msgpack, not the announcement.
pub fn negotiate(announced: Announcement, answer: &[u8]) -> Result<Answer, BadHandshake> {
    if answer == b"ruok" {
        return Ok(Answer::RuOk);
    }
    let (generation, msgpack) = match answer {
        b"M5" => (Some(Generation::Z5), true),
        _ => (Generation::parse(answer), false),
    };
    match generation {
        Some(generation) if generation <= announced.generation => Ok(Answer::Speaks { generation, msgpack }),
        _ => Err(BadHandshake(answer.iter().take(64).copied().collect())),
    }
}

impl Wire {
    /// The wire of a client that answered `generation`, from its first message after the handshake.
    pub fn of_first_message(generation: Generation, msgpack: bool, frame: &[u8]) -> Wire {
        let codec = if msgpack { Codec::Msgpack } else { Codec::Pickle(dialect_of_first_message(frame)) };
        Wire { generation, codec }
    }

    /// ZODB 3.8 and older: versions stand beside oids in arguments and results.
    pub fn knows_versions(self) -> bool {
        self.generation.row().versions
    }

    /// Serials are sent in `serialnos` before the reply to vote, which is then `None`; the tid must be known at vote.
    /// Errors of single stores travel in it too, and the transaction stays open until the client aborts it.
    pub fn sends_serialnos(self) -> bool {
        self.generation.row().serialnos
    }

    /// The reply to vote may be conflicts for the client to merge, instead of the oids that the server merged.
    pub fn can_resolve_conflicts(self) -> bool {
        !self.sends_serialnos()
    }

    /// `register` returns lastTransaction; earlier it returns `None`.
    pub fn register_returns_tid(self) -> bool {
        self.generation.row().register_returns_tid
    }

    /// The committing client gets `info` before the reply to its tpc_finish.
    pub fn finish_sends_info(self) -> bool {
        true
    }

    /// Exceptions travel as pickled instances; since Z5 as class name and arguments.
    pub fn pickles_exceptions(self) -> bool {
        self.generation.row().serialnos
    }

    /// Exceptions have their `message` in the state, for a slot that Python 2.5 gave them.
    pub fn exceptions_have_message(self) -> bool {
        self.generation.row().versions
    }

    /// The flag of calls to the client is `True`; earlier it is 1.
    pub fn async_flag_is_bool(self) -> bool {
        self.generation.row().strict
    }

    /// An exception in a call that wants no reply closes the connection; earlier it is only logged.
    pub fn async_error_closes(self) -> bool {
        self.generation.row().strict
    }

    /// How the client undoes.
    pub fn undo_call(self) -> UndoCall {
        self.generation.row().undo
    }

    /// `getAuthProtocol` and what follows from it exist.
    pub fn knows_authentication(self) -> bool {
        !self.generation.row().strict
    }

    /// `get_info` has `extensionMethods`, and these can be called.
    pub fn knows_extension_methods(self) -> bool {
        !self.generation.row().strict
    }

    /// `server_status` has `verifying_clients`.
    pub fn status_has_verifying_clients(self) -> bool {
        self.generation.row().status_verifying_clients
    }

    /// `server_status` has `last-transaction`.
    pub fn status_has_last_transaction(self) -> bool {
        self.generation.row().status_last_transaction
    }

    /// The error for a blob without a file is `No blob file at PATH`; earlier `No blob file`.
    pub fn no_blob_names_path(self) -> bool {
        self.generation.row().no_blob_names_path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_the_order_of_the_enum() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.generation as usize, i);
            assert_eq!(Generation::parse(row.name.as_bytes()), Some(row.generation));
        }
    }

    #[test]
    fn handshakes() {
        let z5 = Announcement::new(false);
        assert_eq!(z5.bytes(), b"Z5");
        assert_eq!(Announcement::new(true).bytes(), b"M5");
        let speaks = |generation, msgpack| Ok(Answer::Speaks { generation, msgpack });
        assert_eq!(negotiate(z5, b"Z308"), speaks(Generation::Z308, false));
        assert_eq!(negotiate(z5, b"Z5"), speaks(Generation::Z5, false));
        assert_eq!(negotiate(z5, b"M5"), speaks(Generation::Z5, true));
        assert_eq!(negotiate(z5, b"ruok"), Ok(Answer::RuOk));
        for bad in [&b"Z6"[..], b"", b"Z", b"M4", b"GET / HTTP/1.1\r\n", b"z5"] {
            assert!(negotiate(z5, bad).is_err(), "{bad:?}");
        }
        let z4 = Announcement::from_env("Z4", true).unwrap();
        assert_eq!(z4.bytes(), b"Z4");
        assert!(negotiate(z4, b"Z5").is_err());
        assert_eq!(Announcement::from_env("5", true).unwrap().bytes(), b"M5");
        assert_eq!(Announcement::from_env("4", false), Some(z4));
        assert_eq!(Announcement::from_env("7", false), None);
    }
}
