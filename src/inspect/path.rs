//! A way from the root object to another one, by references between newest records.

use std::collections::HashMap;

use super::data_file::DataFile;
use super::objects::{Newest, RecordWalk};
use crate::base::ids::Oid;
use crate::storage::Result;

/// The oids from the root to `target`, a shortest way; `None`: the object is garbage, or missing.
///
/// Goes back from the target, and reads the file once for each step of the way, so that memory is taken only for the
/// objects on ways to the target. `progress` gets the number of the step and the position that was reached.
pub fn from_root(
    file: &DataFile,
    newest: &Newest,
    target: Oid,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<Vec<Oid>>> {
    // For each object the next one on its way to the target.
    let mut next: HashMap<Oid, Oid> = HashMap::from([(target, target)]);
    let mut step = 0;
    while !next.contains_key(&Oid::ZERO) {
        step += 1;
        let mut found: Vec<(Oid, Oid)> = Vec::new();
        let mut records = RecordWalk::new(file);
        let mut oids = Vec::new();
        while let Some((_, record)) = records.next_record()? {
            let oid = record.header.oid;
            if next.contains_key(&oid) || !newest.is_current(&record) {
                continue;
            }
            oids.clear();
            // What can be read up to damage counts, too.
            _ = records.references(&record, &mut oids)?;
            if let Some(to) = oids.iter().find(|to| next.contains_key(to)) {
                found.push((oid, *to));
            }
            progress(step, records.pos());
        }
        if found.is_empty() {
            return Ok(None);
        }
        next.extend(found);
    }
    let mut path = vec![Oid::ZERO];
    let mut at = Oid::ZERO;
    while at != target
        && let Some(to) = next.get(&at)
    {
        path.push(*to);
        at = *to;
    }
    Ok(Some(path))
}
