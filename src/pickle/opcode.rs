//! The opcodes of pickle protocols 0 to 5, named as in Python's `pickletools`, and the form of each argument.

/// The argument behind an opcode: its type, and how it is written. Numbers are little endian unless the form
/// says otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    Nothing,
    /// An unsigned integer of one byte
    Int1,
    /// An unsigned integer of two bytes
    Int2,
    /// A signed integer of four bytes
    Int4,
    /// Decimal digits and a line feed; `00` and `01` are booleans
    IntLine,
    /// Decimal digits, perhaps an `L`, and a line feed
    LongLine,
    /// A length of one byte, and an integer in two's complement
    Long1,
    /// A signed length of four bytes, and an integer in two's complement
    Long4,
    /// A float as text and a line feed
    FloatLine,
    /// A float of eight bytes, big endian
    Float8,
    /// A string of Python 2, after a length of one byte
    Str1,
    /// A string of Python 2, after a signed length of four bytes
    Str4,
    /// Bytes after a length of one byte
    Bytes1,
    /// Bytes after an unsigned length of four bytes
    Bytes4,
    /// Bytes after a length of eight bytes
    Bytes8,
    /// A bytearray after a length of eight bytes
    ByteArray8,
    /// UTF-8 after a length of one byte
    Text1,
    /// UTF-8 after an unsigned length of four bytes
    Text4,
    /// UTF-8 after a length of eight bytes
    Text8,
    /// Text up to a line feed
    Line,
    /// Two lines: the module and the name of a class
    Names,
    /// An index of the memo, of one byte
    Index1,
    /// An index of the memo, of four bytes
    Index4,
    /// An index of the memo in decimal digits, and a line feed
    IndexLine,
    /// A code of the extension registry, of one byte
    Code1,
    /// A code of the extension registry, of two bytes
    Code2,
    /// A code of the extension registry, of four bytes
    Code4,
    /// The number of the protocol
    Protocol,
    /// A length of eight bytes
    Length8,
}

/// Defines a constant for each opcode, and [`FORMS`].
macro_rules! opcodes {
    ($($name:ident = $code:literal, $form:ident;)*) => {
        $(pub const $name: u8 = $code;)*

        /// The form of the argument, by opcode. `None`: there is no such opcode.
        #[allow(clippy::indexing_slicing)] // the compiler looks
        pub static FORMS: [Option<Form>; 256] = {
            let mut forms = [None; 256];
            $(forms[$name as usize] = Some(Form::$form);)*
            forms
        };
    };
}

opcodes! {
    MARK = b'(', Nothing;
    STOP = b'.', Nothing;
    POP = b'0', Nothing;
    POP_MARK = b'1', Nothing;
    DUP = b'2', Nothing;
    FLOAT = b'F', FloatLine;
    INT = b'I', IntLine;
    BININT = b'J', Int4;
    BININT1 = b'K', Int1;
    LONG = b'L', LongLine;
    BININT2 = b'M', Int2;
    NONE = b'N', Nothing;
    PERSID = b'P', Line;
    BINPERSID = b'Q', Nothing;
    REDUCE = b'R', Nothing;
    STRING = b'S', Line;
    BINSTRING = b'T', Str4;
    SHORT_BINSTRING = b'U', Str1;
    UNICODE = b'V', Line;
    BINUNICODE = b'X', Text4;
    APPEND = b'a', Nothing;
    BUILD = b'b', Nothing;
    GLOBAL = b'c', Names;
    DICT = b'd', Nothing;
    EMPTY_DICT = b'}', Nothing;
    APPENDS = b'e', Nothing;
    GET = b'g', IndexLine;
    BINGET = b'h', Index1;
    INST = b'i', Names;
    LONG_BINGET = b'j', Index4;
    LIST = b'l', Nothing;
    EMPTY_LIST = b']', Nothing;
    OBJ = b'o', Nothing;
    PUT = b'p', IndexLine;
    BINPUT = b'q', Index1;
    LONG_BINPUT = b'r', Index4;
    SETITEM = b's', Nothing;
    TUPLE = b't', Nothing;
    EMPTY_TUPLE = b')', Nothing;
    SETITEMS = b'u', Nothing;
    BINFLOAT = b'G', Float8;

    // protocol 2
    PROTO = 0x80, Protocol;
    NEWOBJ = 0x81, Nothing;
    EXT1 = 0x82, Code1;
    EXT2 = 0x83, Code2;
    EXT4 = 0x84, Code4;
    TUPLE1 = 0x85, Nothing;
    TUPLE2 = 0x86, Nothing;
    TUPLE3 = 0x87, Nothing;
    NEWTRUE = 0x88, Nothing;
    NEWFALSE = 0x89, Nothing;
    LONG1 = 0x8a, Long1;
    LONG4 = 0x8b, Long4;

    // protocol 3
    BINBYTES = b'B', Bytes4;
    SHORT_BINBYTES = b'C', Bytes1;

    // protocol 4
    SHORT_BINUNICODE = 0x8c, Text1;
    BINUNICODE8 = 0x8d, Text8;
    BINBYTES8 = 0x8e, Bytes8;
    EMPTY_SET = 0x8f, Nothing;
    ADDITEMS = 0x90, Nothing;
    FROZENSET = 0x91, Nothing;
    NEWOBJ_EX = 0x92, Nothing;
    STACK_GLOBAL = 0x93, Nothing;
    MEMOIZE = 0x94, Nothing;
    FRAME = 0x95, Length8;

    // protocol 5
    BYTEARRAY8 = 0x96, ByteArray8;
    NEXT_BUFFER = 0x97, Nothing;
    READONLY_BUFFER = 0x98, Nothing;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pickletools.opcodes` of Python 3.8 and later: the code and the name of the argument.
    const PICKLETOOLS: &str = "\
        49:decimalnl_short 4a:int4 4b:uint1 4d:uint2 4c:decimalnl_long 8a:long1 \
        8b:long4 53:stringnl 54:string4 55:string1 42:bytes4 43:bytes1 \
        8e:bytes8 96:bytearray8 97:- 98:- 4e:- 88:- \
        89:- 56:unicodestringnl 8c:unicodestring1 58:unicodestring4 8d:unicodestring8 46:floatnl \
        47:float8 5d:- 61:- 65:- 6c:- 29:- \
        74:- 85:- 86:- 87:- 7d:- 64:- \
        73:- 75:- 8f:- 90:- 91:- 30:- \
        32:- 28:- 31:- 67:decimalnl_short 68:uint1 6a:uint4 \
        70:decimalnl_short 71:uint1 72:uint4 94:- 82:uint1 83:uint2 \
        84:int4 63:stringnl_noescape_pair 93:- 52:- 62:- 69:stringnl_noescape_pair \
        6f:- 81:- 92:- 80:uint1 2e:- 95:uint8 \
        50:stringnl_noescape 51:- \
        ";

    fn pickletools_name(form: Form) -> &'static [&'static str] {
        match form {
            Form::Nothing => &["-"],
            Form::Int1 | Form::Index1 | Form::Code1 | Form::Protocol => &["uint1"],
            Form::Int2 | Form::Code2 => &["uint2"],
            Form::Int4 | Form::Code4 => &["int4"],
            Form::Index4 => &["uint4"],
            Form::Length8 => &["uint8"],
            Form::IntLine | Form::IndexLine => &["decimalnl_short"],
            Form::LongLine => &["decimalnl_long"],
            Form::Long1 => &["long1"],
            Form::Long4 => &["long4"],
            Form::FloatLine => &["floatnl"],
            Form::Float8 => &["float8"],
            Form::Str1 => &["string1"],
            Form::Str4 => &["string4"],
            Form::Bytes1 => &["bytes1"],
            Form::Bytes4 => &["bytes4"],
            Form::Bytes8 => &["bytes8"],
            Form::ByteArray8 => &["bytearray8"],
            Form::Text1 => &["unicodestring1"],
            Form::Text4 => &["unicodestring4"],
            Form::Text8 => &["unicodestring8"],
            Form::Line => &["stringnl", "unicodestringnl", "stringnl_noescape"],
            Form::Names => &["stringnl_noescape_pair"],
        }
    }

    #[test]
    fn the_table_is_that_of_pickletools() {
        let mut count = 0;
        for row in PICKLETOOLS.split_whitespace() {
            let (code, argument) = row.split_once(':').unwrap();
            let form = FORMS[usize::from_str_radix(code, 16).unwrap()].unwrap();
            assert!(pickletools_name(form).contains(&argument), "{row}: {form:?}");
            count += 1;
        }
        assert_eq!(count, FORMS.iter().flatten().count());
    }
}
