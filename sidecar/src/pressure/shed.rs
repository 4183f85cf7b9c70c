//! How far to go against pushback: the ladder of reactions.
//!
//! Owns the rung that a worker stands on. It goes up at once and as far as the pushback tells, and comes down one rung
//! at a time, each after a calm while. It ends nothing itself: the worker does what its rung and those below it say.

use std::time::Duration;

use crate::time::Time;

/// A rung of the ladder; each includes those below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// No pushback.
    #[default]
    Calm,
    /// Reap completions and wait before submitting again.
    ReapAndWait,
    /// Offer smaller batches.
    ShrinkBatch,
    /// Accept nothing.
    PauseAccepting,
    /// Re-arm no receives: the senders' windows fill, and their load waits with them.
    PauseReceiving,
    /// Close connections that have long been idle, counted.
    CancelIdle,
}

impl Rung {
    /// All rungs, from the lowest.
    pub const ALL: [Rung; 6] = [
        Rung::Calm,
        Rung::ReapAndWait,
        Rung::ShrinkBatch,
        Rung::PauseAccepting,
        Rung::PauseReceiving,
        Rung::CancelIdle,
    ];

    /// The name in logs and status; stable.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Rung::Calm => "calm",
            Rung::ReapAndWait => "reap_and_wait",
            Rung::ShrinkBatch => "shrink_batch",
            Rung::PauseAccepting => "pause_accepting",
            Rung::PauseReceiving => "pause_receiving",
            Rung::CancelIdle => "cancel_idle",
        }
    }

    fn below(self) -> Rung {
        Rung::ALL[(self as usize).saturating_sub(1)]
    }
}

/// When each rung is reached. Any values are safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderLimits {
    /// The share of pushback at which accepting pauses even without a stall; 1 to 100, 50 by default.
    pub pause_accepting_percent: u8,
    /// How long into a stall receives are no longer re-armed; 1 s by default.
    pub pause_receiving_after: Duration,
    /// How long into a stall idle connections are closed; at least `pause_receiving_after`, 10 s by default.
    pub cancel_idle_after: Duration,
    /// How long pushback must have stayed below a rung before it is left; up to 1 min, 200 ms by default.
    pub step_down_after: Duration,
}

impl Default for LadderLimits {
    fn default() -> Self {
        LadderLimits {
            pause_accepting_percent: 50,
            pause_receiving_after: Duration::from_secs(1),
            cancel_idle_after: Duration::from_secs(10),
            step_down_after: Duration::from_millis(200),
        }
    }
}

const LONGEST_STEP: Duration = Duration::from_secs(60);

/// What a worker knows of its pushback at a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushback {
    /// Delays given in the present episode ([`Backoff::attempt`](super::backoff::Backoff::attempt)); 0 without one.
    pub attempt: u32,
    /// Since when the present episode is a stall.
    pub stalled_since: Option<Time>,
    /// The share of pushback over the window ([`Verdict::share_percent`](super::readiness::Verdict)), 0 to 100.
    pub share_percent: u8,
}

/// The ladder of one worker.
#[derive(Clone, Debug, Default)]
pub struct Ladder {
    limits: LadderLimits,
    rung: Rung,
    /// When the present rung was last called for, or reached on the way down.
    held: Time,
}

impl Ladder {
    /// A ladder with nobody on it.
    #[must_use]
    pub fn new(limits: LadderLimits) -> Self {
        let mut ladder = Ladder::default();
        ladder.set_limits(limits);
        ladder
    }

    /// Takes new limits.
    pub fn set_limits(&mut self, limits: LadderLimits) {
        self.limits = LadderLimits {
            pause_accepting_percent: limits.pause_accepting_percent.clamp(1, 100),
            cancel_idle_after: limits.cancel_idle_after.max(limits.pause_receiving_after),
            step_down_after: limits.step_down_after.min(LONGEST_STEP),
            ..limits
        };
    }

    /// Moves for this turn and returns the rung to stand on.
    pub fn update(&mut self, pushback: &Pushback, now: Time) -> Rung {
        let wanted = self.wanted(pushback, now);
        // A clock that stepped back starts the calm while anew.
        self.held = self.held.min(now);
        if wanted >= self.rung {
            self.rung = wanted;
            self.held = now;
        } else if now >= self.held.saturating_add(self.limits.step_down_after) {
            self.rung = self.rung.below();
            self.held = now;
        }
        self.rung
    }

    /// The rung of the last turn.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// When to update again although nothing else happens; `None` when calm. A stall climbs with the delays of its
    /// backoff, which wake the worker anyway, so this tells of the way down.
    #[must_use]
    pub fn next_change(&self, now: Time) -> Option<Time> {
        (self.rung != Rung::Calm).then(|| {
            self.held
                .saturating_add(self.limits.step_down_after)
                .max(now)
        })
    }

    fn wanted(&self, pushback: &Pushback, now: Time) -> Rung {
        let by_episode = match (pushback.stalled_since, pushback.attempt) {
            (Some(since), _) => {
                let stalled = now.saturating_since(since);
                if stalled >= self.limits.cancel_idle_after {
                    Rung::CancelIdle
                } else if stalled >= self.limits.pause_receiving_after {
                    Rung::PauseReceiving
                } else {
                    Rung::PauseAccepting
                }
            }
            (None, 0) => Rung::Calm,
            (None, 1) => Rung::ReapAndWait,
            (None, _) => Rung::ShrinkBatch,
        };
        if pushback.share_percent >= self.limits.pause_accepting_percent {
            by_episode.max(Rung::PauseAccepting)
        } else {
            by_episode
        }
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
    fn climbs_with_a_stall_and_comes_down_rung_by_rung() {
        let mut ladder = Ladder::new(LadderLimits::default());
        let episode = |attempt| Pushback {
            attempt,
            ..Pushback::default()
        };
        assert_eq!(ladder.update(&episode(1), at_millis(0)), Rung::ReapAndWait);
        assert_eq!(ladder.update(&episode(2), at_millis(1)), Rung::ShrinkBatch);
        let stall = Pushback {
            attempt: 11,
            stalled_since: Some(at_millis(100)),
            share_percent: 0,
        };
        assert_eq!(ladder.update(&stall, at_millis(100)), Rung::PauseAccepting);
        assert_eq!(ladder.update(&stall, at_millis(1100)), Rung::PauseReceiving);
        assert_eq!(ladder.update(&stall, at_millis(10_100)), Rung::CancelIdle);
        let calm = Pushback::default();
        assert_eq!(ladder.update(&calm, at_millis(10_299)), Rung::CancelIdle);
        let mut seen = Vec::new();
        let mut now = at_millis(10_299);
        while let Some(next) = ladder.next_change(now) {
            now = next;
            seen.push(ladder.update(&calm, now));
        }
        let way_down = [
            Rung::PauseReceiving,
            Rung::PauseAccepting,
            Rung::ShrinkBatch,
            Rung::ReapAndWait,
            Rung::Calm,
        ];
        assert_eq!(seen, way_down);
        assert_eq!(now, at_millis(11_100));
    }

    #[test]
    fn a_large_share_pauses_accepting_without_a_stall() {
        let mut ladder = Ladder::new(LadderLimits::default());
        let pushback = Pushback {
            attempt: 0,
            stalled_since: None,
            share_percent: 50,
        };
        assert_eq!(ladder.update(&pushback, at_millis(5)), Rung::PauseAccepting);
    }

    proptest! {
        #[test]
        fn never_below_what_is_called_for_and_down_one_at_a_time(
            turns in prop::collection::vec((0..300u64, 0..3u32, any::<bool>(), 0..101u8), 1..200),
        ) {
            let mut ladder = Ladder::new(LadderLimits::default());
            let (mut now, mut stalled_since, mut steps_down, mut before) = (0, None, 0, Rung::Calm);
            let mut climbed = 0;
            for (gap, attempt, stalled, share_percent) in turns {
                now += gap;
                stalled_since = if stalled { stalled_since.or(Some(at_millis(now))) } else { None };
                let rung = ladder.update(&Pushback { attempt, stalled_since, share_percent }, at_millis(now));
                if stalled || share_percent >= 50 {
                    prop_assert!(rung >= Rung::PauseAccepting);
                }
                prop_assert!(rung as usize + 1 >= before as usize);
                steps_down += u64::from(rung < before);
                climbed += (rung as u64).saturating_sub(before as u64);
                before = rung;
            }
            // No flapping: each step down took its calm while, so both ways are bounded by time and not by turns.
            prop_assert!(steps_down <= now / 200 + 1);
            prop_assert!(climbed <= steps_down + 5);
        }

        #[test]
        fn survives_any_input(limits: (u8, Duration, Duration, Duration),
                              turns in prop::collection::vec((any::<u64>(), any::<u32>(), any::<Option<u64>>(), any::<u8>()), 0..50)) {
            let mut ladder = Ladder::new(LadderLimits {
                pause_accepting_percent: limits.0,
                pause_receiving_after: limits.1,
                cancel_idle_after: limits.2,
                step_down_after: limits.3,
            });
            for (now, attempt, since, share_percent) in turns {
                let now = Time::from_nanos(now);
                let stalled_since = since.map(Time::from_nanos);
                ladder.update(&Pushback { attempt, stalled_since, share_percent }, now);
                prop_assert!(ladder.next_change(now).is_none_or(|next| next >= now));
            }
        }
    }
}
