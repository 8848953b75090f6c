//! What a server says that a pack would remove.

use crate::base::ids::{Oid, Tid};
use crate::storage::{Dangling, PackPlan, Removal};
use crate::wire::value::Value;

/// References to objects that do not exist that are kept of an answer. A server names no more.
const DANGLING_MAX: usize = 10_000;

/// The plan in the dict that a server has answered. `None`: it is none.
pub fn plan_of(value: &Value) -> Option<PackPlan> {
    let number = |key: &str| number(value.get(key)?);
    let removal = |key: &str| {
        let (Value::Tuple(pair) | Value::List(pair)) = value.get(key)? else { return None };
        let [before, removed] = pair.as_slice() else { return None };
        Some(Removal { before: self::number(before)?, removed: self::number(removed)? })
    };
    let (Value::List(dangling) | Value::Tuple(dangling)) = value.get("dangling")? else { return None };
    Some(PackPlan {
        stop: Tid::from_slice(value.get("stop")?.string()?)?,
        objects: removal("objects")?,
        revisions: removal("revisions")?,
        transactions: removal("transactions")?,
        size: number("size")?,
        size_after: number("size-after")?,
        blobs: number("blobs")?,
        blob_bytes: number("blob-bytes")?,
        dangling_count: number("dangling-count")?,
        dangling: dangling.iter().take(DANGLING_MAX).map(reference).collect::<Option<_>>()?,
        // True and False are numbers for servers of Python 2.
        gc: !matches!(value.get("gc")?, Value::Bool(false) | Value::Int(0)),
        refusal: match value.get("refusal")? {
            Value::None => None,
            text => Some(String::from_utf8_lossy(text.string()?).into_owned()),
        },
        free: match value.get("free")? {
            Value::None => None,
            free => Some(self::number(free)?),
        },
    })
}

fn number(value: &Value) -> Option<u64> {
    let Value::Int(number) = value else { return None };
    u64::try_from(*number).ok()
}

fn reference(value: &Value) -> Option<Dangling> {
    let (Value::Tuple(pair) | Value::List(pair)) = value else { return None };
    let [from, to] = pair.as_slice() else { return None };
    let oid = |value: &Value| Oid::from_slice(value.string()?);
    let from = match from {
        Value::None => None,
        from => Some(oid(from)?),
    };
    Some(Dangling { from, to: oid(to)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plan_is_none() {
        assert_eq!(plan_of(&Value::None), None);
        assert_eq!(plan_of(&Value::dict([("stop", Value::bytes([0; 8]))])), None);
    }
}
