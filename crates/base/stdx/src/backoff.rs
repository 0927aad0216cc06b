//! Exponential backoff as arithmetic, without sleeping; random numbers only on request.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Delays that double from `initial` up to `max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// A backoff whose first step is `initial` and whose steps never exceed `max`.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, attempts: 0 }
    }

    /// The next delay: between half of the current step (`jitter` 0.0) and all of it (1.0). Moves to the next step.
    ///
    /// `jitter` outside 0.0..=1.0 is clamped; [`random_jitter`] is the usual argument.
    pub fn next_delay(&mut self, jitter: f64) -> Duration {
        let step = self.step();
        self.attempts = self.attempts.saturating_add(1);
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
        step.mul_f64(0.5 + jitter / 2.0)
    }

    /// Upper bound of the next delay.
    #[must_use]
    pub fn step(&self) -> Duration {
        let factor = 2u32.checked_pow(self.attempts).unwrap_or(u32::MAX);
        self.initial.checked_mul(factor).unwrap_or(self.max).min(self.max)
    }

    /// Delays returned since the last [`reset`](Self::reset).
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Restarts from `initial`.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A number in 0.0..1.0 that differs between calls; good enough to spread retries, not for secrets.
#[must_use]
pub fn random_jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    let bits = u32::try_from(bits).unwrap_or(u32::MAX);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_starts_again_after_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(3));
        let full: Vec<_> = (0..5).map(|_| backoff.next_delay(1.0).as_millis()).collect();
        assert_eq!(full, [500, 1000, 2000, 3000, 3000]);
        assert_eq!(backoff.attempts(), 5);
        backoff.reset();
        assert_eq!(backoff.next_delay(0.0), Duration::from_millis(250));
    }

    #[test]
    fn very_many_attempts_stay_at_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..100 {
            backoff.next_delay(1.0);
        }
        assert_eq!(backoff.next_delay(f64::NAN), Duration::from_secs(60));
    }

    #[test]
    fn jitter_lies_in_the_unit_interval_and_varies() {
        let draws: Vec<f64> = (0..64).map(|_| random_jitter()).collect();
        assert!(draws.iter().all(|d| (0.0..1.0).contains(d)), "{draws:?}");
        assert!(draws.iter().any(|d| (d - draws[0]).abs() > f64::EPSILON), "{draws:?}");
    }
}
