//! When a flow has to be looked at again, and what it then finds. Pure.
//!
//! A flow has one timer. It is set when a nearer deadline appears, and not moved when activity puts the
//! deadline off: the timer comes early then, sees that, and is set again. So a message costs no timer work.

use std::time::Duration;

use super::{CloseReason, Flow, Operation, Phase, Side, splicing};
use crate::time::Time;

/// A side that nothing is received from, as the other one takes nothing, is watched for a reset after so long.
const WATCH_AFTER: Duration = Duration::from_millis(100);

/// A relayed connection's limits in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For one attempt to connect to one address.
    pub connect: Duration,
    /// Without a byte either way.
    pub idle: Duration,
    /// Without a byte, once one side has ended.
    pub half_close: Duration,
}

impl Flow {
    /// When this flow has to be looked at if nothing happens before.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Time> {
        if self.closing.is_some() {
            return None;
        }
        let limit = match self.phase {
            Phase::Connecting(_) if self.connect_is_late => return None,
            Phase::Connecting(_) => self.phase_began.saturating_add(timeouts.connect),
            _ if self.is_half_closed() => self
                .last_activity
                .saturating_add(timeouts.half_close.min(timeouts.idle)),
            _ => self.last_activity.saturating_add(timeouts.idle),
        };
        let limit = match self.phase {
            Phase::EnteringSplice => {
                limit.min(self.phase_began.saturating_add(splicing::ENTER_PATIENCE))
            }
            Phase::Splicing => limit.min(
                self.last_activity
                    .max(self.phase_began)
                    .saturating_add(splicing::QUIET),
            ),
            Phase::Relaying if Side::BOTH.into_iter().any(|side| self.is_unheard(side)) => {
                let since = self.last_activity.max(self.phase_began);
                limit.min(since.saturating_add(WATCH_AFTER))
            }
            _ => limit,
        };
        // An operation that waits to be tried again has a retry time after the last activity.
        let retries = self
            .ends
            .iter()
            .map(|end| end.retry_at)
            .filter(|&at| at > self.last_activity);
        Some(retries.fold(limit, Time::min))
    }

    fn is_half_closed(&self) -> bool {
        self.ends.iter().any(|end| end.ended)
    }

    /// The flow's timer came: sees what is due. The worker then asks for actions, and for the next deadline.
    pub fn on_timer(&mut self, timeouts: &Timeouts, now: Time) {
        for end in &mut self.ends {
            if end.retry_at <= now {
                // Due now, and no deadline of its own any more.
                end.retry_at = self.opened;
            }
        }
        if self.closing.is_some() || self.deadline(timeouts).is_none_or(|at| at > now) {
            return;
        }
        match self.phase {
            Phase::Connecting(Operation::Idle) => self.end(CloseReason::ConnectTimeout),
            Phase::Connecting(_) => self.connect_is_late = true,
            Phase::EnteringSplice if now < self.quiet_limit(timeouts) => self.give_up_entering(now),
            Phase::Splicing if now < self.quiet_limit(timeouts) => {
                self.leave_splicing_if_quiet(now);
            }
            Phase::Relaying if now < self.quiet_limit(timeouts) => {
                // Looked at again after the same time, if what it finds is no reset.
                self.phase_began = now;
                self.watch_is_due = true;
            }
            _ if self.is_half_closed() => self.end(CloseReason::HalfCloseTimeout),
            _ => self.end(CloseReason::IdleTimeout),
        }
    }

    fn quiet_limit(&self, timeouts: &Timeouts) -> Time {
        let limit = if self.is_half_closed() {
            timeouts.half_close.min(timeouts.idle)
        } else {
            timeouts.idle
        };
        self.last_activity.saturating_add(limit)
    }
}
