//! How long to wait before the next call, told what the last one met and given randomness. It owns that neither a controller that
//! is gone nor one that answers nonsense is called in a storm.

use std::time::Duration;

use super::failure::Failure;
use crate::pressure::backoff::{Backoff, BackoffLimits, Jitter};

/// The least time from one call to the next.
pub(super) const GAP: Duration = Duration::from_millis(100);

/// How often a pod under pressure calls at least.
pub(super) const PRESSED_EVERY: Duration = Duration::from_secs(5);

/// The longest wait of a pod that wants to leave, or has left.
const WAIT_PRESSED_MAX: Duration = Duration::from_secs(2);

/// An answer that brings nothing new and comes sooner than this should have been held.
const HELD_LEAST: Duration = Duration::from_secs(1);

/// How far requests to wait are spread beyond what was asked, so that not all come back at once.
const SPREAD_LEAST: Duration = Duration::from_secs(1);

fn limits(initial: Duration, max: Duration) -> BackoffLimits {
    BackoffLimits {
        initial,
        max,
        multiplier_percent: 200,
        jitter: Jitter::Full,
        max_retries: u32::MAX,
    }
}

/// What was met lately.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    unreachable: Backoff,
    /// Slower: a token that is not believed will hardly be believed soon.
    refused: Backoff,
    /// For answers that say nothing.
    empty: Backoff,
    redirects: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        let seconds = Duration::from_secs;
        Pace {
            unreachable: Backoff::new(limits(Duration::from_millis(200), seconds(30))),
            refused: Backoff::new(limits(seconds(10), seconds(120))),
            empty: Backoff::new(limits(Duration::from_millis(200), seconds(5))),
            redirects: 0,
        }
    }

    /// How long to wait after a failure; `pressed` is whether the pod wants to leave or has left; `random` is any 64 evenly
    /// distributed bits.
    pub(super) fn after_failure(
        &mut self,
        failure: &Failure,
        pressed: bool,
        random: u64,
    ) -> Duration {
        match failure {
            Failure::Redirected {
                leader: Some(_), ..
            } => {
                self.redirects += 1;
                // One is what happens after a change of leader; more are two that name each other.
                if self.redirects == 1 {
                    return Duration::ZERO;
                }
                self.unreachable.next(random).wait
            }
            Failure::Busy {
                wait: Some(wait), ..
            } => {
                let spread = (*wait / 2).max(SPREAD_LEAST);
                *wait + spread.mul_f64(random as f64 / u64::MAX as f64)
            }
            Failure::Refused(_) | Failure::Untrusted(_) => self.refused.next(random).wait,
            _ => {
                let wait = self.unreachable.next(random).wait;
                if pressed {
                    wait.min(WAIT_PRESSED_MAX)
                } else {
                    wait
                }
            }
        }
    }

    /// How long to wait after an answer that took `took`; `due` is whether it brought something or was asked for at once.
    pub(super) fn after_answer(&mut self, took: Duration, due: bool, random: u64) -> Duration {
        self.unreachable.reset();
        self.refused.reset();
        self.redirects = 0;
        if due || took >= HELD_LEAST {
            self.empty.reset();
            return Duration::ZERO;
        }
        self.empty.next(random).wait
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gone() -> Failure {
        Failure::Unreachable(String::new())
    }

    fn to_leader() -> Failure {
        Failure::Redirected {
            why: String::new(),
            leader: Some(([10, 0, 0, 1], 1).into()),
        }
    }

    #[test]
    fn waits_grow_from_a_fifth_of_a_second_to_half_a_minute() {
        let mut pace = Pace::new();
        let waits: Vec<_> = (0..12)
            .map(|_| pace.after_failure(&gone(), false, u64::MAX).as_millis())
            .collect();
        assert_eq!(waits[..4], [200, 400, 800, 1600]);
        assert_eq!(waits[8..], [30_000; 4]);
        assert_eq!(
            pace.after_failure(&gone(), true, u64::MAX),
            WAIT_PRESSED_MAX
        );
        pace.after_answer(HELD_LEAST, false, 0);
        assert_eq!(
            pace.after_failure(&gone(), false, u64::MAX).as_millis(),
            200
        );
    }

    #[test]
    fn one_word_of_a_leader_is_followed_at_once_and_a_ring_of_them_is_not() {
        let mut pace = Pace::new();
        assert_eq!(pace.after_failure(&to_leader(), false, 9), Duration::ZERO);
        assert!(pace.after_failure(&to_leader(), false, u64::MAX) >= Duration::from_millis(200));
        pace.after_answer(Duration::ZERO, true, 0);
        assert_eq!(pace.after_failure(&to_leader(), false, 9), Duration::ZERO);
    }

    #[test]
    fn empty_answers_that_come_too_soon_are_not_asked_for_in_a_storm() {
        let mut pace = Pace::new();
        let soon = Duration::from_millis(1);
        assert_eq!(pace.after_answer(soon, true, u64::MAX), Duration::ZERO);
        let total: Duration = (0..20)
            .map(|_| pace.after_answer(soon, false, u64::MAX))
            .sum();
        assert!(total > Duration::from_secs(60), "{total:?}");
        assert_eq!(
            pace.after_answer(HELD_LEAST, false, u64::MAX),
            Duration::ZERO
        );
    }

    proptest! {
        #[test]
        fn a_wait_that_was_asked_for_is_kept_and_spread(seconds in 0..300_u64, random: u64) {
            let wait = Some(Duration::from_secs(seconds));
            let failure = Failure::Busy { why: String::new(), wait };
            let waits = Pace::new().after_failure(&failure, true, random);
            prop_assert!(waits >= Duration::from_secs(seconds));
            prop_assert!(waits <= Duration::from_secs(seconds + seconds / 2 + 1));
        }
    }
}
