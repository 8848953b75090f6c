//! Protocol generations, codecs and dialects, and the table of what differs.

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

/// What a pickle peer can read: learned from its first message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Dialect {
    /// Python 2 with cPickle (all before Z5): protocol 1, byte strings and texts are both `str`
    Python2,
    /// Python 3, and Python 2 with zodbpickle (Z5): protocol 3, `bytes` and text
    Python3,
}

/// What one connection speaks. Two connections with the same `Wire` can be sent the same bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Wire {
    pub generation: Generation,
    pub codec: Codec,
}
