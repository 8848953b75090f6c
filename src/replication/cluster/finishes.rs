//! Which finishes of clients may begin, and how many have no outcome yet.

use crate::base::sync::{Arc, AtomicUsize, Ordering};

/// Finishes are not permitted. The other bits count those that are under way.
const FORBIDDEN: usize = 1 << (usize::BITS - 1);

/// Finishes of one storage.
///
/// Permission and count are one number, so a finish that begins is either counted or sees that it is forbidden: when
/// finishes are forbidden and then none is counted, none is under way.
#[derive(Debug)]
pub struct Finishes(AtomicUsize);

impl Finishes {
    pub fn new(are_permitted: bool) -> Finishes {
        Finishes(AtomicUsize::new(if are_permitted { 0 } else { FORBIDDEN }))
    }

    pub fn permit(&self) {
        self.0.fetch_and(!FORBIDDEN, Ordering::SeqCst);
    }

    pub fn forbid(&self) {
        self.0.fetch_or(FORBIDDEN, Ordering::SeqCst);
    }

    pub fn are_permitted(&self) -> bool {
        self.0.load(Ordering::SeqCst) & FORBIDDEN == 0
    }

    /// A finish begins, and is counted until the result is dropped. `None`: it must not.
    pub fn begin(self: &Arc<Finishes>) -> Option<Counted> {
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(Arc::clone(self));
        (before & FORBIDDEN == 0).then_some(counted)
    }

    /// Whether none is counted.
    pub fn have_ended(&self) -> bool {
        self.0.load(Ordering::SeqCst) & !FORBIDDEN == 0
    }
}

/// A finish that is under way.
#[derive(Debug)]
pub struct Counted(Arc<Finishes>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
