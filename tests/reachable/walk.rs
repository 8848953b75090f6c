//! Following references, level by level.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;

use crate::world::{Oid, State, Tid};

/// The objects that were reached.
#[derive(Default)]
pub struct Walked {
    pub states: BTreeMap<Oid, State>,
    /// One referring object for each object that is not a start.
    parents: HashMap<Oid, Oid>,
}

/// A reference to an object that could not be loaded.
pub struct Missing {
    pub oid: Oid,
    /// The path from the start to the object that refers to it.
    pub path: Vec<(Oid, Tid)>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (oid, serial) in &self.path {
            write!(f, "0x{oid:016x} (of {serial:016x}) -> ")?;
        }
        write!(f, "0x{:016x}", self.oid)
    }
}

impl Walked {
    /// The path from the start to this object, with serials.
    pub fn path(&self, oid: Oid) -> Vec<(Oid, Tid)> {
        let mut path = Vec::new();
        let mut at = Some(oid);
        while let Some(oid) = at {
            path.push((oid, self.states[&oid].serial));
            at = self.parents.get(&oid).copied();
        }
        path.reverse();
        path
    }

    pub fn blobs(&self) -> Vec<(Oid, Tid)> {
        self.states
            .iter()
            .filter(|(_, state)| state.is_blob)
            .map(|(oid, state)| (*oid, state.serial))
            .collect()
    }
}

/// Visits all objects that `start` leads to. `load` gets several objects at once; `None`: there is no such object.
pub fn walk(
    start: impl IntoIterator<Item = (Oid, State)>,
    mut load: impl FnMut(&[Oid]) -> io::Result<Vec<Option<State>>>,
) -> io::Result<Result<Walked, Missing>> {
    let mut walked = Walked { states: start.into_iter().collect(), ..Walked::default() };
    let mut level: Vec<Oid> = walked.states.keys().copied().collect();
    while !level.is_empty() {
        let mut next = Vec::new();
        for parent in level {
            for &oid in &walked.states[&parent].references {
                if !walked.states.contains_key(&oid) && !walked.parents.contains_key(&oid) {
                    walked.parents.insert(oid, parent);
                    next.push(oid);
                }
            }
        }
        for (oid, state) in next.iter().zip(load(&next)?) {
            let Some(state) = state else {
                return Ok(Err(Missing { oid: *oid, path: walked.path(walked.parents[oid]) }));
            };
            walked.states.insert(*oid, state);
        }
        level = next;
    }
    Ok(Ok(walked))
}
