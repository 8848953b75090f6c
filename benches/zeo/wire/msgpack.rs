//! Reading msgpack.

use super::Value;

type Result<T> = std::result::Result<T, String>;

pub struct Reader<'a> {
    bytes: &'a [u8],
    pub pos: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, pos: 0 }
    }

    /// The length of an array, whose items follow.
    pub fn array_len(&mut self) -> Result<usize> {
        let tag = self.take(1)?[0];
        Ok(match tag {
            0x90..=0x9f => usize::from(tag & 15),
            0xdc => self.uint(2)? as usize,
            0xdd => self.uint(4)? as usize,
            _ => return Err(format!("msgpack: expected an array, got {tag:#04x}")),
        })
    }

    /// Bytes or text.
    pub fn byte_string(&mut self) -> Result<&'a [u8]> {
        let tag = self.take(1)?[0];
        let len = match tag {
            0xa0..=0xbf => usize::from(tag & 31),
            0xc4 | 0xd9 => self.uint(1)? as usize,
            0xc5 | 0xda => self.uint(2)? as usize,
            0xc6 | 0xdb => self.uint(4)? as usize,
            _ => return Err(format!("msgpack: expected a byte string, got {tag:#04x}")),
        };
        self.take(len)
    }

    pub fn peek(&self) -> Result<u8> {
        self.bytes.get(self.pos).copied().ok_or_else(|| "truncated msgpack".into())
    }

    pub fn value(&mut self) -> Result<Value> {
        let tag = self.peek()?;
        match tag {
            0xa0..=0xbf | 0xc4..=0xc6 | 0xd9..=0xdb => return Ok(Value::Bytes(self.byte_string()?.to_vec())),
            0x90..=0x9f | 0xdc | 0xdd => {
                let len = self.array_len()?;
                return Ok(Value::Tuple((0..len).map(|_| self.value()).collect::<Result<_>>()?));
            }
            _ => {}
        }
        self.take(1)?;
        Ok(match tag {
            0x80..=0x8f => self.dict(usize::from(tag & 15))?,
            0xde => {
                let len = self.uint(2)?;
                self.dict(len as usize)?
            }
            0xdf => {
                let len = self.uint(4)?;
                self.dict(len as usize)?
            }
            0x00..=0x7f => Value::Int(i64::from(tag)),
            0xe0..=0xff => Value::Int(i64::from(tag as i8)),
            0xc0 => Value::None,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xcc => Value::Int(self.uint(1)? as i64),
            0xcd => Value::Int(self.uint(2)? as i64),
            0xce => Value::Int(self.uint(4)? as i64),
            0xcf | 0xd3 => Value::Int(self.uint(8)? as i64),
            0xd0 => Value::Int(i64::from(self.uint(1)? as i8)),
            0xd1 => Value::Int(i64::from(self.uint(2)? as i16)),
            0xd2 => Value::Int(i64::from(self.uint(4)? as i32)),
            0xca => Value::Float(f64::from(f32::from_bits(self.uint(4)? as u32))),
            0xcb => Value::Float(f64::from_bits(self.uint(8)?)),
            _ => return Err(format!("msgpack: unsupported type {tag:#04x}")),
        })
    }

    fn dict(&mut self, len: usize) -> Result<Value> {
        Ok(Value::Dict((0..len).map(|_| Ok((self.value()?, self.value()?))).collect::<Result<_>>()?))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end =
            self.pos.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or("truncated msgpack")?;
        let taken = &self.bytes[self.pos..end];
        self.pos = end;
        Ok(taken)
    }

    fn uint(&mut self, len: usize) -> Result<u64> {
        Ok(self.take(len)?.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
    }
}
