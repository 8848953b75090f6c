//! Encodes messages in every dialect, byte for byte as the Python clients.

use super::{Dialect, Id8};

/// Collects encoded frames until they are sent.
pub struct Encoder {
    pub bytes: Vec<u8>,
    pub dialect: Dialect,
    frame_start: usize,
    arg_count: usize,
}

impl Encoder {
    pub fn new(dialect: Dialect) -> Encoder {
        Encoder { bytes: Vec::with_capacity(1 << 12), dialect, frame_start: 0, arg_count: 0 }
    }

    /// Begins a synchronous call. Exactly `arg_count` values must follow, then [`Encoder::end`].
    pub fn call(&mut self, id: u32, method: &str, arg_count: usize) {
        self.open_frame();
        self.int(i64::from(id));
        self.open_arguments(false, method, arg_count);
    }

    /// Begins a call without a reply; otherwise as [`Encoder::call`].
    pub fn call_async(&mut self, method: &str, arg_count: usize) {
        self.open_frame();
        self.int(0);
        self.open_arguments(true, method, arg_count);
    }

    /// A whole `loadBefore`. Clients of ZEO 5 and 6 use its arguments as the message id too.
    pub fn load_before(&mut self, oid: &Id8, before: &Id8) {
        self.open_frame();
        if self.dialect == Dialect::M5 {
            self.bytes.push(0x92);
        }
        self.byte_string(oid);
        self.byte_string(before);
        if self.dialect != Dialect::M5 {
            self.bytes.push(0x86);
        }
        self.open_arguments(false, "loadBefore", 2);
        self.byte_string(oid);
        self.byte_string(before);
        self.end();
    }

    /// Begins a reply to the message whose encoded id is `id`: one value must follow, then [`Encoder::end_reply`].
    pub fn reply(&mut self, id: &[u8]) {
        self.open_frame();
        self.bytes.extend_from_slice(id);
        self.int(0);
        self.text(".reply");
    }

    pub fn end(&mut self) {
        match self.dialect {
            Dialect::M5 => {}
            Dialect::Z4Python2 => {
                let close = if self.arg_count == 0 { b')' } else { b't' };
                self.bytes.extend_from_slice(&[close, b't', b'.']);
            }
            Dialect::Z4Python3 | Dialect::Z5 => {
                let close = match self.arg_count {
                    0 => b')',
                    1 => 0x85,
                    2 => 0x86,
                    3 => 0x87,
                    _ => b't',
                };
                self.bytes.extend_from_slice(&[close, b't', b'.']);
            }
        }
        self.close_frame();
    }

    pub fn end_reply(&mut self) {
        if self.dialect != Dialect::M5 {
            self.bytes.extend_from_slice(b"t.");
        }
        self.close_frame();
    }

    pub fn int(&mut self, v: i64) {
        if self.dialect == Dialect::M5 {
            return self.msgpack_int(v);
        }
        if let Ok(v) = u8::try_from(v) {
            self.bytes.extend_from_slice(&[b'K', v]);
        } else if let Ok(v) = u16::try_from(v) {
            self.bytes.push(b'M');
            self.bytes.extend_from_slice(&v.to_le_bytes());
        } else if let Ok(v) = i32::try_from(v) {
            self.bytes.push(b'J');
            self.bytes.extend_from_slice(&v.to_le_bytes());
        } else if self.dialect.is_python2() {
            self.bytes.extend_from_slice(format!("I{v}\n").as_bytes());
        } else {
            self.bytes.extend_from_slice(&[0x8a, 8]);
            self.bytes.extend_from_slice(&v.to_le_bytes());
        }
    }

    pub fn float(&mut self, v: f64) {
        self.tagged(if self.dialect == Dialect::M5 { 0xcb } else { b'G' }, &v.to_be_bytes());
    }

    pub fn byte_string(&mut self, v: &[u8]) {
        let len_u32 = v.len() as u32;
        match (self.dialect, u8::try_from(v.len())) {
            (Dialect::M5, Ok(len)) => self.bytes.extend_from_slice(&[0xc4, len]),
            (Dialect::M5, Err(_)) => match u16::try_from(v.len()) {
                Ok(len) => self.tagged(0xc5, &len.to_be_bytes()),
                Err(_) => self.tagged(0xc6, &len_u32.to_be_bytes()),
            },
            (Dialect::Z4Python2, Ok(len)) => self.bytes.extend_from_slice(&[b'U', len]),
            (Dialect::Z4Python2, Err(_)) => self.tagged(b'T', &len_u32.to_le_bytes()),
            (_, Ok(len)) => self.bytes.extend_from_slice(&[b'C', len]),
            (_, Err(_)) => self.tagged(b'B', &len_u32.to_le_bytes()),
        }
        self.bytes.extend_from_slice(v);
    }

    /// A short text: a method or storage name.
    pub fn text(&mut self, v: &str) {
        let len = v.len() as u8;
        match self.dialect {
            Dialect::M5 if v.len() < 32 => self.bytes.push(0xa0 | len),
            Dialect::M5 => self.bytes.extend_from_slice(&[0xd9, len]),
            Dialect::Z4Python2 => self.bytes.extend_from_slice(&[b'U', len]),
            Dialect::Z4Python3 | Dialect::Z5 => self.tagged(b'X', &u32::from(len).to_le_bytes()),
        }
        self.bytes.extend_from_slice(v.as_bytes());
    }

    pub fn none(&mut self) {
        self.bytes.push(if self.dialect == Dialect::M5 { 0xc0 } else { b'N' });
    }

    pub fn boolean(&mut self, v: bool) {
        match self.dialect {
            Dialect::M5 => self.bytes.push(if v { 0xc3 } else { 0xc2 }),
            Dialect::Z4Python2 => self.bytes.extend_from_slice(if v { b"I01\n" } else { b"I00\n" }),
            Dialect::Z4Python3 | Dialect::Z5 => self.bytes.push(if v { 0x88 } else { 0x89 }),
        }
    }

    pub fn empty_dict(&mut self) {
        self.bytes.push(if self.dialect == Dialect::M5 { 0x80 } else { b'}' });
    }

    pub fn empty_list(&mut self) {
        self.bytes.push(if self.dialect == Dialect::M5 { 0x90 } else { b']' });
    }

    pub fn id_list(&mut self, ids: &[Id8]) {
        if self.dialect == Dialect::M5 {
            self.msgpack_array(ids.len());
        } else {
            self.bytes.extend_from_slice(b"](");
        }
        for id in ids {
            self.byte_string(id);
        }
        if self.dialect != Dialect::M5 {
            self.bytes.push(b'e');
        }
    }

    /// `(data, serial, None)`: the answer to loadBefore for a current revision. Not for Python 2.
    pub fn current_revision(&mut self, data: &[u8], serial: &Id8) {
        if self.dialect == Dialect::M5 {
            self.bytes.push(0x93);
        }
        self.byte_string(data);
        self.byte_string(serial);
        self.none();
        if self.dialect != Dialect::M5 {
            self.bytes.push(0x87);
        }
    }

    /// `{'length': .., 'size': ..}`
    pub fn info(&mut self, length: i64, size: i64) {
        self.bytes.extend_from_slice(if self.dialect == Dialect::M5 { b"\x82" } else { b"}(" });
        self.text("length");
        self.int(length);
        self.text("size");
        self.int(size);
        if self.dialect != Dialect::M5 {
            self.bytes.push(b'u');
        }
    }

    fn open_frame(&mut self) {
        self.frame_start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(match self.dialect {
            Dialect::M5 => b"\x94",
            Dialect::Z4Python2 => b"(",
            Dialect::Z4Python3 | Dialect::Z5 => b"\x80\x03(",
        });
    }

    fn open_arguments(&mut self, is_async: bool, method: &str, arg_count: usize) {
        // Python 2 clients pickle the flag of an asynchronous call as an int, that of a synchronous one as a bool.
        if self.dialect.is_python2() && is_async {
            self.int(1);
        } else {
            self.boolean(is_async);
        }
        self.text(method);
        self.arg_count = arg_count;
        match self.dialect {
            Dialect::M5 => self.msgpack_array(arg_count),
            Dialect::Z4Python2 if arg_count > 0 => self.bytes.push(b'('),
            Dialect::Z4Python3 | Dialect::Z5 if arg_count > 3 => self.bytes.push(b'('),
            _ => {}
        }
    }

    fn close_frame(&mut self) {
        let len = (self.bytes.len() - self.frame_start - 4) as u32;
        self.bytes[self.frame_start..self.frame_start + 4].copy_from_slice(&len.to_be_bytes());
    }

    fn tagged(&mut self, tag: u8, rest: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(rest);
    }

    fn msgpack_array(&mut self, len: usize) {
        match u16::try_from(len) {
            Ok(len) if len < 16 => self.bytes.push(0x90 | len as u8),
            Ok(len) => self.tagged(0xdc, &len.to_be_bytes()),
            Err(_) => self.tagged(0xdd, &(len as u32).to_be_bytes()),
        }
    }

    fn msgpack_int(&mut self, v: i64) {
        if (0..128).contains(&v) {
            self.bytes.push(v as u8);
        } else if let Ok(v) = u8::try_from(v) {
            self.bytes.extend_from_slice(&[0xcc, v]);
        } else if let Ok(v) = u16::try_from(v) {
            self.tagged(0xcd, &v.to_be_bytes());
        } else if let Ok(v) = u32::try_from(v) {
            self.tagged(0xce, &v.to_be_bytes());
        } else {
            self.tagged(0xd3, &v.to_be_bytes());
        }
    }
}
