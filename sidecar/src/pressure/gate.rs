//! Whether to accept connections now.
//!
//! Owns the reasons to pause, each latched: one begins when its mark is reached and ends only well below it. It counts
//! nothing and cancels nothing: the worker tells it the load each turn and does as it answers. It must never flap: a
//! pause begins at once, because limits cannot wait, and lasts at least [`GateLimits::shortest_pause`].

use std::time::Duration;

use super::backoff::{Backoff, BackoffLimits};
use super::rate::Rate;
use crate::time::Time;

/// Why accepting is paused. Where several hold, the first in this order is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PauseReason {
    /// Descriptors are short, or accept answered EMFILE or ENFILE.
    Descriptors,
    /// The share of `max_connections` is reached.
    Connections,
    /// This worker's buffer pool is short.
    Buffers,
    /// This worker's budget of operations in flight is short.
    Operations,
    /// The kernel takes less than this worker offers.
    Pushback,
    /// Connections arrive faster than `max_per_second`.
    Rate,
}

impl PauseReason {
    /// All reasons, in order.
    pub const ALL: [PauseReason; 6] = [
        PauseReason::Descriptors,
        PauseReason::Connections,
        PauseReason::Buffers,
        PauseReason::Operations,
        PauseReason::Pushback,
        PauseReason::Rate,
    ];

    /// The value of the metric's label `reason`; stable.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            PauseReason::Descriptors => "descriptors",
            PauseReason::Connections => "connections",
            PauseReason::Buffers => "buffers",
            PauseReason::Operations => "operations",
            PauseReason::Pushback => "pushback",
            PauseReason::Rate => "rate",
        }
    }

    /// Whether no worker of the process could take the arrivals either. When false, the reason is this worker's own,
    /// and it must leave arrivals to the others.
    #[must_use]
    pub const fn is_process_wide(self) -> bool {
        match self {
            PauseReason::Descriptors | PauseReason::Connections | PauseReason::Rate => true,
            PauseReason::Buffers | PauseReason::Operations | PauseReason::Pushback => false,
        }
    }
}

/// What bounds accepting. Any values are safe; those out of range are clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// Connections open in the process; 0 accepts none, 4096 by default. Accepting pauses at `pause_above_percent` of
    /// it, so that what a multishot accept delivers before it is cancelled still fits.
    pub max_connections: u32,
    /// Connections accepted a second; `None` for no limit, 5000 by default.
    pub max_per_second: Option<u32>,
    /// The share of a limit (connections, descriptors, buffers, operations) at which accepting pauses; 1 to 100, 95 by
    /// default. 100 uses the limit to the last.
    pub pause_above_percent: u8,
    /// The share below which it resumes; 1 to `pause_above_percent`, 80 by default.
    pub resume_below_percent: u8,
    /// Descriptors kept free, so that the rest of the process never meets EMFILE; at most a quarter of the descriptor
    /// limit, 32 by default.
    pub descriptor_reserve: u32,
    /// How long to leave accept alone after EMFILE or ENFILE; 10 ms to 1 s by default.
    pub descriptor_backoff: BackoffLimits,
    /// How long any pause lasts at least; up to 1 s, 20 ms by default.
    pub shortest_pause: Duration,
}

impl Default for GateLimits {
    fn default() -> Self {
        GateLimits {
            max_connections: 4096,
            max_per_second: Some(5000),
            pause_above_percent: 95,
            resume_below_percent: 80,
            descriptor_reserve: 32,
            descriptor_backoff: BackoffLimits {
                initial: Duration::from_millis(10),
                max: Duration::from_secs(1),
                ..BackoffLimits::default()
            },
            shortest_pause: Duration::from_millis(20),
        }
    }
}

/// The load at a turn of the loop. A limit of 0 stands for no limit, except `max_connections`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections open in the whole process.
    pub connections_open: u32,
    /// Workers beside this one. Near the limit each has a single accept on its way, and for what that brings there must be
    /// room as well, or it would be accepted only to be shed.
    pub other_workers: u32,
    /// Descriptors open in the whole process.
    pub descriptors_open: u32,
    /// What RLIMIT_NOFILE allows.
    pub descriptor_limit: u32,
    /// Operations in flight in this worker.
    pub operations_in_flight: u32,
    /// Operations that may be in flight, the reserve not included ([`Budget::ordinary_limit`](super::budget::Budget::ordinary_limit)).
    pub operations_budget: u32,
    /// Bytes of this worker's buffer pool in use.
    pub pool_used_bytes: u64,
    /// Bytes the pool may grow to.
    pub pool_limit_bytes: u64,
    /// Whether pushback has climbed to the rung where accepting pauses ([`Rung::PauseAccepting`](super::shed::Rung::PauseAccepting)).
    pub pushback: bool,
}

/// The gate's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateState {
    /// Accept.
    Open,
    /// Leave arrivals in the backlog, or to another worker.
    Paused {
        /// The foremost reason at this turn.
        reason: PauseReason,
        /// When accepting paused.
        since: Time,
    },
}

/// A quiet time after which the next EMFILE begins with short pauses again.
const DESCRIPTOR_QUIET: Duration = Duration::from_secs(5);
/// The client's socket and the upstream's.
const DESCRIPTORS_PER_CONNECTION: u32 = 2;
/// Limits of the whole process are looked at no more often than this while they hold.
const SOONEST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The accept gate of one worker.
#[derive(Clone, Debug)]
pub struct Gate {
    limits: GateLimits,
    rate: Option<Rate>,
    paid_until: Time,
    refused_backoff: Backoff,
    refused_until: Option<Time>,
    /// Which reasons hold, by their order.
    latched: [bool; PauseReason::ALL.len()],
    state: GateState,
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new(limits: GateLimits) -> Self {
        let mut gate = Gate {
            limits,
            rate: None,
            paid_until: Time::ZERO,
            refused_backoff: Backoff::new(limits.descriptor_backoff),
            refused_until: None,
            latched: [false; PauseReason::ALL.len()],
            state: GateState::Open,
        };
        gate.set_limits(limits);
        gate
    }

    /// Takes new limits, in force from the next [`decide`](Gate::decide).
    pub fn set_limits(&mut self, limits: GateLimits) {
        let pause_above_percent = limits.pause_above_percent.clamp(1, 100);
        self.rate = limits.max_per_second.map(Rate::per_second);
        self.refused_backoff.set_limits(limits.descriptor_backoff);
        self.limits = GateLimits {
            pause_above_percent,
            resume_below_percent: limits.resume_below_percent.clamp(1, pause_above_percent),
            shortest_pause: limits.shortest_pause.min(LONGEST_SHORTEST_PAUSE),
            ..limits
        };
    }

    /// Decides for this turn.
    pub fn decide(&mut self, load: &Load, now: Time) -> GateState {
        for reason in PauseReason::ALL {
            self.latched[reason as usize] = self.holds(reason, load, now);
        }
        let foremost = PauseReason::ALL
            .into_iter()
            .find(|&reason| self.latched[reason as usize]);
        self.state = match (self.state, foremost) {
            (GateState::Open, None) => GateState::Open,
            (GateState::Open, Some(reason)) => GateState::Paused { reason, since: now },
            (GateState::Paused { since, .. }, Some(reason)) => GateState::Paused {
                reason,
                since: since.min(now),
            },
            (GateState::Paused { reason, since }, None) => {
                // A clock that stepped back starts the shortest pause anew instead of waiting for the clock to return.
                let since = since.min(now);
                if now >= since.saturating_add(self.limits.shortest_pause) {
                    GateState::Open
                } else {
                    GateState::Paused { reason, since }
                }
            }
        };
        self.state
    }

    /// The last decision.
    #[must_use]
    pub fn state(&self) -> GateState {
        self.state
    }

    /// The rate in force, for a bucket that all workers share: keep one moment for the process, move it with
    /// [`Rate::spend`], and tell each gate by [`set_paid_until`](Gate::set_paid_until).
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Takes over the state of a bucket that all workers share.
    pub fn set_paid_until(&mut self, paid_until: Time) {
        self.paid_until = paid_until;
    }

    /// Accept answered EMFILE or ENFILE: pauses for a jittered while, longer at each repetition. `random` is any 64
    /// evenly distributed bits. Returns the end of the pause.
    pub fn descriptors_refused(&mut self, random: u64, now: Time) -> Time {
        if self
            .refused_until
            .is_none_or(|until| now >= until.saturating_add(DESCRIPTOR_QUIET))
        {
            self.refused_backoff.reset();
        }
        let until = now.saturating_add(self.refused_backoff.next(random).wait);
        self.refused_until = Some(until);
        until
    }

    /// When to decide again although nothing else happens: the moment at which time alone would open the gate, or
    /// after another shortest pause (20 ms at least) where another worker's closes may have opened it. `None` while
    /// open, and while a reason holds that only a change of this worker's own load can end.
    #[must_use]
    pub fn next_change(&self, now: Time) -> Option<Time> {
        let GateState::Paused { since, .. } = self.state else {
            return None;
        };
        // The limits of the whole process: no worker is told when another one's connections close.
        let look_again = now.saturating_add(self.limits.shortest_pause.max(SOONEST_LOOK));
        let mut opens = since.saturating_add(self.limits.shortest_pause);
        for reason in PauseReason::ALL {
            if self.latched[reason as usize] {
                opens = opens.max(match reason {
                    PauseReason::Rate => self
                        .rate
                        .map_or(now, |rate| rate.resumes_at(self.paid_until, now)),
                    // Refused descriptors come back by time; a short supply of them by closing some.
                    PauseReason::Descriptors => self
                        .refused_until
                        .filter(|&until| until > now)
                        .unwrap_or(look_again),
                    PauseReason::Connections => look_again,
                    PauseReason::Buffers | PauseReason::Operations | PauseReason::Pushback => {
                        return None;
                    }
                });
            }
        }
        Some(opens.max(now))
    }

    fn holds(&self, reason: PauseReason, load: &Load, now: Time) -> bool {
        match reason {
            PauseReason::Pushback => load.pushback,
            PauseReason::Connections => {
                let (open, limit) = (load.connections_open, self.limits.max_connections);
                let may_come = load.other_workers.saturating_add(open);
                limit == 0
                    || (open > 0 && may_come >= limit)
                    || self.share_holds(reason, load, open.into(), limit.into())
            }
            PauseReason::Descriptors => {
                self.refused_until.is_some_and(|until| now < until)
                    || self.descriptors_are_short(load)
            }
            PauseReason::Buffers => {
                self.share_holds(reason, load, load.pool_used_bytes, load.pool_limit_bytes)
            }
            PauseReason::Operations => self.share_holds(
                reason,
                load,
                load.operations_in_flight.into(),
                load.operations_budget.into(),
            ),
            PauseReason::Rate => self.rate.is_some_and(|rate| {
                if self.latched[reason as usize] {
                    now < rate.resumes_at(self.paid_until, now)
                } else {
                    !rate.has_token(self.paid_until, now)
                }
            }),
        }
    }

    /// Whether connections use too much of the descriptors that are theirs. What the process itself holds (listeners,
    /// rings, pooled pipes) is taken off first: no closing of connections brings it back, so under a small limit a share
    /// of the whole might never fall below the mark at which accepting resumes.
    fn descriptors_are_short(&self, load: &Load) -> bool {
        if load.descriptor_limit == 0 {
            return false;
        }
        let reserve = self
            .limits
            .descriptor_reserve
            .min(load.descriptor_limit / 4);
        let usable = load.descriptor_limit - reserve;
        let by_connections = load
            .connections_open
            .saturating_mul(DESCRIPTORS_PER_CONNECTION)
            .min(load.descriptors_open);
        let theirs = usable.saturating_sub(load.descriptors_open - by_connections);
        // With nothing left for connections, the largest share there is.
        self.share_holds(
            PauseReason::Descriptors,
            load,
            by_connections.into(),
            theirs.max(1).into(),
        )
    }

    /// Whether `used` of `limit` is too much: begins at the upper mark, ends below the lower one. Never while no
    /// connection is open: a pause waits for connections to close, and would wait for ever.
    fn share_holds(&self, reason: PauseReason, load: &Load, used: u64, limit: u64) -> bool {
        if limit == 0 || load.connections_open == 0 {
            return false;
        }
        let percent = if self.latched[reason as usize] {
            self.limits.resume_below_percent
        } else {
            self.limits.pause_above_percent
        };
        u128::from(used) * 100 >= u128::from(limit) * u128::from(percent)
    }
}

#[cfg(test)]
mod tests;
