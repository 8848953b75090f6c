//! Writes a tree as Python would pickle the values that it was read from, byte for byte: for the extension of a
//! transaction, which Python's server decodes from the message and pickles for the file.
//!
//! Both Pythons keep written objects in a memo and write a reference where the same object (not an equal one) occurs
//! again. Nodes stand for objects.

use std::collections::HashMap;

use super::opcode::*;
use super::value::{MadeBy, Node, NodeId, Object, Tree};
use super::write::{self, Dialect};

/// The value cannot be written: it contains itself in a way that no opcode expresses, or is not for this protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CannotWrite;

/// Number of items that Python writes between two marks.
const BATCH: usize = 1000;

/// Pickles the value `id` of `tree` as a Python of this dialect does: protocol 1 or 3.
pub fn rewrite(tree: &Tree<'_>, id: NodeId, dialect: Dialect) -> Result<Vec<u8>, CannotWrite> {
    let mut writer = Writer {
        tree,
        dialect,
        out: Vec::new(),
        memo: HashMap::new(),
        uses: HashMap::new(),
        tasks: vec![Task::Stop, Task::Value { id, held: true }],
        left: tree.len().saturating_mul(8).saturating_add(4096),
    };
    if dialect == Dialect::Python2 {
        writer.count_uses(id)?;
    }
    write::start(dialect, &mut writer.out);
    while let Some(task) = writer.tasks.pop() {
        writer.run(task)?;
        if writer.out.len() > writer.left {
            return Err(CannotWrite);
        }
    }
    Ok(writer.out)
}

/// A part that is still to be written.
enum Task {
    /// A value. `held`: something besides its container refers to it while Python 2 writes it.
    Value {
        id: NodeId,
        held: bool,
    },
    /// The items of a list or set from this position on.
    Items(NodeId, usize),
    /// The pairs of a dict from this position on.
    Pairs(NodeId, usize),
    /// The items of a tuple from this position on, and its end. One task for any number of items: a tuple that contains
    /// itself is started at each occurrence inside itself, before any of it is in the memo.
    Tuple {
        id: NodeId,
        from: usize,
        held: bool,
    },
    /// The end of an instance whose class and arguments are written.
    EndObject(NodeId),
    Opcode(u8),
    Stop,
}

/// The identity of objects in Python's memo, except for singletons.
#[derive(Eq, Hash, PartialEq)]
enum Key {
    Node(NodeId),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Global(Vec<u8>, Vec<u8>),
}

struct Writer<'t, 'a> {
    tree: &'t Tree<'a>,
    dialect: Dialect,
    out: Vec<u8>,
    memo: HashMap<Key, usize>,
    /// Number of containers that hold each node.
    uses: HashMap<NodeId, usize>,
    tasks: Vec<Task>,
    /// Bytes that may still be written: shared values that are not in the memo (numbers) must not multiply.
    left: usize,
}

impl Writer<'_, '_> {
    fn run(&mut self, task: Task) -> Result<(), CannotWrite> {
        match task {
            Task::Value { id, held } => self.value(id, held),
            Task::Items(id, from) => self.items(id, from),
            Task::Pairs(id, from) => self.pairs(id, from),
            Task::Tuple { id, from, held } => self.tuple(id, from, held),
            Task::EndObject(id) => self.end_object(id),
            Task::Opcode(opcode) => {
                self.out.push(opcode);
                Ok(())
            }
            Task::Stop => {
                self.out.push(STOP);
                Ok(())
            }
        }
    }

    fn value(&mut self, id: NodeId, held: bool) -> Result<(), CannotWrite> {
        let tree = self.tree;
        let node = tree.node(id);
        match node {
            Node::None => self.out.push(NONE),
            Node::Bool(value) => write::put_bool(self.dialect, *value, &mut self.out),
            Node::Float(value) => write::put_float(*value, &mut self.out),
            // In Python 2 the opcode distinguishes `int` and `long`, so the client's opcode is kept.
            Node::Int(_) | Node::BigInt(_) if self.dialect == Dialect::Python2 => {
                self.out.extend_from_slice(tree.encoded(id).ok_or(CannotWrite)?);
            }
            Node::Int(value) => write::put_int(self.dialect, *value, &mut self.out),
            Node::BigInt(value) => write::put_big_int(value, &mut self.out),
            Node::Bytes(value) | Node::Str(value) | Node::Text(value) => {
                // Before the string is read: a long one may occur in many places.
                if value.len() > 1 && self.remembered(&Key::Node(id)) {
                    return Ok(());
                }
                let is_text = match node {
                    Node::Text(_) => true,
                    // what an unpickler of Python 3 makes of a `str` of Python 2
                    Node::Str(value) => self.dialect == Dialect::Python3 && value.is_ascii(),
                    _ => false,
                };
                // In Python 3 these are singletons; Python 2 does not put them into its memo.
                let single = value.len() < 2;
                let key = match (single, is_text) {
                    (false, _) => Key::Node(id),
                    (true, true) => Key::Text(value.to_vec()),
                    (true, false) => Key::Bytes(value.to_vec()),
                };
                let forget = single && self.dialect == Dialect::Python2;
                if single && !forget && self.remembered(&key) {
                    return Ok(());
                }
                if is_text {
                    let len = u32::try_from(value.len()).map_err(|_| CannotWrite)?;
                    self.out.push(BINUNICODE);
                    self.out.extend_from_slice(&len.to_le_bytes());
                    self.out.extend_from_slice(value);
                } else {
                    write::put_bytes(self.dialect, value, &mut self.out);
                }
                if !forget {
                    self.remember(key, held, id);
                }
            }
            Node::Tuple(items) if items.is_empty() => self.out.push(EMPTY_TUPLE),
            Node::Tuple(items) => {
                if self.remembered(&Key::Node(id)) {
                    return Ok(());
                }
                write::begin_tuple(self.dialect, items.len(), &mut self.out);
                self.tasks.push(Task::Tuple { id, from: 0, held });
            }
            Node::List(items) => {
                if self.remembered(&Key::Node(id)) {
                    return Ok(());
                }
                self.out.push(EMPTY_LIST);
                self.remember(Key::Node(id), held || !items.is_empty(), id);
                match items.as_slice() {
                    [] => {}
                    [only] => {
                        self.tasks.push(Task::Opcode(APPEND));
                        self.tasks.push(Task::Value { id: *only, held: true });
                    }
                    _ => self.tasks.push(Task::Items(id, 0)),
                }
            }
            Node::Dict(pairs) => {
                if self.remembered(&Key::Node(id)) {
                    return Ok(());
                }
                self.out.push(EMPTY_DICT);
                self.remember(Key::Node(id), held || !pairs.is_empty(), id);
                match pairs.as_slice() {
                    [] => {}
                    [(key, value)] => {
                        self.tasks.push(Task::Opcode(SETITEM));
                        self.tasks.push(Task::Value { id: *value, held: false });
                        self.tasks.push(Task::Value { id: *key, held: false });
                    }
                    _ => self.tasks.push(Task::Pairs(id, 0)),
                }
            }
            Node::Global { module, name } => {
                let module = match (module.as_ref(), self.dialect) {
                    (b"builtins", Dialect::Python2) => b"__builtin__".as_slice(),
                    (b"__builtin__", Dialect::Python3) => b"builtins".as_slice(),
                    (module, _) => module,
                };
                let key = Key::Global(module.to_vec(), name.to_vec());
                if self.remembered(&key) {
                    return Ok(());
                }
                self.out.push(GLOBAL);
                self.out.extend_from_slice(module);
                self.out.push(b'\n');
                self.out.extend_from_slice(name);
                self.out.push(b'\n');
                self.remember(key, true, id);
            }
            Node::Object(object) => {
                if self.remembered(&Key::Node(id)) {
                    return Ok(());
                }
                self.object(id, object)?;
            }
            // Python's server refuses these in a message, or they need a later protocol.
            Node::Set(_)
            | Node::FrozenSet(_)
            | Node::ByteArray(_)
            | Node::Extension(_)
            | Node::Persistent(_) => {
                return Err(CannotWrite);
            }
        }
        Ok(())
    }

    /// A container without an opcode of its own: a class, its arguments, REDUCE.
    fn object(&mut self, id: NodeId, object: &Object) -> Result<(), CannotWrite> {
        let plain = object.state.is_none() && object.items.is_empty() && object.pairs.is_empty();
        if object.made_by != MadeBy::Reduce || !plain {
            return Err(CannotWrite);
        }
        self.tasks.push(Task::EndObject(id));
        self.tasks.push(Task::Value { id: object.args, held: false });
        self.tasks.push(Task::Value { id: object.class, held: true });
        Ok(())
    }

    fn end_object(&mut self, id: NodeId) -> Result<(), CannotWrite> {
        self.out.push(REDUCE);
        self.remember(Key::Node(id), true, id);
        Ok(())
    }

    fn items(&mut self, id: NodeId, from: usize) -> Result<(), CannotWrite> {
        let Node::List(items) = self.tree.node(id) else { return Err(CannotWrite) };
        let batch = items.get(from..).unwrap_or_default();
        let batch = batch.get(..BATCH).unwrap_or(batch);
        self.out.push(MARK);
        if from + batch.len() < items.len() {
            self.tasks.push(Task::Items(id, from + batch.len()));
        }
        self.tasks.push(Task::Opcode(APPENDS));
        self.tasks.extend(batch.iter().rev().map(|id| Task::Value { id: *id, held: true }));
        Ok(())
    }

    fn pairs(&mut self, id: NodeId, from: usize) -> Result<(), CannotWrite> {
        let Node::Dict(pairs) = self.tree.node(id) else { return Err(CannotWrite) };
        let batch = pairs.get(from..).unwrap_or_default();
        let batch = batch.get(..BATCH).unwrap_or(batch);
        self.out.push(MARK);
        if from + batch.len() < pairs.len() {
            self.tasks.push(Task::Pairs(id, from + batch.len()));
        }
        self.tasks.push(Task::Opcode(SETITEMS));
        for (key, value) in batch.iter().rev() {
            self.tasks.push(Task::Value { id: *value, held: false });
            self.tasks.push(Task::Value { id: *key, held: false });
        }
        Ok(())
    }

    fn tuple(&mut self, id: NodeId, from: usize, held: bool) -> Result<(), CannotWrite> {
        let Node::Tuple(items) = self.tree.node(id) else { return Err(CannotWrite) };
        let Some(item) = items.get(from) else { return self.end_tuple(id, held) };
        self.tasks.push(Task::Tuple { id, from: from + 1, held });
        self.tasks.push(Task::Value { id: *item, held: false });
        Ok(())
    }

    fn end_tuple(&mut self, id: NodeId, held: bool) -> Result<(), CannotWrite> {
        let Node::Tuple(items) = self.tree.node(id) else { return Err(CannotWrite) };
        // A tuple that contains itself, in a list: it was already written inside itself.
        if self.memo.contains_key(&Key::Node(id)) {
            match (items.len(), self.dialect) {
                (count @ 1..=3, Dialect::Python3) => self.out.extend(std::iter::repeat_n(POP, count)),
                _ => self.out.push(POP_MARK),
            }
            self.remembered(&Key::Node(id));
            return Ok(());
        }
        write::end_tuple(self.dialect, items.len(), &mut self.out);
        self.remember(Key::Node(id), held, id);
        Ok(())
    }

    /// Writes a reference if the object is in the memo.
    fn remembered(&mut self, key: &Key) -> bool {
        let Some(index) = self.memo.get(key) else { return false };
        match (u8::try_from(*index), u32::try_from(*index)) {
            (Ok(index), _) => self.out.extend_from_slice(&[BINGET, index]),
            (_, index) => {
                self.out.push(LONG_BINGET);
                self.out.extend_from_slice(&index.unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        true
    }

    /// Puts the written object into the memo. Python 2 does so only if something besides its container refers to it
    /// (its pickler holds the items of a list while it writes them, but not those of dicts and tuples), and for lists
    /// and dicts that are not empty; it counts from one.
    fn remember(&mut self, key: Key, held: bool, id: NodeId) {
        let index = match self.dialect {
            Dialect::Python2 => {
                if !held && self.uses.get(&id).is_none_or(|uses| *uses < 2) {
                    return;
                }
                self.memo.len() + 1
            }
            Dialect::Python3 => self.memo.len(),
        };
        match (u8::try_from(index), u32::try_from(index)) {
            (Ok(index), _) => self.out.extend_from_slice(&[BINPUT, index]),
            (_, index) => {
                self.out.push(LONG_BINPUT);
                self.out.extend_from_slice(&index.unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        self.memo.insert(key, index);
    }

    /// Counts the containers that hold each node.
    fn count_uses(&mut self, root: NodeId) -> Result<(), CannotWrite> {
        let mut todo = vec![root];
        while let Some(id) = todo.pop() {
            let uses = self.uses.entry(id).or_default();
            *uses += 1;
            if *uses > 1 {
                continue;
            }
            match self.tree.node(id) {
                Node::Tuple(items) | Node::List(items) => todo.extend(items),
                Node::Dict(pairs) => todo.extend(pairs.iter().flat_map(|(key, value)| [*key, *value])),
                Node::Object(object) => todo.extend([object.class, object.args]),
                _ => {}
            }
        }
        Ok(())
    }
}
