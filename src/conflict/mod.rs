//! Conflict resolution: who merges the states of an object that two transactions changed.
//!
//! First [`native`], which knows the classes of the BTrees package and a few others. For the rest,
//! processes of the Python that `conflict-resolver` names do it with the application's classes ([`helpers`]).
//! What nobody merges stays a conflict, and the client tries its transaction again.

mod advice;
mod helpers;
pub mod native;
mod options;

use advice::Advice;
use helpers::Pool;
use native::{Merge, merge};
pub use options::{HelperOptions, User};

use crate::pickle::record::{ClassName, class_name};
use crate::storage::{Clash, Resolver, Unresolved};

/// Python's logger of these matters.
pub const LOG: &str = "ZODB.ConflictResolution";

/// All ways of the server to resolve conflicts, tried in order.
pub struct Chain {
    helpers: Option<Pool>,
    advice: Advice,
}

impl Chain {
    /// `settings`: of helpers, if they are configured.
    pub fn new(settings: Option<HelperOptions>) -> std::io::Result<Chain> {
        let helpers = settings.map(Pool::start).transpose()?;
        Ok(Chain { helpers, advice: Advice::default() })
    }

    /// Ends the helper processes; conflicts from now on stay conflicts.
    pub fn stop(&self) {
        if let Some(helpers) = &self.helpers {
            helpers.stop();
        }
    }

    fn without_helpers(&self, clash: &Clash<'_>, merged: Merge) -> Result<Vec<u8>, Unresolved> {
        match merged {
            Merge::Resolved(record) => Ok(record),
            Merge::Refused(refusal) => Err(Unresolved { reason: refusal.to_string() }),
            Merge::Unknown(why) => {
                self.advice.give(&class_name(clash.new).unwrap_or_else(ClassName::unknown));
                Err(Unresolved { reason: format!("nothing here merges states of {why}") })
            }
        }
    }
}

impl Resolver for Chain {
    fn resolve(&self, clash: &Clash<'_>) -> Result<Vec<u8>, Unresolved> {
        match (merge(clash.old, clash.committed, clash.new), &self.helpers) {
            (Merge::Unknown(_), Some(helpers)) => helpers.resolve(clash),
            (merged, _) => self.without_helpers(clash, merged),
        }
    }

    fn resolve_now(&self, clash: &Clash<'_>) -> Option<Result<Vec<u8>, Unresolved>> {
        match (merge(clash.old, clash.committed, clash.new), &self.helpers) {
            (Merge::Unknown(_), Some(_)) => None,
            (merged, _) => Some(self.without_helpers(clash, merged)),
        }
    }
}
