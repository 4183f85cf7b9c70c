//! The time that decisions are told.
//!
//! Owns one number: nanoseconds since the worker's epoch. A real clock and a simulated one both make it. It never
//! reads a clock, and its arithmetic saturates, so that no deadline can overflow and no clock that steps back can panic.

use std::time::Duration;

/// A moment, in nanoseconds since the worker's epoch (when its process, or its simulation, began). It reaches about
/// 584 years; arithmetic beyond either end stays at that end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The epoch itself.
    pub const ZERO: Time = Time(0);
    /// The last moment there is; also what "never" saturates to.
    pub const MAX: Time = Time(u64::MAX);

    /// The moment `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `wait` later, or [`Time::MAX`] where that is out of reach.
    #[must_use]
    pub fn saturating_add(self, wait: Duration) -> Time {
        Time(self.0.saturating_add(saturating_nanos(wait)))
    }

    /// The moment `wait` earlier, or the epoch where that is out of reach.
    #[must_use]
    pub fn saturating_sub(self, wait: Duration) -> Time {
        Time(self.0.saturating_sub(saturating_nanos(wait)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn saturating_since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The nanoseconds of `wait`, or `u64::MAX` where a duration is longer than a [`Time`] can tell.
pub(crate) fn saturating_nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let late = Time::from_nanos(u64::MAX - 1);
        assert_eq!(late.saturating_add(Duration::MAX), Time::MAX);
        assert_eq!(Time::ZERO.saturating_sub(Duration::MAX), Time::ZERO);
        assert_eq!(Time::ZERO.saturating_since(late), Duration::ZERO);
        assert_eq!(
            late.saturating_since(Time::from_nanos(1)).as_nanos(),
            u128::from(u64::MAX) - 2
        );
    }
}
