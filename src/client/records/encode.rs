//! From values to the two pickles of a record, with one memo, as ZODB writes them.

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::DEPTH_MAX;
use super::error::RecordError;
use super::format::Format;
use super::value::{Class, Construction, Instance, PyValue, Reference};
use crate::pickle::Dialect;
use crate::pickle::opcode::*;
use crate::pickle::write;

/// Shorter strings are written again where they occur again: the memo would not save anything.
const MEMO_LEN_MIN: usize = 4;
/// Longest string, in bytes: Python reads the length as a signed number.
const LEN_MAX: usize = i32::MAX as usize;

type Result<T> = std::result::Result<T, RecordError>;

/// What is in the memo.
#[derive(Eq, Hash, PartialEq)]
enum Memoized {
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    Str(Arc<[u8]>),
    Class(Class),
    /// A shared value, by its address. The record that is written keeps it alive.
    Shared(*const PyValue),
}

/// Writes the pickles of one record.
pub struct Encoder {
    format: Format,
    dialect: Dialect,
    out: Vec<u8>,
    memo: HashMap<Memoized, usize>,
    depth: usize,
}

impl Encoder {
    /// Nothing is written yet.
    pub fn new(format: Format) -> Encoder {
        let dialect = if format.protocol < 3 { Dialect::Python2 } else { Dialect::Python3 };
        Encoder { format, dialect, out: Vec::new(), memo: HashMap::new(), depth: 0 }
    }

    /// Writes one more pickle.
    pub fn pickle(&mut self, value: &PyValue) -> Result<()> {
        if self.format.protocol > 1 {
            self.out.extend_from_slice(&[PROTO, self.format.protocol]);
        }
        self.value(value)?;
        self.out.push(STOP);
        Ok(())
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn value(&mut self, value: &PyValue) -> Result<()> {
        match value {
            PyValue::None => self.out.push(NONE),
            PyValue::Bool(value) => write::put_bool(self.dialect, *value, &mut self.out),
            PyValue::Int(value) => write::put_int(self.dialect, *value, &mut self.out),
            PyValue::Long(value) => self.long(&shortest(&value.to_le_bytes()))?,
            PyValue::BigInt(bytes) => self.long(bytes)?,
            PyValue::Float(value) => write::put_float(*value, &mut self.out),
            PyValue::Text(text) => self.text(text)?,
            PyValue::Surrogates(bytes) => self.text_bytes(bytes)?,
            PyValue::Bytes(bytes) if self.dialect == Dialect::Python2 => self.str2(bytes)?,
            PyValue::Bytes(bytes) => self.bytes(bytes)?,
            PyValue::Str(bytes) => self.str2(bytes)?,
            PyValue::Class(class) => self.class(class)?,
            PyValue::Extension(code) => {
                self.out.push(EXT4);
                self.out.extend_from_slice(&code.to_le_bytes());
            }
            PyValue::Shared(shared) => {
                let key = Memoized::Shared(Arc::as_ptr(shared));
                if !self.recall(&key) {
                    self.deeper(|encoder| encoder.value(shared))?;
                    self.memoize(key);
                }
            }
            _ => self.deeper(|encoder| encoder.container(value))?,
        }
        Ok(())
    }

    fn container(&mut self, value: &PyValue) -> Result<()> {
        match value {
            PyValue::Tuple(items) => self.tuple(items)?,
            PyValue::List(items) => self.list(items)?,
            PyValue::Dict(pairs) => {
                write::begin_dict(pairs.len(), &mut self.out);
                self.pairs(pairs)?;
                write::end_dict(pairs.len(), &mut self.out);
            }
            PyValue::Set(items) => self.call("set", |encoder| encoder.list(items))?,
            PyValue::FrozenSet(items) => self.call("frozenset", |encoder| encoder.list(items))?,
            PyValue::ByteArray(bytes) => self.call("bytearray", |encoder| match encoder.dialect {
                Dialect::Python2 => encoder.str2(bytes),
                Dialect::Python3 => encoder.bytes(bytes),
            })?,
            PyValue::Reference(reference) => {
                self.reference(reference)?;
                self.out.push(BINPERSID);
            }
            PyValue::Instance(instance) => self.instance(instance)?,
            scalar => self.value(scalar)?,
        }
        Ok(())
    }

    fn deeper(&mut self, write: impl FnOnce(&mut Encoder) -> Result<()>) -> Result<()> {
        if self.depth >= 2 * DEPTH_MAX {
            return Err(RecordError::TooDeep);
        }
        self.depth += 1;
        write(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn tuple(&mut self, items: &[PyValue]) -> Result<()> {
        write::begin_tuple(self.dialect, items.len(), &mut self.out);
        items.iter().try_for_each(|item| self.value(item))?;
        write::end_tuple(self.dialect, items.len(), &mut self.out);
        Ok(())
    }

    fn list(&mut self, items: &[PyValue]) -> Result<()> {
        write::begin_list(items.len(), &mut self.out);
        items.iter().try_for_each(|item| self.value(item))?;
        write::end_list(items.len(), &mut self.out);
        Ok(())
    }

    fn pairs(&mut self, pairs: &[(PyValue, PyValue)]) -> Result<()> {
        pairs.iter().try_for_each(|(key, value)| {
            self.value(key)?;
            self.value(value)
        })
    }

    /// A call of a built-in class with one argument.
    fn call(&mut self, name: &str, argument: impl FnOnce(&mut Encoder) -> Result<()>) -> Result<()> {
        let module = if self.format.is_python2 { "__builtin__" } else { "builtins" };
        self.class(&Class::new(module, name))?;
        write::begin_tuple(self.dialect, 1, &mut self.out);
        argument(self)?;
        write::end_tuple(self.dialect, 1, &mut self.out);
        self.out.push(REDUCE);
        Ok(())
    }

    fn instance(&mut self, instance: &Instance) -> Result<()> {
        match instance.construction {
            Construction::Classic => {
                self.out.push(MARK);
                self.value(&instance.class)?;
                instance.args.iter().try_for_each(|item| self.value(item))?;
                self.out.push(OBJ);
            }
            Construction::New | Construction::Call => {
                self.value(&instance.class)?;
                self.tuple(&instance.args)?;
                self.out.push(if instance.construction == Construction::New { NEWOBJ } else { REDUCE });
            }
            Construction::NewWithKeywords => {
                let [args, keywords] = instance.args.as_slice() else {
                    let found = format!("{} arguments", instance.args.len());
                    return Err(RecordError::Unexpected { wanted: "a tuple and a dict", found });
                };
                // The opcode for it is of protocol 4.
                self.class(&Class::new("copyreg", "__newobj_ex__"))?;
                self.tuple(&[instance.class.clone(), args.clone(), keywords.clone()])?;
                self.out.push(REDUCE);
            }
        }
        if !instance.items.is_empty() {
            self.out.push(MARK);
            instance.items.iter().try_for_each(|item| self.value(item))?;
            self.out.push(APPENDS);
        }
        if !instance.pairs.is_empty() {
            self.out.push(MARK);
            self.pairs(&instance.pairs)?;
            self.out.push(SETITEMS);
        }
        if let Some(state) = &instance.state {
            self.value(state)?;
            self.out.push(BUILD);
        }
        Ok(())
    }

    /// The persistent id.
    fn reference(&mut self, reference: &Reference) -> Result<()> {
        // `bytes`, which is `str` in Python 2.
        let id = |oid: &crate::base::ids::Oid| {
            let bytes = oid.to_bytes();
            if self.format.is_python2 { PyValue::str2(&bytes) } else { PyValue::bytes(&bytes) }
        };
        let form = |letter: &str, args: Vec<PyValue>| {
            PyValue::List(vec![self.format.native(letter), PyValue::Tuple(args)])
        };
        let value = match reference {
            Reference::Object { oid, class: None } => id(oid),
            Reference::Object { oid, class: Some(class) } => PyValue::Tuple(vec![id(oid), class.clone()]),
            Reference::Weak { oid, database: None } => form("w", vec![id(oid)]),
            Reference::Weak { oid, database: Some(database) } => form("w", vec![id(oid), database.clone()]),
            Reference::Foreign { database, oid, class: None } => form("n", vec![database.clone(), id(oid)]),
            Reference::Foreign { database, oid, class: Some(class) } => {
                form("m", vec![database.clone(), id(oid), class.clone()])
            }
            Reference::Unknown(id) => id.clone(),
        };
        self.value(&value)
    }

    fn class(&mut self, class: &Class) -> Result<()> {
        let key = Memoized::Class(class.clone());
        if self.recall(&key) {
            return Ok(());
        }
        if class.module.contains('\n') || class.name.contains('\n') {
            return Err(RecordError::Unsupported("the name of a class with a line feed".into()));
        }
        write::put_global(&class.module, &class.name, &mut self.out);
        self.memoize(key);
        Ok(())
    }

    fn text(&mut self, text: &Arc<str>) -> Result<()> {
        let key = (text.len() >= MEMO_LEN_MIN).then(|| Memoized::Text(Arc::clone(text)));
        self.once(key, |encoder| encoder.text_bytes(text.as_bytes()))
    }

    fn text_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let len = checked_len(bytes)?;
        self.out.push(BINUNICODE);
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn bytes(&mut self, bytes: &Arc<[u8]>) -> Result<()> {
        let key = (bytes.len() >= MEMO_LEN_MIN).then(|| Memoized::Bytes(Arc::clone(bytes)));
        self.once(key, |encoder| {
            checked_len(bytes)?;
            write::put_bytes(Dialect::Python3, bytes, &mut encoder.out);
            Ok(())
        })
    }

    fn str2(&mut self, bytes: &Arc<[u8]>) -> Result<()> {
        let key = (bytes.len() >= MEMO_LEN_MIN).then(|| Memoized::Str(Arc::clone(bytes)));
        self.once(key, |encoder| {
            checked_len(bytes)?;
            write::put_bytes(Dialect::Python2, bytes, &mut encoder.out);
            Ok(())
        })
    }

    fn long(&mut self, bytes: &[u8]) -> Result<()> {
        checked_len(bytes)?;
        write::put_big_int(bytes, &mut self.out);
        Ok(())
    }

    fn once(&mut self, key: Option<Memoized>, write: impl FnOnce(&mut Encoder) -> Result<()>) -> Result<()> {
        if key.as_ref().is_some_and(|key| self.recall(key)) {
            return Ok(());
        }
        write(self)?;
        if let Some(key) = key {
            self.memoize(key);
        }
        Ok(())
    }

    /// Writes a reference to the memo, if it is there.
    fn recall(&mut self, key: &Memoized) -> bool {
        let Some(index) = self.memo.get(key) else { return false };
        match u8::try_from(*index) {
            Ok(index) => self.out.extend_from_slice(&[BINGET, index]),
            Err(_) => {
                self.out.push(LONG_BINGET);
                self.out.extend_from_slice(&u32::try_from(*index).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        true
    }

    fn memoize(&mut self, key: Memoized) {
        let index = self.memo.len();
        match u8::try_from(index) {
            Ok(index) => self.out.extend_from_slice(&[BINPUT, index]),
            Err(_) => {
                self.out.push(LONG_BINPUT);
                self.out.extend_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        self.memo.insert(key, index);
    }
}

fn checked_len(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= LEN_MAX).ok_or(RecordError::TooLarge)
}

/// Two's complement without bytes that only repeat the sign.
fn shortest(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    while let [.., below, top] = bytes.as_slice()
        && ((*top == 0 && below & 0x80 == 0) || (*top == 0xff && below & 0x80 != 0))
    {
        bytes.pop();
    }
    bytes
}
