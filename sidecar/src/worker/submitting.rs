//! Submitting and waiting: one call into the kernel per turn, and what is done when it pushes back.
//!
//! Backing off is waiting for completions inside the kernel, with the jittered delay as the limit: what is
//! queued stays queued, what completes is reaped, and reaping is what gives the kernel its memory back.

use std::time::Duration;

use super::stats::Retry;
use super::{Exit, HEARTBEAT, OVERDUE_AFTER, Worker};
use crate::backend::{Backend, Entered, Outcome};
use crate::pressure::gate::GateState;
use crate::pressure::readiness::Verdict;
use crate::pressure::shed::{Pushback, Rung};
use crate::time::Time;

/// How often readiness is judged while nothing pushes back.
const JUDGE_EVERY: Duration = Duration::from_millis(50);

/// Interrupted calls in a row that are tried again at once; more of them are a storm, and waited out.
const INTERRUPTIONS_AT_ONCE: u32 = 8;

/// What is known of the pushback at the moment.
#[derive(Debug, Default)]
pub(super) struct Pressed {
    /// Wait for completions until then before submitting again.
    wait_until: Option<Time>,
    began: Time,
    stalled_since: Option<Time>,
    verdict: Verdict,
    judge_at: Time,
    /// Calls in a row that a signal interrupted.
    interruptions: u32,
}

impl<B: Backend> Worker<B> {
    /// Decides about load, by the time and by what the last turns met.
    pub(super) fn decide(&mut self) {
        let calm = self.backoff.attempt() == 0 && self.ladder.rung() == Rung::Calm;
        let changes = self.readiness_changes_at();
        let is_due =
            !calm || self.now >= self.pressed.judge_at || changes.is_some_and(|at| self.now >= at);
        if is_due {
            self.pressed.judge_at = self.now.saturating_add(JUDGE_EVERY);
            self.judge();
        }
        if is_due || self.shortage.is_some() || !self.starved.is_empty() {
            self.relieve();
        }
        if is_due || self.load_changed || self.gate.state() != GateState::Open {
            self.load_changed = false;
            self.decide_accepting();
        }
    }

    fn judge(&mut self) {
        self.pressed.verdict = self.readiness.verdict(self.now);
        let before = self.ladder.rung();
        let pushback = Pushback {
            attempt: self.backoff.attempt(),
            stalled_since: self.pressed.stalled_since,
            share_percent: self.pressed.verdict.share_percent,
        };
        let rung = self.ladder.update(&pushback, self.now);
        let worker = self.surroundings.index;
        if rung > before && rung >= Rung::PauseReceiving {
            tracing::warn!(
                worker,
                now = rung.label(),
                "pushback lasts: the worker does less"
            );
        } else if before >= Rung::PauseReceiving && rung < Rung::PauseReceiving {
            tracing::info!(worker, "pushback is over: the worker receives again");
        }
    }

    pub(super) fn submit(&mut self, more: bool) -> Option<Exit> {
        if let Some(until) = self.pressed.wait_until {
            // The first completion gives the kernel a request back; else the delay is spent whole.
            if !self.has_reaped && self.now < until {
                return self.wait_out(until, more);
            }
            self.pressed.wait_until = None;
        }
        let most = self.batch.limit();
        let busy = more
            || self.backend.queued() > most
            || !self.dirty.is_empty()
            || !self.arrivals.is_empty()
            || !self.streams.is_empty()
            || self.may_wake();
        let wait = if busy {
            None
        } else {
            Some(self.until_deadline())
        };
        let entered = self.backend.enter(most, wait);
        let stats = &self.surroundings.stats;
        stats.submitted(entered.outcome, entered.taken);
        if entered.overflowed {
            stats.retried(Retry::Overflow);
        }
        if let Some(exit) = self.fatal(&entered) {
            return Some(exit);
        }
        let is_storm = self.pressed.interruptions >= INTERRUPTIONS_AT_ONCE;
        let is_pushback =
            entered.outcome.is_pushback() || (is_storm && entered.outcome == Outcome::Interrupted);
        if entered.offered > 0 || is_pushback {
            self.readiness.record(1, u32::from(is_pushback), self.now);
        }
        self.react(&entered)
    }

    /// Waits inside the kernel, without submitting.
    fn wait_out(&mut self, until: Time, more: bool) -> Option<Exit> {
        let wait = self.until_deadline().min(until.saturating_since(self.now));
        let entered = self.backend.enter(0, (!more).then_some(wait));
        if entered.outcome != Outcome::Nothing {
            self.surroundings.stats.submitted(entered.outcome, 0);
        }
        if entered.outcome == Outcome::Interrupted {
            self.pressed.interruptions += 1;
        }
        let is_storm = self.pressed.interruptions > INTERRUPTIONS_AT_ONCE;
        if entered.outcome.is_pushback() || (is_storm && entered.outcome == Outcome::Interrupted) {
            // Not even waiting is let through: sleeping is what is left, so that this is no spin.
            self.backend.sleep(wait);
        }
        self.fatal(&entered)
    }

    fn react(&mut self, entered: &Entered) -> Option<Exit> {
        if entered.outcome != Outcome::Interrupted {
            self.pressed.interruptions = 0;
        }
        match entered.outcome {
            Outcome::All => {
                self.batch.taken_whole(entered.taken);
                self.recovered();
            }
            // Nothing was left to offer, and waiting went well.
            Outcome::Nothing if self.backend.queued() == 0 => self.recovered(),
            // What was taken shows that the kernel has memory again: the rest goes at once, after a reap.
            Outcome::Some => self.batch.pushed_back(),
            Outcome::Interrupted => {
                self.pressed.interruptions += 1;
                if self.pressed.interruptions > INTERRUPTIONS_AT_ONCE {
                    return self.back_off(entered);
                }
            }
            outcome if outcome.is_pushback() => return self.back_off(entered),
            _ => {}
        }
        None
    }

    fn back_off(&mut self, entered: &Entered) -> Option<Exit> {
        self.batch.pushed_back();
        if self.backoff.attempt() == 0 {
            self.pressed.began = self.now;
            self.readiness.backoff_began(self.now);
        }
        let random = self.random.u64(..);
        let delay = self.backoff.next(random);
        self.surroundings.stats.backed_off(delay.wait);
        self.pressed.wait_until = Some(self.backend.now().saturating_add(delay.wait));
        if delay.exhausted {
            if entered.outcome == Outcome::Forbidden {
                // Not a shortage that passes: the system call itself is no longer allowed.
                return Some(broken(entered));
            }
            self.pressed.stalled_since = Some(self.now);
            self.surroundings.stats.stalls.add(1);
            tracing::warn!(
                worker = self.surroundings.index,
                outcome = entered.outcome.label(),
                queued = self.backend.queued(),
                in_flight = self.backend.in_flight(),
                "the kernel takes no submissions: stalled, waiting at the longest backoff",
            );
        }
        None
    }

    fn recovered(&mut self) {
        if self.backoff.attempt() == 0 {
            return;
        }
        if self.pressed.stalled_since.take().is_some() {
            let lasted = self.now.saturating_since(self.pressed.began);
            tracing::info!(
                worker = self.surroundings.index,
                after_ms = lasted.as_millis() as u64,
                attempts = self.backoff.attempt(),
                "the kernel takes submissions again",
            );
        }
        self.backoff.reset();
        self.readiness.backoff_ended(self.now);
    }

    fn fatal(&self, entered: &Entered) -> Option<Exit> {
        entered.outcome.is_fatal().then(|| broken(entered))
    }

    /// When readiness is to be judged again though nothing happens.
    fn readiness_changes_at(&self) -> Option<Time> {
        let verdict = &self.pressed.verdict;
        let is_judging = verdict.share_percent > 0 || verdict.sustained_since.is_some();
        is_judging
            .then(|| self.readiness.next_change(self.now))
            .flatten()
    }

    /// How long the worker may sleep: until the first moment at which something is due.
    fn until_deadline(&self) -> Duration {
        let heartbeat = Some(self.now.saturating_add(HEARTBEAT));
        let due = [
            heartbeat,
            self.timers.next_deadline(),
            self.gate.next_change(self.now),
            self.ladder.next_change(self.now),
            self.readiness_changes_at(),
            self.shortage.map(|shortage| shortage.next_look()),
            self.finish_by.map(|by| {
                if self.now < by {
                    by
                } else {
                    by.saturating_add(OVERDUE_AFTER)
                }
            }),
        ];
        let first = due.into_iter().flatten().min().unwrap_or(self.now);
        first.saturating_since(self.now)
    }

    /// Puts what others may know where they can read it.
    pub(super) fn publish(&mut self) {
        let stats = &self.surroundings.stats;
        stats.last_turn_nanos.set(self.now.as_nanos().max(1));
        stats.batch_limit.set(u64::from(self.batch.limit()));
        stats
            .operations_in_flight
            .set(u64::from(self.backend.in_flight()));
        stats.operations_budget.set(u64::from(self.budget.limit()));
        stats.rung.set(self.ladder.rung() as u64);
        stats.connections_open.set(self.connections.len() as u64);
        stats.pipes_held.set(u64::from(self.pipes.held));
        stats.pipes_limit.set(u64::from(self.limits.pipes));
        stats.queued_bytes.set(self.chunks.queued_bytes());
        let pool = self.backend.pool();
        stats.pool_limit_bytes.set(pool.limit_bytes as u64);
        stats.pool_allocated_bytes.set(pool.allocated_bytes as u64);
        stats.pool_pinned_bytes.set(pool.pinned_bytes as u64);
        let verdict = &self.pressed.verdict;
        stats.pushback_percent.set(u64::from(verdict.share_percent));
        stats.sustained_since.set(
            verdict
                .sustained_since
                .map_or(0, |since| 1 + since.as_nanos()),
        );
        stats.unready.set(u64::from(
            verdict.sustained_since.is_some() && !verdict.ready,
        ));
    }
}

fn broken(entered: &Entered) -> Exit {
    let errno = entered
        .errno
        .map_or_else(|| "no error number".to_owned(), |errno| errno.to_string());
    Exit::Broken(format!(
        "the kernel answered {} to a submission ({errno})",
        entered.outcome.label()
    ))
}
