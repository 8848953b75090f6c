//! New object ids: the sequence `zoid_seq` of the database, whose value n stands for the 16 ids up to 16 n.

use super::session::malformed;
use super::shared::DatabaseState;
use crate::base::ids::Oid;
use crate::base::sync::{AtomicU64, Ordering};
use crate::postgres::{Statement, Type};
use crate::storage::{Result, StorageError};

/// Ids for each value of the sequence.
const IDS: u64 = 16;
/// Values drawn at once.
const VALUES_MAX: usize = 10_000;
/// Up to this many values, ids that a client has chosen are passed by drawing them; a larger gap by setting the
/// sequence.
const GAP_DRAWN: u64 = 1000;

static DRAW: Statement =
    Statement { sql: "select nextval('zoid_seq') from generate_series(1, $1)", types: &[Type::Int8] };
/// Under a lock, because two servers that set it at once could set it back.
static SET: Statement = Statement {
    sql: "select setval('zoid_seq', greatest($1, s.last_value)) \
          from (select pg_advisory_xact_lock(5915983, 2)) l, zoid_seq s",
    types: &[Type::Int8],
};

/// What is known of the sequence.
#[derive(Default)]
pub struct Oids {
    /// The greatest id that the sequence has passed, as far as this server knows.
    passed: AtomicU64,
}

impl Oids {
    /// `count` ids that were never given out before, ascending.
    pub fn draw(&self, shared: &DatabaseState, count: usize) -> Result<Vec<Oid>> {
        let mut oids = Vec::new();
        while oids.len() < count {
            let values = (count - oids.len()).div_ceil(IDS as usize).min(VALUES_MAX);
            let rows = shared.ask(&DRAW, &[values as i64])?;
            for row in rows.iter() {
                let value = u64::try_from(row.required_int8(0)?).ok();
                let end =
                    value.and_then(|value| value.checked_mul(IDS)).filter(|end| *end <= i64::MAX as u64);
                let Some(end) = end.filter(|end| *end >= IDS) else {
                    return Err(StorageError::Unsupported("there are no more object ids".into()));
                };
                oids.extend((end - IDS + 1..=end).map(Oid));
                self.passed.fetch_max(end, Ordering::Relaxed);
            }
            if rows.is_empty() {
                return Err(malformed("an object id"));
            }
        }
        oids.sort_unstable();
        oids.truncate(count);
        Ok(oids)
    }

    /// Makes sure that no id up to `oid` is given out, because a client stores that object.
    pub fn pass(&self, shared: &DatabaseState, oid: Oid) -> Result<()> {
        let wanted = oid.0.div_ceil(IDS);
        while self.passed.load(Ordering::Relaxed) < oid.0 {
            self.draw(shared, 1)?;
            let value = self.passed.load(Ordering::Relaxed) / IDS;
            let missing = wanted.saturating_sub(value);
            if missing > GAP_DRAWN {
                shared.ask(&SET, &[wanted as i64])?;
                self.passed.fetch_max(wanted.saturating_mul(IDS), Ordering::Relaxed);
            } else if missing > 0 {
                self.draw(shared, (missing * IDS) as usize)?;
            }
        }
        Ok(())
    }
}
