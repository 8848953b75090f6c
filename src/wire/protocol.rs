//! Protocol generations, encodings and dialects, the table of what differs, and the handshake.
//!
//! [`TABLE`] has a row for each generation and a column for each difference; each method of [`Wire`] reads one column.
//! The server calls `wire.sends_serialnos()` and never compares generations. `docs/protocol.md` has the same table with
//! the reasons, and says how to add a generation; a test compares both.

use std::fmt;

pub use crate::pickle::Dialect;
use crate::pickle::opcode::PROTO;

/// A protocol generation, oldest first. Msgpack is not a generation of its own: `M5` is [`Generation::Z5`]
/// with [`Encoding::Msgpack`].
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
pub enum Encoding {
    Pickle(Dialect),
    Msgpack,
}

/// The generation and encoding of one connection. Two connections with the same `Wire` can be sent the same bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Wire {
    pub generation: Generation,
    pub encoding: Encoding,
}

/// How a client undoes a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UndoCall {
    /// `undo(trans_id, id)` is a call like any other and returns (tid, oids).
    Answered,
    /// `undoa(trans_id, id)` is buffered like a store; the reply to vote has the changed objects.
    Buffered,
}

/// The yes-or-no columns of [`TABLE`], from left to right.
#[derive(Clone, Copy)]
enum Column {
    Versions,
    ExceptionsHaveMessage,
    Serialnos,
    ConflictsInVote,
    PickledExceptions,
    Authentication,
    ExtensionMethods,
    RegisterReturnsTid,
    AsyncFlagIsBool,
    AsyncErrorCloses,
    StatusVerifyingClients,
    StatusLastTransaction,
    NoBlobNamesPath,
    CallFlagIsBool,
    LeavesLastTid,
}

const COLUMNS: usize = Column::LeavesLastTid as usize + 1;

/// One row of [`TABLE`].
struct Row {
    generation: Generation,
    /// Name in a handshake if messages are pickles.
    name: &'static str,
    /// Name in a handshake if messages are msgpack; `None` if the generation has no msgpack.
    msgpack_name: Option<&'static str>,
    undo: UndoCall,
    columns: [bool; COLUMNS],
}

/// Key of `get_info`, not in Python's servers: a name of the served storage, new at each start. Clients that find the
/// same name on two connections may use both for transactions at the same time; see `docs/protocol.md`.
pub const INSTANCE_KEY: &str = "runzeo_instance";

/// A method of this program's servers: from now on the connection gets no invalidations. For the further connections of
/// a client, of which one hears all.
pub const QUIET: &str = "runzeo_quiet";

/// A method of this program's servers: ends the pack that is running. Returns None if there is none; when the pack has
/// ended, True if it was cancelled, or False if it had gone too far, or failed by itself. With True as its argument it
/// ends nothing but what the same connection has called [`PLAN_PACK`] for.
pub const CANCEL_PACK: &str = "runzeo_cancel_pack";

/// A method of this program's servers, with the time of a pack as its argument: returns a dict with what that pack
/// would remove.
pub const PLAN_PACK: &str = "runzeo_pack_plan";

const Y: bool = true;
const N: bool = false;

/// The generations, oldest first, in the order of the enum.
#[rustfmt::skip]
const TABLE: [Row; 9] = {
    use Generation::*;
    use UndoCall::{Answered, Buffered};
    const fn row(
        generation: Generation, name: &'static str, msgpack_name: Option<&'static str>, undo: UndoCall, columns: [bool; COLUMNS],
    ) -> Row {
        Row { generation, name, msgpack_name, undo, columns }
    }
    [
        //                                            Versions
        //                                            |  ExceptionsHaveMessage
        //                                            |  |  Serialnos
        //                                            |  |  |  ConflictsInVote
        //                                            |  |  |  |  PickledExceptions
        //                                            |  |  |  |  |  Authentication
        //                                            |  |  |  |  |  |  ExtensionMethods
        //                                            |  |  |  |  |  |  |  RegisterReturnsTid
        //                                            |  |  |  |  |  |  |  |  AsyncFlagIsBool
        //                                            |  |  |  |  |  |  |  |  |  AsyncErrorCloses
        //                                            |  |  |  |  |  |  |  |  |  |  StatusVerifyingClients
        //                                            |  |  |  |  |  |  |  |  |  |  |  StatusLastTransaction
        //                                            |  |  |  |  |  |  |  |  |  |  |  |  NoBlobNamesPath
        //                                            |  |  |  |  |  |  |  |  |  |  |  |  |  CallFlagIsBool
        //                                            |  |  |  |  |  |  |  |  |  |  |  |  |  |  LeavesLastTid
        row(Z200,  "Z200",  None,       Answered,    [Y, Y, Y, N, Y, Y, Y, N, N, N, Y, N, N, N, N]),
        row(Z201,  "Z201",  None,       Answered,    [Y, Y, Y, N, Y, Y, Y, N, N, N, Y, N, N, N, N]),
        row(Z303,  "Z303",  None,       Answered,    [Y, Y, Y, N, Y, Y, Y, N, N, N, Y, N, N, N, N]),
        row(Z308,  "Z308",  None,       Answered,    [Y, Y, Y, N, Y, Y, Y, N, N, N, Y, N, N, N, N]),
        row(Z309,  "Z309",  None,       Answered,    [N, N, Y, N, Y, Y, Y, N, N, N, Y, N, N, N, Y]),
        row(Z310,  "Z310",  None,       Buffered,    [N, N, Y, N, Y, Y, Y, N, N, N, Y, N, N, Y, Y]),
        row(Z3101, "Z3101", None,       Buffered,    [N, N, Y, N, Y, Y, Y, N, N, N, Y, N, N, Y, Y]),
        row(Z4,    "Z4",    None,       Buffered,    [N, N, Y, N, Y, Y, Y, N, N, N, Y, Y, Y, Y, N]),
        row(Z5,    "Z5",    Some("M5"), Buffered,    [N, N, N, Y, N, N, N, Y, Y, Y, N, Y, Y, Y, N]),
    ]
};

/// The last row.
const NEWEST: &Row = {
    let [.., newest] = &TABLE;
    newest
};

impl Generation {
    pub const NEWEST: Generation = NEWEST.generation;

    fn row(self) -> &'static Row {
        // The enum and the table have the same order; a test compares them.
        TABLE.get(self as usize).unwrap_or(NEWEST)
    }

    /// `Z308` … `Z5`, the name in a handshake.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// From `Z308` … `Z5`.
    pub fn parse(name: &[u8]) -> Option<Generation> {
        TABLE.iter().find(|row| row.name.as_bytes() == name).map(|row| row.generation)
    }

    /// From `M5`.
    pub fn parse_msgpack(name: &[u8]) -> Option<Generation> {
        let is_it = |row: &&Row| row.msgpack_name.is_some_and(|msgpack| msgpack.as_bytes() == name);
        TABLE.iter().find(is_it).map(|row| row.generation)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The server's first message: the newest protocol that it offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Greeting {
    pub generation: Generation,
    pub msgpack: bool,
}

impl Greeting {
    /// Offers the newest generation: `Z5`, or `M5` with msgpack.
    pub fn new(msgpack: bool) -> Greeting {
        Greeting { generation: Generation::NEWEST, msgpack }
    }

    /// Parses the environment variable `ZEO_SERVER_PROTOCOL`: `Z4`, `Z308` in the form of ZEO 4 and older, or `5`, `4`
    /// in the form of ZEO 5. `None` if it is no protocol.
    pub fn from_env(value: &str, msgpack: bool) -> Option<Greeting> {
        let value = value.trim();
        let generation = match value.as_bytes().first()? {
            b'Z' => Generation::parse(value.as_bytes())?,
            _ => Generation::parse(format!("Z{value}").as_bytes())?,
        };
        Some(Greeting { generation, msgpack: msgpack && generation.row().msgpack_name.is_some() })
    }

    /// The bytes of the first frame, without the length.
    pub fn bytes(self) -> &'static [u8] {
        let row = self.generation.row();
        match row.msgpack_name {
            Some(name) if self.msgpack => name.as_bytes(),
            _ => row.name.as_bytes(),
        }
    }
}

/// A client's answer to the greeting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GreetingAnswer {
    /// The client speaks this protocol from now on.
    Speaks { generation: Generation, msgpack: bool },
    /// A monitoring tool: it expects one frame of JSON, then the end of the connection.
    RuOk,
}

/// A handshake that no known client sends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadHandshake(pub Vec<u8>);

impl fmt::Display for BadHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad handshake '{}'", self.0.escape_ascii())
    }
}

impl std::error::Error for BadHandshake {}

/// Parses a client's first frame. Old clients answer the smaller, byte by byte, of their own protocol and the greeting;
/// ZEO 5 and 6 put the first letter of the greeting before their own number. As in Python's servers, the answer decides
/// about msgpack, not the greeting.
pub fn negotiate(greeting: Greeting, answer: &[u8]) -> Result<GreetingAnswer, BadHandshake> {
    if answer == b"ruok" {
        return Ok(GreetingAnswer::RuOk);
    }
    let (generation, msgpack) = match Generation::parse_msgpack(answer) {
        Some(generation) => (Some(generation), true),
        None => (Generation::parse(answer), false),
    };
    match generation {
        Some(generation) if generation <= greeting.generation => {
            Ok(GreetingAnswer::Speaks { generation, msgpack })
        }
        _ => Err(BadHandshake(answer.iter().take(64).copied().collect())),
    }
}

/// The wire for a server's greeting, and the client's answer to it. `None` if it is no ZEO server.
pub fn wire_for(greeting: &[u8]) -> Option<(Wire, &'static [u8])> {
    // A later server speaks the newest generation here, too.
    let is_newer = |name: &str| {
        let name = name.as_bytes();
        greeting.len() == name.len() && greeting.first() == name.first() && greeting > name
    };
    let by_name = |name: fn(&'static Row) -> Option<&'static str>| {
        let is_it = |row: &&'static Row| name(row).is_some_and(|name| name.as_bytes() == greeting);
        let row =
            TABLE.iter().find(is_it).or_else(|| name(NEWEST).is_some_and(is_newer).then_some(NEWEST))?;
        Some((row.generation, name(row)?.as_bytes()))
    };
    if let Some((generation, answer)) = by_name(|row| row.msgpack_name) {
        return Some((Wire { generation, encoding: Encoding::Msgpack }, answer));
    }
    // Every server, on Python 2 and 3, reads protocol 1 and strings of Python 2.
    let (generation, answer) = by_name(|row| Some(row.name))?;
    Some((Wire { generation, encoding: Encoding::Pickle(Dialect::Python2) }, answer))
}

/// The dialect of a peer, from its first message after the handshake. Python 2's cPickle writes protocol 1, which has
/// no PROTO opcode and writes False as `I00`; Python 3, and zodbpickle in Python 2, begin with `\x80\x03`.
fn dialect_of_first_message(frame: &[u8]) -> Dialect {
    match frame {
        [PROTO, protocol, ..] if *protocol >= 3 => Dialect::Python3,
        _ => Dialect::Python2,
    }
}

impl Wire {
    /// The wire of a peer that has not sent its first message yet.
    pub const BEFORE_FIRST_MESSAGE: Wire =
        Wire { generation: Generation::NEWEST, encoding: Encoding::Pickle(Dialect::Python3) };

    /// The wire of a client that answered `generation`, from its first message after the handshake.
    pub fn of_first_message(generation: Generation, msgpack: bool, frame: &[u8]) -> Wire {
        let encoding =
            if msgpack { Encoding::Msgpack } else { Encoding::Pickle(dialect_of_first_message(frame)) };
        Wire { generation, encoding }
    }

    /// The wire of a server, from its first reply: a client does not know the dialect before.
    pub fn of_first_reply(self, frame: &[u8]) -> Wire {
        match self.encoding {
            Encoding::Pickle(_) => {
                Wire { encoding: Encoding::Pickle(dialect_of_first_message(frame)), ..self }
            }
            Encoding::Msgpack => self,
        }
    }

    fn has(self, column: Column) -> bool {
        self.generation.row().columns.get(column as usize).copied().unwrap_or_default()
    }

    /// ZODB 3.8 and older: arguments and results have versions beside oids.
    pub fn knows_versions(self) -> bool {
        self.has(Column::Versions)
    }

    /// Exceptions have a `message` in their state, for a slot of Python 2.5.
    pub fn exceptions_have_message(self) -> bool {
        self.has(Column::ExceptionsHaveMessage)
    }

    /// How the client undoes transactions.
    pub fn undo_call(self) -> UndoCall {
        self.generation.row().undo
    }

    /// Serials are sent in `serialnos` before the reply to vote, which is then `None`; the tid must be known
    /// at vote. Errors of single stores travel in it too, and the transaction stays open until the client
    /// aborts it.
    pub fn sends_serialnos(self) -> bool {
        self.has(Column::Serialnos)
    }

    /// The reply to vote may be conflicts for the client to resolve, instead of the oids that the server
    /// resolved.
    pub fn can_resolve_conflicts(self) -> bool {
        self.has(Column::ConflictsInVote)
    }

    /// Exceptions travel as pickled instances; since Z5 as class name and arguments.
    pub fn pickles_exceptions(self) -> bool {
        self.has(Column::PickledExceptions)
    }

    /// The server has `getAuthProtocol` and the calls that follow it.
    pub fn knows_authentication(self) -> bool {
        self.has(Column::Authentication)
    }

    /// `get_info` has `extensionMethods`, and these can be called.
    pub fn knows_extension_methods(self) -> bool {
        self.has(Column::ExtensionMethods)
    }

    /// `register` returns lastTransaction; earlier it returns `None`.
    pub fn register_returns_tid(self) -> bool {
        self.has(Column::RegisterReturnsTid)
    }

    /// The flag of calls to the client is `True`; earlier it is 1.
    pub fn async_flag_is_bool(self) -> bool {
        self.has(Column::AsyncFlagIsBool)
    }

    /// An exception in a call without a reply closes the connection; earlier it is only logged.
    pub fn async_error_closes(self) -> bool {
        self.has(Column::AsyncErrorCloses)
    }

    /// `server_status` has `verifying_clients`.
    pub fn status_has_verifying_clients(self) -> bool {
        self.has(Column::StatusVerifyingClients)
    }

    /// `server_status` has `last-transaction`.
    pub fn status_has_last_transaction(self) -> bool {
        self.has(Column::StatusLastTransaction)
    }

    /// The flag of calls with a reply is `False`; earlier it is 0.
    pub fn call_flag_is_bool(self) -> bool {
        self.has(Column::CallFlagIsBool)
    }

    /// A client that has verified each object of its cache still names the last transaction of before, until the next
    /// invalidation.
    pub fn leaves_last_tid(self) -> bool {
        self.has(Column::LeavesLastTid)
    }

    /// The error for a blob without a file is `No blob file at PATH`; earlier `No blob file`.
    pub fn no_blob_names_path(self) -> bool {
        self.has(Column::NoBlobNamesPath)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn table_has_the_order_of_the_enum() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.generation as usize, i);
            assert_eq!(Generation::parse(row.name.as_bytes()), Some(row.generation));
        }
    }

    /// A method of [`Wire`], and its result as the documentation words it.
    type Difference = (&'static str, fn(Wire) -> &'static str);

    macro_rules! differences {
        ($($method:ident),*) => {
            [$((stringify!($method), (|wire| if wire.$method() { "yes" } else { "" }) as fn(Wire) -> &'static str)),*]
        };
    }

    /// The table of differences in `docs/protocol.md` has a line for each method of [`Wire`], and in each column the
    /// method's result for the generations of that column.
    #[test]
    fn the_documented_table_is_the_one_in_force() {
        let read = |path: &str| {
            fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect("readable")
        };
        let mut differences: Vec<Difference> = differences![
            knows_versions,
            exceptions_have_message,
            sends_serialnos,
            can_resolve_conflicts,
            pickles_exceptions,
            knows_authentication,
            knows_extension_methods,
            register_returns_tid,
            async_flag_is_bool,
            async_error_closes,
            status_has_verifying_clients,
            status_has_last_transaction,
            no_blob_names_path,
            call_flag_is_bool,
            leaves_last_tid
        ]
        .to_vec();
        differences.push(("undo_call", |wire| match wire.undo_call() {
            UndoCall::Answered => "answered",
            UndoCall::Buffered => "buffered",
        }));

        let source = read("src/wire/protocol.rs");
        let methods: BTreeSet<&str> = source
            .lines()
            .skip_while(|line| *line != "impl Wire {")
            .take_while(|line| *line != "}")
            .filter_map(|line| line.strip_prefix("    pub fn ")?.split_once("(self)"))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(methods, differences.iter().map(|(name, _)| *name).collect(), "methods of Wire");

        let docs = read("docs/protocol.md");
        let (_, section) = docs.split_once("\n## What differs\n").expect("the section");
        let table: Vec<Vec<&str>> = section
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let [head, _, lines @ ..] = table.as_slice() else { panic!("no table") };
        let generations: Vec<Vec<Generation>> = head[1..]
            .iter()
            .map(|names| names.split(' ').filter_map(|name| Generation::parse(name.as_bytes())).collect())
            .collect();
        assert_eq!(generations.concat(), TABLE.iter().map(|row| row.generation).collect::<Vec<_>>());
        let mut documented = BTreeSet::new();
        for line in lines {
            let name = line[0].split('`').nth(1).expect("a method in backquotes");
            let Some((name, says)) = differences.iter().find(|(method, _)| *method == name) else {
                panic!("docs/protocol.md names {name}, which is no method of Wire");
            };
            documented.insert(*name);
            for (generations, cell) in generations.iter().zip(&line[1..]) {
                for &generation in generations {
                    let wire = Wire { generation, encoding: Encoding::Pickle(Dialect::Python3) };
                    assert_eq!(says(wire), *cell, "{name} of {generation}");
                }
            }
        }
        assert_eq!(documented, methods, "lines of the table");
    }

    #[test]
    fn a_client_answers_every_greeting() {
        for row in &TABLE {
            let (wire, answer) = wire_for(row.name.as_bytes()).unwrap();
            assert_eq!((wire.generation, answer), (row.generation, row.name.as_bytes()));
        }
        assert_eq!(wire_for(b"M5").unwrap().0.encoding, Encoding::Msgpack);
        assert_eq!((wire_for(b"Z7").unwrap().1, wire_for(b"M6").unwrap().1), (&b"Z5"[..], &b"M5"[..]));
        for foreign in [&b"HTTP/1.1"[..], b"", b"Z", b"M4", b"Z35", b"SSH-2.0"] {
            assert_eq!(wire_for(foreign), None);
        }
    }

    #[test]
    fn handshakes() {
        let z5 = Greeting::new(false);
        assert_eq!(z5.bytes(), b"Z5");
        assert_eq!(Greeting::new(true).bytes(), b"M5");
        let speaks = |generation, msgpack| Ok(GreetingAnswer::Speaks { generation, msgpack });
        assert_eq!(negotiate(z5, b"Z308"), speaks(Generation::Z308, false));
        assert_eq!(negotiate(z5, b"Z5"), speaks(Generation::Z5, false));
        assert_eq!(negotiate(z5, b"M5"), speaks(Generation::Z5, true));
        assert_eq!(negotiate(z5, b"ruok"), Ok(GreetingAnswer::RuOk));
        for bad in [&b"Z6"[..], b"", b"Z", b"M4", b"GET / HTTP/1.1\r\n", b"z5"] {
            assert!(negotiate(z5, bad).is_err(), "{bad:?}");
        }
        let z4 = Greeting::from_env("Z4", true).unwrap();
        assert_eq!(z4.bytes(), b"Z4");
        assert!(negotiate(z4, b"Z5").is_err());
        assert_eq!(Greeting::from_env("5", true).unwrap().bytes(), b"M5");
        assert_eq!(Greeting::from_env("4", false), Some(z4));
        assert_eq!(Greeting::from_env("7", false), None);
    }
}
