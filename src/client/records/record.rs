//! A record: the class, and the state.

use super::decode;
use super::encode::Encoder;
use super::error::RecordError;
use super::format::Format;
use super::value::{Class, PyValue};
use crate::base::ids::Oid;
use crate::pickle::read::read_record;
use crate::pickle::record::{ClassName, class_name};
use crate::pickle::refs::references;

/// The record of an object, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectRecord {
    /// The class: a [`PyValue::Class`]. Records of very old databases have a tuple of names.
    pub class: PyValue,
    /// The arguments of `__new__` (`__getnewargs__`); `None`: the class has no such method.
    pub args: Option<PyValue>,
    /// What `__getstate__` gave: a dict of the attributes for most classes.
    pub state: PyValue,
    /// How it was written, and will be.
    pub format: Format,
}

impl ObjectRecord {
    /// The record of a new object.
    pub fn new(class: Class, state: PyValue, format: Format) -> ObjectRecord {
        ObjectRecord { class: PyValue::Class(class), args: None, state, format }
    }

    /// Reads a record.
    ///
    /// ```
    /// use runzeo::client::records::{ObjectRecord, PyValue};
    ///
    /// let data = b"\x80\x03cmyapp\nPage\nq\x00.\x80\x03}q\x01X\x05\0\0\0titleq\x02X\x04\0\0\0Homeq\x03s.";
    /// let mut page = ObjectRecord::decode(data)?;
    /// assert!(page.class_name().is_some_and(|class| class.is("myapp", "Page")));
    /// assert_eq!(page.attribute("title"), Some(&PyValue::text("Home")));
    /// page.set_attribute("title", PyValue::text("Start"))?;
    /// let again = ObjectRecord::decode(&page.encode()?)?;
    /// assert_eq!(again.attribute("title").and_then(PyValue::as_text), Some("Start"));
    /// # Ok::<(), runzeo::client::records::RecordError>(())
    /// ```
    pub fn decode(data: &[u8]) -> Result<ObjectRecord, RecordError> {
        let (tree, class) = read_record(data)?;
        let protocol = match data {
            [0x80, protocol, ..] => (*protocol).clamp(1, 3),
            _ => 1,
        };
        let roots = [class, tree.root()];
        let nodes = decode::Uses::of(&tree, &roots);
        let format = Format { is_python2: protocol < 3 || nodes.has_str, protocol };
        let mut decoder = decode::Decoder::new(&tree, nodes, format.is_python2);
        let (class, args) = match decoder.value(class)? {
            PyValue::Tuple(parts) => match <[PyValue; 2]>::try_from(parts) {
                Ok([class @ (PyValue::Class(_) | PyValue::Extension(_)), args]) => (class, Some(args)),
                Ok([class, args]) if matches!(class.plain(), PyValue::Tuple(_)) => (class, Some(args)),
                Ok(parts) => (PyValue::Tuple(parts.into()), None),
                Err(parts) => (PyValue::Tuple(parts), None),
            },
            class => (class, None),
        };
        let state = decoder.value(tree.root())?;
        Ok(ObjectRecord { class, args, state, format })
    }

    /// Writes the record.
    ///
    /// Errors: values that are nested too deeply, or are too long.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut encoder = Encoder::new(self.format);
        match &self.args {
            None => encoder.pickle(&self.class)?,
            Some(args) => encoder.pickle(&PyValue::Tuple(vec![self.class.clone(), args.clone()]))?,
        }
        encoder.pickle(&self.state)?;
        Ok(encoder.finish())
    }

    /// The class, if it is given by its name.
    pub fn class_name(&self) -> Option<&Class> {
        match &self.class {
            PyValue::Class(class) => Some(class),
            _ => None,
        }
    }

    /// The class of a record whose state is not needed, or cannot be read.
    pub fn class_of(data: &[u8]) -> Option<ClassName> {
        class_name(data)
    }

    /// The objects of this database that a record refers to, as often as it does. Weak references do not count.
    ///
    /// Errors: it is no record.
    pub fn references_of(data: &[u8]) -> Result<Vec<Oid>, RecordError> {
        let mut oids = Vec::new();
        references(data, &mut oids).map_err(|what| RecordError::Unreadable { pos: 0, what })?;
        Ok(oids)
    }

    /// An attribute, if the state is a dict. (Classes with `__slots__` have a tuple of two dicts.)
    pub fn attribute(&self, name: &str) -> Option<&PyValue> {
        let is_it = |key: &PyValue| key.as_text() == Some(name);
        self.state.as_dict()?.iter().rev().find(|(key, _)| is_it(key)).map(|(_, value)| value)
    }

    /// Sets an attribute.
    ///
    /// Errors: the state is no dict.
    pub fn set_attribute(&mut self, name: &str, value: PyValue) -> Result<(), RecordError> {
        let native = self.format.native(name);
        let found = self.state.type_name();
        let PyValue::Dict(pairs) = self.state.plain_mut() else {
            return Err(RecordError::Unexpected { wanted: "a dict of attributes", found });
        };
        match pairs.iter_mut().rev().find(|(key, _)| key.as_text() == Some(name)) {
            Some((_, old)) => *old = value,
            None => pairs.push((native, value)),
        }
        Ok(())
    }
}
