//! Where records of a file are in its copy.

/// The new positions of what was copied: all moved by the same distance, until something becomes longer or is left out.
#[derive(Default)]
pub struct Moved {
    /// (old position, new position) where the distance changes; ascending.
    from: Vec<(u64, u64)>,
}

impl Moved {
    /// Begins again: what is at `old` is copied to `new`.
    pub fn begin(&mut self, old: u64, new: u64) {
        self.from = vec![(old, new)];
    }

    /// What is at `old`, and what follows it, was copied to `new`. `old` ascends.
    pub fn at(&mut self, old: u64, new: u64) {
        if self.to(old) != new {
            self.from.push((old, new));
        }
    }

    /// The new position of what was copied from `old`; 0 before anything was copied. Of what was left out, any
    /// position.
    pub fn to(&self, old: u64) -> u64 {
        let at = self.from.partition_point(|&(from, _)| from <= old);
        match at.checked_sub(1).and_then(|at| self.from.get(at)) {
            Some((from, new)) => new + (old - from),
            None => 0,
        }
    }
}
