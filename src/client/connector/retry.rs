//! When to try an address again.

use std::time::Duration;

/// The first pause. The following ones are twice as long each, up to the shortest configured one.
const FIRST: Duration = Duration::from_millis(250);

/// The limits of the pauses between attempts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryLimits {
    /// `min-disconnect-poll`
    pub min: Duration,
    /// `max-disconnect-poll`
    pub max: Duration,
}

impl Default for RetryLimits {
    fn default() -> RetryLimits {
        RetryLimits { min: Duration::from_secs(5), max: Duration::from_secs(300) }
    }
}

/// The pauses after failures, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    /// Before it was shortened.
    last: Option<Duration>,
    starts_slow: bool,
}

impl Backoff {
    /// Begins with the minimum.
    pub fn without_haste() -> Backoff {
        Backoff { last: None, starts_slow: true }
    }

    /// The pause after one more failure: 0.25 s, doubled up to the minimum, then from the minimum doubled up to the
    /// maximum; each shortened by up to a half at random, so that a thousand clients of one server do not come back in
    /// the same instant.
    pub fn next(&mut self, limits: RetryLimits) -> Duration {
        let min = limits.min.max(FIRST);
        let max = limits.max.max(min);
        let pause = match self.last {
            None if self.starts_slow => min,
            None => FIRST,
            Some(last) if last < min => (2 * last).min(min),
            Some(last) => (2 * last).min(max),
        };
        self.last = Some(pause);
        shortened(pause)
    }

    /// The pause before the first attempt after a connection is lost.
    pub fn after_loss() -> Duration {
        FIRST - shortened(FIRST)
    }
}

/// Between half of `pause` and all of it, at random.
fn shortened(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without random numbers all clients wait equally long, which is no error.
    let _ = getrandom::fill(&mut random);
    pause.mul_f64(1.0 - f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_at_first_then_slower_up_to_the_maximum() {
        let seconds = Duration::from_secs_f64;
        for (limits, expected) in [
            (
                RetryLimits::default(),
                &[0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0][..],
            ),
            (RetryLimits { min: seconds(1.0), max: seconds(3.0) }, &[0.25, 0.5, 1.0, 2.0, 3.0, 3.0]),
            (RetryLimits { min: seconds(0.0), max: seconds(0.0) }, &[0.25, 0.25, 0.25]),
            (
                RetryLimits { min: seconds(9.0), max: seconds(3.0) },
                &[0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 9.0, 9.0],
            ),
        ] {
            let mut backoff = Backoff::default();
            for (number, pause) in expected.iter().enumerate() {
                let found = backoff.next(limits);
                assert!(
                    found <= seconds(*pause) && found >= seconds(*pause / 2.0),
                    "{number}: {found:?}, {pause}"
                );
            }
            for _ in 0..100 {
                assert!(backoff.next(limits) <= limits.max.max(limits.min).max(FIRST));
            }
        }
    }

    #[test]
    fn two_clients_do_not_wait_equally_long() {
        let pauses: std::collections::BTreeSet<_> =
            (0..100).map(|_| Backoff::default().next(RetryLimits::default())).collect();
        assert!(pauses.len() > 50, "{pauses:?}");
        assert!((0..100).all(|_| Backoff::after_loss() <= FIRST / 2));
    }
}
