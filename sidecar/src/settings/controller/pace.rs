//! How long to wait before the next call, told what the last one met and given randomness. It owns that neither a controller that
//! is gone nor one that answers nonsense is called in a storm, and that one which is back is found again soon.
//!
//! All sidecars lose a controller at the same moment. So a controller says how many it has, and each of them waits as long as the
//! rest needs to come one after the other: a handful is back at once, ten thousand in 17 s.

use std::time::Duration;

use super::failure::Failure;
use crate::pressure::backoff::{Backoff, BackoffLimits, Jitter};

/// The least time from one call to the next.
pub(super) const GAP: Duration = Duration::from_millis(100);

/// How often a pod under pressure calls at least.
pub(super) const PRESSED_EVERY: Duration = Duration::from_secs(5);

/// How many sidecars may connect in a second.
const CONNECTIONS_PER_SECOND: u32 = 600;

/// The ceiling of the first wait, where few have to come back.
const WAIT_FIRST: Duration = Duration::from_millis(200);

/// The longest wait where few have to come back.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The longest time over which they come back, where many have; it does for ten thousand. A wait is a tenth longer at most.
const SPREAD_MAX: Duration = Duration::from_secs(18);

/// No wait is shorter, so that what fails at once is no spin.
const WAIT_LEAST: Duration = Duration::from_millis(20);

/// The longest wait of a pod that wants to leave, or has left, where few have to come back; where many have, a quarter of theirs. After
/// [`PRESSED_TRIES`] in vain it waits like everybody else: a whole fleet under pressure would keep a controller from ever getting through its handshakes.
const WAIT_PRESSED_MAX: Duration = Duration::from_secs(2);

/// So often a pod under pressure comes sooner than others. It leaves by its own permit meanwhile.
const PRESSED_TRIES: u32 = 8;

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
    /// Failures to reach the controller since its last answer.
    failures: u32,
    /// Slower: a token that is not believed will hardly be believed soon.
    refused: Backoff,
    /// For answers that say nothing.
    empty: Backoff,
    redirects: u32,
    /// How long all its sidecars together need to come back, as the controller's last answer makes it.
    spread: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        let seconds = Duration::from_secs;
        Pace {
            failures: 0,
            refused: Backoff::new(limits(seconds(10), seconds(120))),
            empty: Backoff::new(limits(Duration::from_millis(200), seconds(5))),
            redirects: 0,
            spread: Duration::ZERO,
        }
    }

    /// The controller said how many sidecars it has.
    pub(super) fn told_sidecars(&mut self, sidecars: u32) {
        let spread = Duration::from_secs(1) * sidecars / CONNECTIONS_PER_SECOND;
        self.spread = spread.min(SPREAD_MAX);
    }

    /// The controller took a call and held it for so long, until that failed: it was there, whether it had something to say or not. Without this a fleet that
    /// loses its controller a second time within a call would come back in one second, all of it.
    pub(super) fn after_hold(&mut self, held: Duration) {
        if held >= HELD_LEAST {
            self.failures = 0;
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
                // One is what happens after a change of leader, to all at the same moment; more are two that name each other.
                if self.redirects == 1 {
                    self.failures = self.failures.max(1);
                    return between(Duration::ZERO, self.spread, random);
                }
                self.unreachable(pressed, random)
            }
            Failure::Busy {
                wait: Some(wait), ..
            } => {
                // Not the whole fleet is sent away, so half of its time does.
                let spread = (*wait / 2).max(SPREAD_LEAST).max(self.spread / 2);
                *wait + spread.mul_f64(random as f64 / u64::MAX as f64)
            }
            Failure::Refused(_) | Failure::Untrusted(_) => self.refused.next(random).wait,
            _ => self.unreachable(pressed, random),
        }
    }

    /// The first wait lies anywhere below its ceiling, which parts those that failed at the same moment. The ones that follow
    /// double, and are no shorter than the time over which all come back: so who comes a second time comes after all have come once.
    fn unreachable(&mut self, pressed: bool, random: u64) -> Duration {
        let doubled = WAIT_FIRST.saturating_mul(1_u32 << self.failures.min(16));
        let longest = if pressed && self.failures < PRESSED_TRIES {
            WAIT_PRESSED_MAX.max(self.spread / 4)
        } else {
            WAIT_MAX.max(self.spread)
        };
        let spread = self.spread.min(longest);
        let ceiling = doubled.max(spread).min(longest);
        // Those that came sooner than others until now are parted anew as well.
        let is_first = self.failures == 0 || (pressed && self.failures == PRESSED_TRIES);
        self.failures = self.failures.saturating_add(1);
        if is_first {
            between(WAIT_LEAST, ceiling, random)
        } else {
            let floor = spread.max(ceiling / 2);
            between(floor, ceiling.max(spread + spread / 10), random)
        }
    }

    /// How long to wait after an answer that took `took`; `due` is whether it brought something or was asked for at once.
    pub(super) fn after_answer(&mut self, took: Duration, due: bool, random: u64) -> Duration {
        self.failures = 0;
        self.refused.reset();
        self.redirects = 0;
        if due || took >= HELD_LEAST {
            self.empty.reset();
            return Duration::ZERO;
        }
        self.empty.next(random).wait
    }
}

/// Spreads 64 random bits evenly over `floor..=ceiling`.
fn between(floor: Duration, ceiling: Duration, random: u64) -> Duration {
    floor
        + ceiling
            .saturating_sub(floor)
            .mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests;
