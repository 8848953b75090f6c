//! Which records are trees of the BTrees package, and which of them are nodes of others.
//!
//! The memory is 8 to 20 bytes for each tree and each inner node. Buckets, which are the most, are not kept.

use std::collections::HashSet;

use crate::base::ids::Oid;
use crate::client::records::children_of;
use crate::conflict::native::class::{Form, Mergeable, mergeable};
use crate::inspect::data_file::DataFile;
use crate::inspect::objects::{Newest, RecordWalk};
use crate::inspect::record::{class_key, plain};
use crate::inspect::walk::FoundRecord;
use crate::pickle::refs::references;
use crate::storage::Result;

/// The trees of a file.
#[derive(Default)]
pub(super) struct Roots {
    /// BTrees and TreeSets, inner nodes included.
    trees: HashSet<Oid>,
    /// Nodes of other trees.
    parts: HashSet<Oid>,
    /// Others, to which an object refers.
    referred: HashSet<Oid>,
}

impl Roots {
    /// Reads the newest records, twice. `progress` gets the number of the pass and the position.
    pub(super) fn find(
        file: &DataFile,
        newest: &Newest,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Roots> {
        let mut roots = Roots::default();
        each_current(file, newest, &mut |record, data, pos| {
            if form_of(data).is_some_and(Form::is_tree) {
                roots.trees.insert(record.header.oid);
            }
            progress(0, pos);
            Ok(())
        })?;
        let mut oids = Vec::new();
        each_current(file, newest, &mut |_, data, pos| {
            let children = match form_of(data).is_some_and(Form::is_tree) {
                true => children_of(data),
                false => Vec::new(),
            };
            oids.clear();
            // What can be read up to damage counts, too.
            _ = references(data, &mut oids);
            let others = oids.iter().filter(|oid| roots.trees.contains(oid) && !children.contains(oid));
            roots.referred.extend(others);
            roots.parts.extend(children.iter().filter(|oid| roots.trees.contains(oid)));
            progress(1, pos);
            Ok(())
        })?;
        Ok(roots)
    }

    /// The trees that are no nodes of others, in the order of their oids.
    pub(super) fn roots(&self) -> Vec<Oid> {
        sorted(self.trees.difference(&self.parts))
    }

    /// Whether this may be an inner node of a tree: either it is, or it was before the tree was cleared, and is
    /// garbage now. The last bucket of such a node refers to the next one.
    pub(super) fn may_be_part(&self, oid: Oid) -> bool {
        self.parts.contains(&oid) || oid != Oid::ZERO && !self.referred.contains(&oid)
    }

    /// The nodes of other trees, in the order of their oids.
    pub(super) fn parts(&self) -> Vec<Oid> {
        sorted(self.parts.iter())
    }
}

fn sorted<'a>(oids: impl Iterator<Item = &'a Oid>) -> Vec<Oid> {
    let mut oids: Vec<Oid> = oids.copied().collect();
    oids.sort_unstable();
    oids
}

/// Gets a record, its data, and the position that was reached.
type Each<'a> = dyn FnMut(&FoundRecord, &[u8], u64) -> Result<()> + 'a;

/// Calls `each` with the newest record of each object, its data, and the position that was reached. Left out are
/// records that cannot be decompressed.
pub(super) fn each_current(file: &DataFile, newest: &Newest, each: &mut Each<'_>) -> Result<()> {
    let mut records = RecordWalk::new(file);
    while let Some((_, record)) = records.next_record()? {
        if !newest.is_current(&record) {
            continue;
        }
        let pos = records.pos();
        if let Ok(data) = plain(records.data(&record)?) {
            each(&record, &data, pos)?;
        }
    }
    Ok(())
}

/// Which of the four classes of a family a record has; `None`: another class.
pub(super) fn form_of(data: &[u8]) -> Option<Form> {
    let key = class_key(data)?;
    let at = memchr::memchr(b'\n', &key)?;
    match mergeable(key.get(..at)?, key.get(at + 1..)?)? {
        Mergeable::BTree(_, form) => Some(form),
        Mergeable::Counter(_) => None,
    }
}
