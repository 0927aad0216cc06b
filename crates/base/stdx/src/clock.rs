//! Wall-clock time as a value that is passed in.
//!
//! For timestamps shown to people (created, updated, certificate validity). Delays and deadlines use `tokio::time`.

use std::{fmt::Debug, sync::Arc, time::SystemTime};

/// A wall clock.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }
}

#[cfg(any(test, feature = "testing"))]
mod manual {
    use std::time::{Duration, SystemTime};

    use parking_lot::Mutex;

    use super::Clock;

    /// A clock that only tests move.
    #[derive(Debug)]
    pub struct ManualClock(Mutex<SystemTime>);

    impl ManualClock {
        /// A clock set to `now`.
        #[must_use]
        pub const fn at(now: SystemTime) -> Self {
            Self(Mutex::new(now))
        }

        /// Sets it to `now`, also backwards.
        pub fn set(&self, now: SystemTime) {
            *self.0.lock() = now;
        }

        /// Advances it.
        pub fn advance(&self, by: Duration) {
            *self.0.lock() += by;
        }
    }

    impl Default for ManualClock {
        /// Starts at 2024-04-19 00:00:00 UTC.
        fn default() -> Self {
            Self::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_713_484_800))
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> SystemTime {
            *self.0.lock()
        }
    }
}

#[cfg(any(test, feature = "testing"))]
pub use manual::ManualClock;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Arc::new(ManualClock::default());
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().duration_since(start).unwrap(), Duration::from_secs(5));
    }
}
