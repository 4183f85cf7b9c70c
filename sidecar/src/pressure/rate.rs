//! How many connections a second may be accepted.
//!
//! Owns a token bucket, kept as one moment instead of a count: *paid until*, which each accepted connection moves on by
//! the time one of them is worth. The bucket is full when that moment has passed, and in debt when it is too far ahead.
//! So the whole state is one [`Time`], which workers can share in one atomic. It must never refuse what was already
//! accepted: a multishot accept can deliver more than was allowed, and that becomes a debt.

use std::time::Duration;

use crate::time::Time;

const SECOND_NANOS: u64 = 1_000_000_000;
/// A burst is a tenth of a second's worth: short beside any timeout, long beside a turn of the loop.
const BURST_NANOS: u64 = SECOND_NANOS / 10;
/// Debt is forgiven beyond this: a backlog delivered at once to a low rate must not close the door for an hour.
const LONGEST_DEBT: Duration = Duration::from_secs(10);

/// A rate of connections, with a burst of a tenth of a second's worth and at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What one connection is worth.
    each_nanos: u64,
    /// What a full bucket is worth.
    burst_nanos: u64,
    /// What has to be back in the bucket before a pause for the rate ends.
    resume_nanos: u64,
}

impl Rate {
    /// `per_second` connections a second; 0 is taken as 1. Rates above a billion are not told apart.
    #[must_use]
    pub fn per_second(per_second: u32) -> Self {
        let each_nanos = (SECOND_NANOS / u64::from(per_second.max(1))).max(1);
        let burst_nanos = BURST_NANOS.max(each_nanos);
        Rate {
            each_nanos,
            burst_nanos,
            resume_nanos: (burst_nanos / 2).max(each_nanos),
        }
    }

    /// The new *paid until* after `connections` were accepted at `now`.
    #[must_use]
    pub fn spend(&self, paid_until: Time, connections: u32, now: Time) -> Time {
        let cost = Duration::from_nanos(self.each_nanos.saturating_mul(u64::from(connections)));
        self.clamp(paid_until, now)
            .max(now)
            .saturating_add(cost)
            .min(self.latest(now))
    }

    /// Whether the bucket holds at least one connection.
    #[must_use]
    pub fn has_token(&self, paid_until: Time, now: Time) -> bool {
        now >= self.when_holding(self.each_nanos, self.clamp(paid_until, now))
    }

    /// When half of the burst will be back, if nothing more is accepted: the moment to resume, so that a pause for the
    /// rate is worth its cancel and its re-arm.
    #[must_use]
    pub fn resumes_at(&self, paid_until: Time, now: Time) -> Time {
        self.when_holding(self.resume_nanos, self.clamp(paid_until, now))
    }

    fn when_holding(&self, nanos: u64, paid_until: Time) -> Time {
        paid_until.saturating_sub(Duration::from_nanos(self.burst_nanos - nanos))
    }

    fn latest(&self, now: Time) -> Time {
        now.saturating_add(Duration::from_nanos(self.burst_nanos))
            .saturating_add(LONGEST_DEBT)
    }

    /// Bounds a moment that a clock stepping back, or a lowered rate, has left too far ahead.
    fn clamp(&self, paid_until: Time, now: Time) -> Time {
        paid_until.min(self.latest(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at_millis(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second() {
        let rate = Rate::per_second(5000);
        let now = at_millis(1000);
        assert!(rate.has_token(rate.spend(Time::ZERO, 499, now), now));
        let empty = rate.spend(Time::ZERO, 500, now);
        assert!(!rate.has_token(empty, now));
        assert_eq!(rate.resumes_at(empty, now), at_millis(1050));
    }

    #[test]
    fn a_slow_rate_still_lets_one_in() {
        let rate = Rate::per_second(1);
        let now = at_millis(5000);
        assert!(rate.has_token(Time::ZERO, now));
        let empty = rate.spend(Time::ZERO, 1, now);
        assert!(!rate.has_token(empty, now));
        assert_eq!(rate.resumes_at(empty, now), at_millis(6000));
    }

    #[test]
    fn debt_is_bounded() {
        let rate = Rate::per_second(1);
        let now = at_millis(5000);
        let paid_until = rate.spend(Time::ZERO, 4096, now);
        assert!(rate.resumes_at(paid_until, now) <= at_millis(16_000));
    }

    proptest! {
        #[test]
        fn accepts_no_more_than_the_rate_and_one_burst(per_second in 1..100_000u32,
                                                       gaps in prop::collection::vec(0..20_000_000u64, 1..300)) {
            let rate = Rate::per_second(per_second);
            let (mut paid_until, mut now, mut accepted) = (Time::ZERO, Time::from_nanos(SECOND_NANOS), 0u64);
            let first = now;
            for gap in gaps {
                now = now.saturating_add(Duration::from_nanos(gap));
                if rate.has_token(paid_until, now) {
                    paid_until = rate.spend(paid_until, 1, now);
                    accepted += 1;
                }
            }
            let seconds = now.saturating_since(first).as_secs_f64();
            prop_assert!(accepted as f64 <= f64::from(per_second) * (seconds + 0.1) * 1.001 + 2.0);
        }

        #[test]
        fn at_the_resume_moment_there_is_a_token(per_second: u32, paid_until: u64, spent: u32, now: u64) {
            let rate = Rate::per_second(per_second);
            let now = Time::from_nanos(now);
            let paid_until = rate.spend(Time::from_nanos(paid_until), spent, now);
            let resume = rate.resumes_at(paid_until, now).max(now);
            prop_assert!(rate.has_token(paid_until, resume));
            prop_assert!(resume.saturating_since(now) <= LONGEST_DEBT + Duration::from_secs(1));
        }
    }
}
