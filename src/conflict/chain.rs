//! The server's resolver: native merging, then helper processes.

use super::advice::Advice;
use super::helpers::Pool;
use super::native::{Merge, merge};
use super::{HelperOptions, Resolver, ThreeStates, Unresolved};
use crate::pickle::record::{ClassName, class_name};

/// Merges natively where that is possible; helper processes, if configured, merge the rest.
pub struct Chain {
    helpers: Option<Pool>,
    advice: Advice,
}

impl Chain {
    /// `helpers`: the configuration of the helper processes, if any. Fails if no thread can be started for them.
    pub fn new(helpers: Option<HelperOptions>) -> std::io::Result<Chain> {
        let helpers = helpers.map(Pool::start).transpose()?;
        Ok(Chain { helpers, advice: Advice::default() })
    }

    /// Ends the helper processes. Later conflicts are merged natively or not at all.
    pub fn stop(&self) {
        if let Some(helpers) = &self.helpers {
            helpers.stop();
        }
    }

    fn without_helpers(&self, states: &ThreeStates<'_>, merged: Merge) -> Result<Vec<u8>, Unresolved> {
        match merged {
            Merge::Resolved(record) => Ok(record),
            Merge::Refused(refusal) => Err(Unresolved { reason: refusal.to_string() }),
            Merge::Unknown(why) => {
                self.advice.give(&class_name(states.new).unwrap_or_else(ClassName::unknown));
                Err(Unresolved { reason: format!("the server cannot merge states of {why}") })
            }
        }
    }
}

impl Resolver for Chain {
    fn resolve(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Unresolved> {
        match (merge(states.old, states.committed, states.new), &self.helpers) {
            (Merge::Unknown(_), Some(helpers)) => helpers.resolve(states),
            (merged, _) => self.without_helpers(states, merged),
        }
    }

    fn resolve_now(&self, states: &ThreeStates<'_>) -> Option<Result<Vec<u8>, Unresolved>> {
        match (merge(states.old, states.committed, states.new), &self.helpers) {
            (Merge::Unknown(_), Some(_)) => None,
            (merged, _) => Some(self.without_helpers(states, merged)),
        }
    }
}
