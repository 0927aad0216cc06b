//! Differences of clocks: nanoseconds with a sign.

use std::fmt;
use std::time::Duration;

/// How far a clock is behind another one; negative if it is ahead. Less than 292 years.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(i64);

impl Offset {
    /// Of so many nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Of so many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// In nanoseconds.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Without its sign.
    #[must_use]
    pub const fn size(self) -> Duration {
        Duration::from_nanos(self.0.unsigned_abs())
    }

    /// In seconds, for statistics.
    #[must_use]
    pub const fn seconds(self) -> f64 {
        self.size().as_secs_f64() * if self.0 < 0 { -1.0 } else { 1.0 }
    }

    /// The difference to another one.
    #[must_use]
    pub const fn since(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", if self.0 < 0 { "-" } else { "" }, self.size())
    }
}
