//! Exponential growth with full jitter: how long to wait after the nth failure in a row.

use rand::Rng;
use std::time::Duration;

/// Waits that grow: the nth is uniform in `[0, min(cap, base × 2ⁿ)]`, n from 0. Full jitter spreads
/// a fleet that failed together evenly over the interval (AWS Architecture Blog, "Exponential
/// Backoff And Jitter").
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits that begin below `base` and end below `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        rand::rng().random_range(Duration::ZERO..=ceiling)
    }

    /// Begins again, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The longest that the next wait can be.
    fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_begins_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut ceilings = Vec::new();
        for _ in 0..6 {
            ceilings.push(backoff.ceiling().as_millis());
            assert!(backoff.next_wait() <= Duration::from_secs(1));
        }
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        for _ in 0..100 {
            assert!(backoff.next_wait() <= Duration::from_secs(1), "no overflow after many failures");
        }
        backoff.reset();
        assert_eq!(backoff.ceiling().as_millis(), 100);
    }
}
