//! The model's time, and what has to hold when it passes.

use std::time::Duration;

use super::world::World;
use crate::flow::{CloseReason, Ending as What, Phase, Side};
use crate::time::Time;

const TICK: Duration = Duration::from_millis(4);

impl World {
    /// Time passes; timers come at the tick at or after their deadline.
    pub(super) fn pass_to(&mut self, to: Time) {
        let tick = TICK.as_nanos() as u64;
        let to = Time::from_nanos(to.as_nanos().div_ceil(tick) * tick).max(self.now);
        while self.timer_at <= to && self.closed.is_none() {
            let due = Time::from_nanos(self.timer_at.as_nanos().div_ceil(tick) * tick);
            self.now = self.now.max(due);
            self.timer_at = Time::MAX;
            let connecting = self.flow.is_connecting();
            self.flow.on_timer(&self.plan.timeouts, self.now);
            match self.flow.closing() {
                Some(CloseReason::ConnectTimeout) if connecting => {
                    self.causes.insert(CloseReason::ConnectTimeout);
                }
                Some(reason @ (CloseReason::IdleTimeout | CloseReason::HalfCloseTimeout)) => {
                    self.check_timeout(reason);
                    self.causes.insert(reason);
                }
                _ => {}
            }
            self.settle();
            assert!(
                self.timer_at > self.now,
                "a timer that was handled is due again: {:?}",
                self.flow
            );
        }
        self.now = self.now.max(to);
    }

    /// A limit in time is kept to, and nothing moved for as long.
    pub(super) fn check_timeout(&self, reason: CloseReason) {
        let limits = &self.plan.timeouts;
        let limit = if reason == CloseReason::IdleTimeout {
            limits.idle
        } else {
            limits.half_close.min(limits.idle)
        };
        let quiet = self.now.saturating_since(self.moved_at);
        assert!(
            quiet >= limit,
            "{reason:?} though something moved {quiet:?} ago"
        );
    }

    /// Called when the kernel and the peers have nothing more to do: what the flow could do is under way.
    pub(super) fn check_nothing_is_left_undone(&self) {
        if self.flow.is_connecting() || self.flow.closing().is_some() {
            return;
        }
        for side in Side::BOTH {
            let (socket, end) = (&self.sockets[side as usize], &self.flow.ends[side as usize]);
            let sink = &self.sockets[side.other() as usize];
            let queued = self.flow.queue(side).bytes();
            let piped = self
                .flow
                .pipe(side)
                .map_or(0, |pipe| self.pipes[pipe.read as usize / 2].bytes);
            let retries = self.flow.ends.iter().any(|end| end.retry_at > self.now);
            if retries || self.is_short_of_buffers() {
                continue;
            }
            let (flow, splices) = (&self.flow, self.flow.is_splicing());
            assert!(
                queued == 0 || sink.send.is_some(),
                "bytes wait and nobody sends them: {flow:?}"
            );
            assert!(
                piped == 0 || !sink.is_writable(),
                "piped bytes are forgotten: {flow:?}"
            );
            let has_news = socket.is_readable() && !end.ended;
            assert!(
                !(splices && has_news) || piped > 0,
                "a readable stream is forgotten: {flow:?}"
            );
            let may_receive = flow.phase == Phase::Relaying && !end.ended && queued == 0;
            assert!(
                !may_receive || socket.receive.is_some(),
                "nobody receives: {flow:?}"
            );
        }
    }

    pub(super) fn interrupt(&mut self) {
        for from in Side::BOTH {
            if self.flow.interrupt_send(from) {
                self.moving_out[from as usize] = true;
                self.cancel(from.other(), What::Send);
            }
        }
    }
}
