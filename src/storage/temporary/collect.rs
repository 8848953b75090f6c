//! Counting references, and collecting objects whose last reference is gone.
//!
//! An object that never had a reference stays until a pack: its count has never decreased.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{COLLECTED_MAX, Contents, FORMER_AGE_MAX, Kept, Object, TemporaryStorage};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Pack, PackRequest, Result};

impl Pack for TemporaryStorage {
    /// Collects unreachable objects that the counts miss, for example cycles. The time of the request is ignored.
    fn pack(&self, _request: &PackRequest<'_>) -> Result<()> {
        let _committing = self.commits.hold();
        drop(self.read()?);
        self.state.write().collect_unreachable();
        Ok(())
    }
}

impl Contents {
    /// Sets an object's new state. Objects that lose their last reference by it are added to `zeros`; those that get a
    /// new one are removed.
    pub fn put(
        &mut self,
        oid: Oid,
        serial: Tid,
        data: Arc<[u8]>,
        references: Vec<Oid>,
        zeros: &mut BTreeSet<Oid>,
    ) {
        let before = self.objects.get(&oid).map(|object| object.references.clone()).unwrap_or_default();
        // Both are sorted.
        for gained in references.iter().filter(|to| before.binary_search(to).is_err()) {
            *self.counts.entry(*gained).or_default() += 1;
            zeros.remove(gained);
        }
        for lost in before.iter().filter(|to| references.binary_search(to).is_err()) {
            if self.discount(*lost) {
                zeros.insert(*lost);
            }
        }
        self.objects.insert(oid, Object { serial, references });
        self.states.insert((oid, serial), Kept { data, since: self.clock.now() });
    }

    /// Removes one reference. Returns whether it was the last.
    fn discount(&mut self, oid: Oid) -> bool {
        let Some(count) = self.counts.get_mut(&oid) else { return false };
        *count = count.saturating_sub(1);
        *count == 0
    }

    /// Removes objects, and all objects to which only they referred. The root stays.
    pub fn collect(&mut self, oids: impl IntoIterator<Item = Oid>) {
        let mut todo: Vec<Oid> = oids.into_iter().collect();
        while let Some(oid) = todo.pop() {
            if oid == Oid::ZERO {
                continue;
            }
            self.counts.remove(&oid);
            let former: Vec<Tid> = self.of(oid).map(|(tid, _)| tid).collect();
            for tid in former {
                self.states.remove(&(oid, tid));
            }
            self.collected.push_front(oid);
            self.collected.truncate(COLLECTED_MAX);
            let Some(object) = self.objects.remove(&oid) else { continue };
            for to in object.references {
                if self.discount(to) {
                    todo.push(to);
                }
            }
        }
    }

    /// Removes objects that are not reachable from the root.
    pub fn collect_unreachable(&mut self) {
        if !self.objects.contains_key(&Oid::ZERO) {
            return;
        }
        let mut alive = BTreeSet::new();
        let mut todo = vec![Oid::ZERO];
        while let Some(oid) = todo.pop() {
            if alive.insert(oid)
                && let Some(object) = self.objects.get(&oid)
            {
                todo.extend(&object.references);
            }
        }
        let dead: Vec<Oid> = self.objects.keys().filter(|oid| !alive.contains(oid)).copied().collect();
        self.collect(dead);
    }

    /// Removes former states that are too old, at intervals of [`FORMER_AGE_MAX`].
    pub fn forget_former(&mut self) {
        let now = self.clock.now();
        if now.duration_since(self.looked_through) < FORMER_AGE_MAX {
            return;
        }
        self.looked_through = now;
        let objects = &self.objects;
        self.states.retain(|(oid, tid), kept| {
            let is_current = objects.get(oid).is_some_and(|object| object.serial == *tid);
            is_current || now.duration_since(kept.since) <= FORMER_AGE_MAX
        });
    }
}
