//! Which methods the servers of each generation have, and which of them are called without waiting for a reply.
//!
//! A client asks before it calls: a server closes the connection, or only logs an error, for a method that it does not
//! have. `docs/protocol.md` has the same table; a test compares both. What a server of ours accepts is in
//! [`super::methods`].

use super::protocol::Wire;

/// How the servers of a generation take calls of a method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Taken {
    /// There is no such method.
    Never,
    /// The server replies.
    Answered,
    /// The server does not reply, not even with an error.
    OneWay,
}

const X: Taken = Taken::Never;
const C: Taken = Taken::Answered;
const O: Taken = Taken::OneWay;

/// Defines [`Method`] and the rows of [`TABLE`], in the same order.
macro_rules! methods {
    ($($variant:ident $name:literal $taken:tt)*) => {
        /// A method that clients call.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Method {
            $($variant,)*
        }

        /// Name, and how each generation takes it, oldest first.
        const TABLE: &[(&str, [Taken; 9])] = &[$(($name, $taken),)*];

        #[cfg(test)]
        pub(super) const ALL: &[Method] = &[$(Method::$variant,)*];
    };
}

#[rustfmt::skip]
methods! {
    //                                        Z200
    //                                        |  Z201
    //                                        |  |  Z303
    //                                        |  |  |  Z308
    //                                        |  |  |  |  Z309
    //                                        |  |  |  |  |  Z310
    //                                        |  |  |  |  |  |  Z3101
    //                                        |  |  |  |  |  |  |  Z4
    //                                        |  |  |  |  |  |  |  |  Z5
    GetAuthProtocol      "getAuthProtocol"    [C, C, C, C, C, C, C, C, X]
    Register             "register"           [C, C, C, C, C, C, C, C, C]
    GetInfo              "get_info"           [C, C, C, C, C, C, C, C, C]
    LastTransaction      "lastTransaction"    [C, C, C, C, C, C, C, C, C]
    Pack                 "pack"               [C, C, C, C, C, C, C, C, C]
    GetInvalidations     "getInvalidations"   [X, X, X, C, C, C, C, C, C]
    Verify               "verify"             [X, X, X, O, O, O, O, O, X]
    EndZeoVerify         "endZeoVerify"       [X, X, X, O, O, O, O, O, X]
    SetClientLabel       "set_client_label"   [X, X, X, X, X, O, O, O, O]
    Ping                 "ping"               [X, X, X, X, X, X, X, X, C]
    ServerStatus         "server_status"      [X, X, X, X, X, C, C, C, C]
    LoadEx               "loadEx"             [X, X, X, C, C, C, C, C, X]
    LoadBefore           "loadBefore"         [X, X, X, C, C, C, C, C, C]
    LoadSerial           "loadSerial"         [X, X, X, C, C, C, C, C, C]
    GetTid               "getTid"             [X, X, X, C, C, C, C, C, C]
    History              "history"            [X, X, X, C, C, C, C, C, C]
    RecordIternext       "record_iternext"    [X, X, X, C, C, C, C, C, C]
    NewOids              "new_oids"           [X, X, X, C, C, C, C, C, C]
    UndoLog              "undoLog"            [X, X, X, C, C, C, C, C, C]
    UndoInfo             "undoInfo"           [X, X, X, C, C, C, C, C, C]
    TpcBegin             "tpc_begin"          [X, X, X, C, C, O, O, O, O]
    Store                "storea"             [X, X, X, O, O, O, O, O, O]
    Restore              "restorea"           [X, X, X, X, O, O, O, O, O]
    DeleteObject         "deleteObject"       [X, X, X, X, O, O, O, O, O]
    CheckCurrentSerial "checkCurrentSerialInTransaction"
                                              [X, X, X, X, X, X, O, O, O]
    StoreBlobStart       "storeBlobStart"     [X, X, X, O, O, O, O, O, O]
    StoreBlobChunk       "storeBlobChunk"     [X, X, X, O, O, O, O, O, O]
    StoreBlobEnd         "storeBlobEnd"       [X, X, X, O, O, O, O, O, O]
    StoreBlobShared      "storeBlobShared"    [X, X, X, O, O, O, O, O, O]
    Undo                 "undo"               [X, X, X, C, C, X, X, X, X]
    Undoa                "undoa"              [X, X, X, X, X, O, O, O, O]
    Vote                 "vote"               [X, X, X, C, C, C, C, C, C]
    TpcFinish            "tpc_finish"         [X, X, X, C, C, C, C, C, C]
    TpcAbort             "tpc_abort"          [X, X, X, O, O, C, C, C, C]
    SendBlob             "sendBlob"           [X, X, X, C, C, C, C, C, C]
    IteratorStart        "iterator_start"     [X, X, X, X, C, C, C, C, C]
    IteratorNext         "iterator_next"      [X, X, X, X, C, C, C, C, C]
    IteratorRecordStart  "iterator_record_start"
                                              [X, X, X, X, C, C, C, C, C]
    IteratorRecordNext   "iterator_record_next"
                                              [X, X, X, X, C, C, C, C, C]
    IteratorGc           "iterator_gc"        [X, X, X, X, O, O, O, O, O]
}

impl Method {
    /// The name in a message.
    pub fn name(self) -> &'static str {
        TABLE.get(self as usize).map_or("", |(name, _)| *name)
    }

    fn taken(self, wire: Wire) -> Taken {
        // The enum and the table have the same order, the columns that of the generations.
        TABLE
            .get(self as usize)
            .and_then(|(_, taken)| taken.get(wire.generation as usize))
            .copied()
            .unwrap_or(Taken::Never)
    }
}

impl Wire {
    /// Whether the server has the method.
    pub fn knows(self, method: Method) -> bool {
        method.taken(self) != Taken::Never
    }

    /// Whether the server sends no reply to the method, not even an error.
    pub fn is_one_way(self, method: Method) -> bool {
        method.taken(self) == Taken::OneWay
    }
}
