//! Whether pushback has lasted long enough for the pod to leave its Services.
//!
//! Owns, per worker, a sliding second of submission attempts and of time spent in backoff, and how long their share of
//! pushback has been high or low. It must never judge by one refused submission, nor take an idle worker for a pressed
//! one; and liveness must never be asked here, or overload would become a restart.

use std::time::Duration;

use super::window::Window;
use crate::time::Time;

/// What sustained pushback does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadinessMode {
    /// The worker is not ready.
    #[default]
    Leave,
    /// It stays ready, and only tells.
    Report,
}

/// When pushback counts as sustained, and when as over. Any values are safe; those out of range are clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadinessLimits {
    /// What sustained pushback does.
    pub mode: ReadinessMode,
    /// The share that is too much; 1 to 100, 50 by default. Quiet is below half of it.
    pub pushback_percent: u8,
    /// How long it must last; 2 s by default.
    pub unready_after: Duration,
    /// How long quiet must last; 10 s by default.
    pub recover_after: Duration,
}

impl Default for ReadinessLimits {
    fn default() -> Self {
        ReadinessLimits {
            mode: ReadinessMode::Leave,
            pushback_percent: 50,
            unready_after: Duration::from_secs(2),
            recover_after: Duration::from_secs(10),
        }
    }
}

/// The judgement of one worker at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The share of pushback over the last second, 0 to 100.
    pub share_percent: u8,
    /// Since when pushback has been too much, once that was sustained; it stays until quiet has lasted.
    pub sustained_since: Option<Time>,
    /// False while pushback is sustained, unless the mode is [`ReadinessMode::Report`].
    pub ready: bool,
}

/// The readiness of one worker. Tell it every submission and every wait in backoff, and ask it each turn.
#[derive(Clone, Debug)]
pub struct Readiness {
    limits: ReadinessLimits,
    window: Window,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Settled,
    /// The share is too much since then; not yet sustained.
    Rising {
        since: Time,
    },
    /// Sustained; `quiet_since` once the share is low again.
    Sustained {
        since: Time,
        quiet_since: Option<Time>,
    },
}

impl Readiness {
    /// A worker that has seen nothing, and so is ready.
    #[must_use]
    pub fn new(limits: ReadinessLimits) -> Self {
        let mut readiness = Readiness {
            limits,
            window: Window::default(),
            phase: Phase::Settled,
        };
        readiness.set_limits(limits);
        readiness
    }

    /// Takes new limits; what was seen so far is judged by them from the next [`verdict`](Readiness::verdict).
    pub fn set_limits(&mut self, limits: ReadinessLimits) {
        self.limits = ReadinessLimits {
            pushback_percent: limits.pushback_percent.clamp(1, 100),
            ..limits
        };
    }

    /// Records submission attempts (calls that offered entries) up to `now`, and how many of them met pushback.
    pub fn record(&mut self, attempts: u32, pushed_back: u32, now: Time) {
        self.window.advance(now);
        self.window.count(attempts, pushed_back.min(attempts));
    }

    /// A wait in backoff begins; until [`backoff_ended`](Readiness::backoff_ended) its time counts as pushed back, so
    /// that a worker which waits and submits nothing is not taken for an idle one.
    pub fn backoff_began(&mut self, now: Time) {
        self.window.advance(now);
        self.window.set_backing_off(true);
    }

    /// The wait in backoff is over.
    pub fn backoff_ended(&mut self, now: Time) {
        self.window.advance(now);
        self.window.set_backing_off(false);
    }

    /// Judges at `now`.
    pub fn verdict(&mut self, now: Time) -> Verdict {
        self.window.advance(now);
        let now = self.window.now();
        let share = self.window.share_permille();
        let too_much = u32::from(self.limits.pushback_percent) * 10;
        let (is_high, is_low) = (share >= too_much, share * 2 < too_much);

        if let Phase::Sustained { since, quiet_since } = self.phase {
            let quiet_since = is_low.then(|| quiet_since.unwrap_or(now));
            self.phase = match quiet_since {
                Some(quiet) if now.saturating_since(quiet) >= self.limits.recover_after => {
                    Phase::Settled
                }
                _ => Phase::Sustained { since, quiet_since },
            };
        } else if is_high {
            let since = match self.phase {
                Phase::Rising { since } => since,
                // The busy time before a storm dilutes the window's first second; the storm began before it showed.
                _ => self.window.high_since(too_much),
            };
            self.phase = if now.saturating_since(since) >= self.limits.unready_after {
                Phase::Sustained {
                    since,
                    quiet_since: None,
                }
            } else {
                Phase::Rising { since }
            };
        } else {
            self.phase = Phase::Settled;
        }

        let sustained_since = match self.phase {
            Phase::Sustained { since, .. } => Some(since),
            _ => None,
        };
        Verdict {
            share_percent: u8::try_from(share.div_ceil(10)).unwrap_or(100),
            sustained_since,
            ready: sustained_since.is_none() || self.limits.mode == ReadinessMode::Report,
        }
    }

    /// When to judge again although nothing happens; `None` when time alone changes nothing.
    #[must_use]
    pub fn next_change(&self, now: Time) -> Option<Time> {
        let slides = self.window.next_slide();
        let flips = match self.phase {
            Phase::Settled => None,
            Phase::Rising { since } => Some(since.saturating_add(self.limits.unready_after)),
            Phase::Sustained { quiet_since, .. } => {
                quiet_since.map(|quiet| quiet.saturating_add(self.limits.recover_after))
            }
        };
        let next = match (flips, slides) {
            (Some(flips), Some(slides)) => Some(flips.min(slides)),
            (flips, slides) => flips.or(slides),
        };
        next.map(|next| next.max(now))
    }
}

/// The worker that is pressed most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressed {
    /// Its index among the verdicts.
    pub worker: usize,
    /// Its share of pushback, 0 to 100.
    pub share_percent: u8,
    /// Since when its pushback has been too much.
    pub since: Time,
}

/// The judgement over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overall {
    /// False when any worker is not ready: its share of the connections would stall.
    pub ready: bool,
    /// The worker with the largest share among those in sustained pushback, those not ready first; also in mode Report.
    pub pressed: Option<Pressed>,
}

/// Judges the process by the verdicts of its workers.
#[must_use]
pub fn overall(verdicts: impl IntoIterator<Item = Verdict>) -> Overall {
    let mut overall = Overall {
        ready: true,
        pressed: None,
    };
    for (worker, verdict) in verdicts.into_iter().enumerate() {
        let Some(since) = verdict.sustained_since else {
            continue;
        };
        let worse = match overall.pressed {
            None => true,
            Some(worst) if overall.ready == verdict.ready => {
                verdict.share_percent > worst.share_percent
            }
            Some(_) => !verdict.ready,
        };
        if worse {
            overall.pressed = Some(Pressed {
                worker,
                share_percent: verdict.share_percent,
                since,
            });
        }
        overall.ready &= verdict.ready;
    }
    overall
}

#[cfg(test)]
mod tests;
