//! How long to wait before submitting again after pushback.
//!
//! Owns the delays of one episode: from the first pushback to the next submission that the kernel takes. The delay is
//! spent inside the kernel's wait for completions, so a completion ends it early. It must never decide to give up what
//! is queued: after `max_retries` it keeps answering, and only says once that patience has ended (a stall).

use std::time::Duration;

use crate::time::saturating_nanos;

/// No delay is shorter than this: a wait of less costs more in system calls than it can gain, and would be spinning.
pub const SHORTEST_WAIT: Duration = Duration::from_micros(10);

/// How a delay is drawn below its ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// Anywhere from the floor to the ceiling: the fewest calls when many contend.
    #[default]
    Full,
    /// Anywhere in the upper half.
    Equal,
    /// The ceiling itself.
    None,
}

/// What bounds the delays. Any values are safe; those out of range are clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffLimits {
    /// The first delay's ceiling; from [`SHORTEST_WAIT`] to `max`, 50 us by default.
    pub initial: Duration,
    /// The highest ceiling; at least [`SHORTEST_WAIT`], 50 ms by default.
    pub max: Duration,
    /// What each ceiling is of the one before it, in percent; 100 to 1000, 200 by default.
    pub multiplier_percent: u32,
    /// How a delay is drawn below its ceiling.
    pub jitter: Jitter,
    /// Retries before an episode counts as a stall; any number, 10 by default.
    pub max_retries: u32,
}

impl Default for BackoffLimits {
    fn default() -> Self {
        BackoffLimits {
            initial: Duration::from_micros(50),
            max: Duration::from_millis(50),
            multiplier_percent: 200,
            jitter: Jitter::Full,
            max_retries: 10,
        }
    }
}

/// One answer of [`Backoff::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long to wait for completions before submitting again; never below [`SHORTEST_WAIT`], never above `max`.
    pub wait: Duration,
    /// Which delay of this episode it is, from 1.
    pub attempt: u32,
    /// True for exactly one delay of an episode, the first after `max_retries`: count the stall, log it, shed load.
    pub exhausted: bool,
}

/// Jittered exponential backoff. Call [`next`](Backoff::next) at each pushback and [`reset`](Backoff::reset) when a
/// submission was taken whole.
#[derive(Clone, Debug)]
pub struct Backoff {
    limits: BackoffLimits,
    attempt: u32,
    ceiling_nanos: u64,
    stalled: bool,
}

impl Backoff {
    /// A backoff at rest.
    #[must_use]
    pub fn new(limits: BackoffLimits) -> Self {
        let mut backoff = Backoff {
            limits,
            attempt: 0,
            ceiling_nanos: 0,
            stalled: false,
        };
        backoff.set_limits(limits);
        backoff
    }

    /// Takes new limits; an episode under way goes on under them.
    pub fn set_limits(&mut self, limits: BackoffLimits) {
        let max = limits.max.max(SHORTEST_WAIT);
        self.limits = BackoffLimits {
            initial: limits.initial.clamp(SHORTEST_WAIT, max),
            max,
            multiplier_percent: limits.multiplier_percent.clamp(100, 1000),
            ..limits
        };
        self.ceiling_nanos = self.ceiling_nanos.min(saturating_nanos(max));
    }

    /// The delay to spend now; `random` is any 64 evenly distributed bits.
    pub fn next(&mut self, random: u64) -> Delay {
        let max = saturating_nanos(self.limits.max);
        let exhausted = !self.stalled && self.attempt >= self.limits.max_retries;
        self.stalled |= exhausted;
        self.ceiling_nanos = if self.stalled {
            max
        } else if self.attempt == 0 {
            saturating_nanos(self.limits.initial)
        } else {
            let grown =
                u128::from(self.ceiling_nanos) * u128::from(self.limits.multiplier_percent) / 100;
            u64::try_from(grown).unwrap_or(u64::MAX).min(max)
        };
        self.attempt = self.attempt.saturating_add(1);
        let wait = draw(self.floor_nanos(), self.ceiling_nanos, random);
        Delay {
            wait: Duration::from_nanos(wait),
            attempt: self.attempt,
            exhausted,
        }
    }

    /// Ends the episode: the kernel took what it was offered.
    pub fn reset(&mut self) {
        self.attempt = 0;
        self.ceiling_nanos = 0;
        self.stalled = false;
    }

    /// Delays given in this episode; 0 at rest.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether this episode has outlasted `max_retries`.
    #[cfg(test)]
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The shortest delay under the present ceiling.
    ///
    /// Full jitter down to zero would retry at once every so often, which is what backing off is meant to avoid; an
    /// eighth of `initial` (or [`SHORTEST_WAIT`]) keeps nearly all of its spread. In a stall contention is no longer
    /// the question, and each round costs two system calls (wait, retry): the upper half of `max` keeps a stalled
    /// worker at no more than 40 rounds a second with the default 50 ms, a sleeper rather than a spinner.
    fn floor_nanos(&self) -> u64 {
        let ceiling = self.ceiling_nanos;
        let lowest = saturating_nanos(SHORTEST_WAIT);
        let floor = match self.limits.jitter {
            Jitter::None => ceiling,
            Jitter::Equal => ceiling / 2,
            Jitter::Full if self.stalled => ceiling / 2,
            Jitter::Full => saturating_nanos(self.limits.initial) / 8,
        };
        floor.max(lowest).min(ceiling)
    }
}

/// Spreads 64 random bits evenly over `floor..=ceiling`.
fn draw(floor: u64, ceiling: u64, random: u64) -> u64 {
    let width = u128::from(ceiling.saturating_sub(floor)) + 1;
    let offset = (u128::from(random) * width) >> 64;
    floor.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jitters() -> impl Strategy<Value = Jitter> {
        prop_oneof![Just(Jitter::Full), Just(Jitter::Equal), Just(Jitter::None)]
    }

    fn any_limits() -> impl Strategy<Value = BackoffLimits> {
        (
            any::<Duration>(),
            any::<Duration>(),
            any::<u32>(),
            jitters(),
            0..40u32,
        )
            .prop_map(|(initial, max, multiplier_percent, jitter, max_retries)| {
                BackoffLimits {
                    initial,
                    max,
                    multiplier_percent,
                    jitter,
                    max_retries,
                }
            })
    }

    fn usual_limits() -> impl Strategy<Value = BackoffLimits> {
        (1..2_000u64, 0..200_000u64, 0..1_500u32, jitters(), 0..20u32).prop_map(
            |(initial, more, multiplier_percent, jitter, max_retries)| BackoffLimits {
                initial: Duration::from_micros(initial),
                max: Duration::from_micros(initial + more),
                multiplier_percent,
                jitter,
                max_retries,
            },
        )
    }

    #[test]
    fn the_default_doubles_from_50_us_to_50_ms_in_ten_retries() {
        let mut backoff = Backoff::new(BackoffLimits {
            jitter: Jitter::None,
            ..BackoffLimits::default()
        });
        let waits: Vec<u128> = (0..12).map(|_| backoff.next(0).wait.as_micros()).collect();
        assert_eq!(
            waits,
            [
                50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 50000, 50000
            ]
        );
    }

    #[test]
    fn full_jitter_spans_floor_to_ceiling() {
        let limits = BackoffLimits {
            initial: Duration::from_millis(8),
            ..BackoffLimits::default()
        };
        assert_eq!(Backoff::new(limits).next(0).wait, Duration::from_millis(1));
        assert_eq!(
            Backoff::new(limits).next(u64::MAX).wait,
            Duration::from_millis(8)
        );
        assert_eq!(
            Backoff::new(BackoffLimits::default()).next(0).wait,
            SHORTEST_WAIT
        );
    }

    #[test]
    fn a_stalled_worker_sleeps_at_least_half_of_max_even_without_growth() {
        let mut backoff = Backoff::new(BackoffLimits {
            multiplier_percent: 100,
            ..BackoffLimits::default()
        });
        for _ in 0..10 {
            assert!(backoff.next(u64::MAX).wait <= Duration::from_micros(50));
        }
        assert!(backoff.next(0).exhausted);
        assert!(backoff.next(0).wait >= Duration::from_millis(25));
    }

    proptest! {
        #[test]
        fn every_delay_is_within_bounds(limits in prop_oneof![any_limits(), usual_limits()],
                                        randoms in prop::collection::vec(any::<u64>(), 1..60)) {
            let mut backoff = Backoff::new(limits);
            for (index, random) in randoms.into_iter().enumerate() {
                let delay = backoff.next(random);
                prop_assert!(delay.wait >= SHORTEST_WAIT);
                prop_assert!(delay.wait <= limits.max.max(SHORTEST_WAIT));
                prop_assert!(delay.wait <= Duration::from_nanos(backoff.ceiling_nanos));
                prop_assert_eq!(delay.attempt as usize, index + 1);
            }
        }

        #[test]
        fn the_ceiling_never_falls_within_an_episode(limits in usual_limits(), random: u64) {
            let mut backoff = Backoff::new(limits);
            let mut before = 0;
            for _ in 0..60 {
                backoff.next(random);
                prop_assert!(backoff.ceiling_nanos >= before);
                before = backoff.ceiling_nanos;
            }
            prop_assert_eq!(Duration::from_nanos(before), limits.max.max(SHORTEST_WAIT));
        }

        #[test]
        fn a_stall_is_told_once_per_episode(limits in any_limits(), episodes in prop::collection::vec(0..80u32, 1..5)) {
            let mut backoff = Backoff::new(limits);
            for pushbacks in episodes {
                let told = (0..pushbacks).filter(|_| backoff.next(7).exhausted).count();
                prop_assert_eq!(told, usize::from(pushbacks > limits.max_retries));
                prop_assert_eq!(backoff.is_stalled(), pushbacks > limits.max_retries);
                backoff.reset();
                prop_assert_eq!(backoff.attempt(), 0);
            }
        }

        #[test]
        fn limits_may_change_at_any_moment(changes in prop::collection::vec((any_limits(), any::<u64>()), 1..40)) {
            let mut backoff = Backoff::new(BackoffLimits::default());
            let mut told = 0;
            for (limits, random) in changes {
                backoff.set_limits(limits);
                let delay = backoff.next(random);
                prop_assert!(delay.wait >= SHORTEST_WAIT && delay.wait <= limits.max.max(SHORTEST_WAIT));
                told += u32::from(delay.exhausted);
            }
            prop_assert!(told <= 1);
        }
    }
}
