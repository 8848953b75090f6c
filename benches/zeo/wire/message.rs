//! Decodes messages: `(id, flag, name, arguments or reply value)`.

use super::msgpack::Reader;
use super::pickle::{self, Token, Tokens};
use super::{Dialect, Id8, Value};

type Result<T> = std::result::Result<T, String>;

/// The flag of a reply with an exception (protocol 5).
const FLAG_EXCEPTION: i64 = 2;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageId<'a> {
    Int(i64),
    /// A load of protocol 5: the requested object.
    Load(&'a [u8]),
}

/// One received message. Only the header is decoded; `rest` starts at the arguments (or at the reply's value).
pub struct Message<'a> {
    pub id: MessageId<'a>,
    /// The encoded id, to be repeated in the reply.
    pub raw_id: &'a [u8],
    pub flag: i64,
    pub name: &'a [u8],
    rest: &'a [u8],
    dialect: Dialect,
}

impl<'a> Message<'a> {
    pub fn parse(dialect: Dialect, frame: &'a [u8]) -> Result<Message<'a>> {
        if dialect == Dialect::M5 {
            Message::parse_msgpack(frame)
        } else {
            Message::parse_pickle(dialect, frame)
        }
    }

    fn parse_msgpack(frame: &'a [u8]) -> Result<Message<'a>> {
        let mut reader = Reader::new(frame);
        if reader.array_len()? != 4 {
            return Err("a message that is not a 4-tuple".into());
        }
        let id_pos = reader.pos;
        let id = if reader.peek()? == 0x92 {
            reader.array_len()?;
            let oid = reader.byte_string()?;
            reader.byte_string()?;
            MessageId::Load(oid)
        } else {
            MessageId::Int(reader.value()?.as_int().ok_or("a message id that is no number")?)
        };
        let raw_id = &frame[id_pos..reader.pos];
        let flag = reader.value()?.as_int().ok_or("a message flag that is no number")?;
        let name = reader.byte_string()?;
        Ok(Message { id, raw_id, flag, name, rest: &frame[reader.pos..], dialect: Dialect::M5 })
    }

    fn parse_pickle(dialect: Dialect, frame: &'a [u8]) -> Result<Message<'a>> {
        let mut tokens = Tokens::new(frame);
        if tokens.next_value()? != Token::Mark {
            return Err("a message that is not a tuple".into());
        }
        let id_pos = tokens.pos;
        let id = match tokens.next_value()? {
            Token::Int(id) => MessageId::Int(id),
            Token::Bytes(oid) => {
                tokens.next_value()?;
                match tokens.next_value()? {
                    Token::Tuple(2) => MessageId::Load(oid),
                    other => return Err(format!("message id: {other:?}")),
                }
            }
            other => return Err(format!("message id: {other:?}")),
        };
        let raw_id = &frame[id_pos..tokens.pos];
        let flag = match tokens.next_value()? {
            Token::Int(flag) => flag,
            Token::Bool(flag) => i64::from(flag),
            other => return Err(format!("message flag: {other:?}")),
        };
        let Token::Bytes(name) = tokens.next_value()? else {
            return Err("a message without a name".into());
        };
        Ok(Message { id, raw_id, flag, name, rest: &frame[tokens.pos..], dialect })
    }

    pub fn is_reply(&self) -> bool {
        self.name == b".reply"
    }

    /// Decodes the arguments (or the reply value) completely.
    pub fn value(&self) -> Result<Value> {
        if self.dialect == Dialect::M5 {
            return Reader::new(self.rest).value();
        }
        // `rest` still ends with the outer tuple's TUPLE and STOP: give it a mark, then take the only element.
        let mut whole = Vec::with_capacity(self.rest.len() + 1);
        whole.push(b'(');
        whole.extend_from_slice(self.rest);
        match pickle::read(&whole)? {
            Value::Tuple(mut items) if items.len() == 1 => Ok(items.remove(0)),
            other => Err(format!("message ends with {other:?}")),
        }
    }

    /// The reply's value, or the server's exception: its class and its message.
    pub fn reply(&self) -> Result<std::result::Result<Value, ServerError>> {
        let value = self.value()?;
        let class = match value.items().first() {
            Some(Value::Bytes(name)) if self.flag == FLAG_EXCEPTION => {
                String::from_utf8_lossy(name).into_owned()
            }
            _ if self.flag == FLAG_EXCEPTION => String::new(),
            Some(Value::Class(name)) => name.clone(),
            _ => return Ok(Ok(value)),
        };
        Ok(Err(ServerError { class, detail: format!("{:.300}", format!("{value:?}")) }))
    }

    /// Data and serial of a load's reply, without copying.
    pub fn loaded(&self) -> Result<(&'a [u8], Id8)> {
        if self.flag != 0 {
            return Err(format!("load failed: {:?}", self.value()));
        }
        let (data, serial) =
            if self.dialect == Dialect::M5 { self.loaded_msgpack()? } else { self.loaded_pickle()? };
        Ok((data, serial.try_into().map_err(|_| format!("load: bad serial {serial:?}"))?))
    }

    fn loaded_msgpack(&self) -> Result<(&'a [u8], &'a [u8])> {
        let mut reader = Reader::new(self.rest);
        reader.array_len()?;
        Ok((reader.byte_string()?, reader.byte_string()?))
    }

    fn loaded_pickle(&self) -> Result<(&'a [u8], &'a [u8])> {
        let mut tokens = Tokens::new(self.rest);
        let mut first = tokens.next_value()?;
        if first == Token::Mark {
            first = tokens.next_value()?;
        }
        let (Token::Bytes(data), Token::Bytes(serial)) = (first, tokens.next_value()?) else {
            return Err(format!("load: got {:?}", self.value()));
        };
        loop {
            match tokens.next_value()? {
                Token::Stop if tokens.pos == self.rest.len() => return Ok((data, serial)),
                Token::None | Token::Bytes(_) | Token::Tuple(_) | Token::TupleFromMark => {}
                other => return Err(format!("load: unexpected {other:?} in the reply")),
            }
        }
    }

    /// The byte-string arguments, in order; other arguments are left out.
    pub fn byte_string_arguments(&self) -> Result<Vec<&'a [u8]>> {
        let mut found = vec![];
        if self.dialect == Dialect::M5 {
            let mut reader = Reader::new(self.rest);
            for _ in 0..reader.array_len()? {
                match reader.peek()? {
                    0xa0..=0xbf | 0xc4..=0xc6 | 0xd9..=0xdb => found.push(reader.byte_string()?),
                    _ => drop(reader.value()?),
                }
            }
            return Ok(found);
        }
        let mut tokens = Tokens::new(self.rest);
        loop {
            match tokens.next_value()? {
                Token::Bytes(bytes) => found.push(bytes),
                Token::Stop => return Ok(found),
                _ => {}
            }
        }
    }

    /// The transaction of an invalidateTransaction.
    pub fn invalidated_tid(&self) -> Result<Id8> {
        let first = if self.dialect == Dialect::M5 {
            let mut reader = Reader::new(self.rest);
            reader.array_len()?;
            Some(reader.byte_string()?)
        } else {
            let mut tokens = Tokens::new(self.rest);
            match tokens.next_value()? {
                Token::Bytes(bytes) => Some(bytes),
                Token::Mark => match tokens.next_value()? {
                    Token::Bytes(bytes) => Some(bytes),
                    _ => None,
                },
                _ => None,
            }
        };
        first
            .and_then(|tid| tid.try_into().ok())
            .ok_or_else(|| "an invalidation without a transaction id".into())
    }
}

/// An exception from the server.
pub struct ServerError {
    pub class: String,
    detail: String,
}

impl ServerError {
    pub fn is_conflict(&self) -> bool {
        self.class.contains("Conflict")
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.class, self.detail)
    }
}
