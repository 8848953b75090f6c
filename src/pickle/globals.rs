//! Which classes and functions a message may name. None is imported or called: a name outside the list is refused, as
//! Python's server refuses it.

/// Names that a client's message may contain: ZopeUndo's prefix in the specification of undoInfo, and in a
/// transaction's extension the built-in containers that have no opcode before protocol 4. The prefix may be an instance
/// of a class that derives from `object`, which Python 2 makes with `copy_reg._reconstructor`. (ZEO 5 and 6 admit all
/// of `builtins` and `copy_reg`, including `eval`; no client needs that.)
pub fn in_message(module: &[u8], name: &[u8]) -> bool {
    match module {
        b"ZopeUndo.Prefix" => name == b"Prefix",
        b"zodbpickle" => name == b"binary",
        b"copy_reg" | b"copyreg" => name == b"_reconstructor",
        b"builtins" | b"__builtin__" => {
            matches!(name, b"dict" | b"set" | b"frozenset" | b"bytearray" | b"complex" | b"object")
        }
        _ => false,
    }
}
