//! What a flow receives: how much at a time, when not, and how it still hears of a reset then. Pure.

use super::{Action, CloseReason, Ending, FIRST_CREDIT_BYTES, Flow, Operation, Phase, Side, View};
use crate::backend::Errno;

impl Flow {
    pub(super) fn next_receive(&mut self, side: Side, view: &View) -> Option<Action> {
        let direction = &mut self.directions[side as usize];
        let queued = direction.queue.bytes();
        let end = &mut self.ends[side as usize];
        match end.receive {
            Operation::Idle if end.ended || view.now < end.retry_at => None,
            // Half the share has to be free, so that a slow taker does not make for many small receives.
            Operation::Idle if view.may_receive && queued <= view.share_bytes / 2 => {
                end.receive = Operation::Running;
                let limit_bytes = direction.credit_bytes.min(view.share_bytes - queued);
                if std::mem::take(&mut direction.was_taken) {
                    let doubled = direction.credit_bytes.saturating_mul(2);
                    direction.credit_bytes = doubled.min(view.share_bytes.max(FIRST_CREDIT_BYTES));
                }
                Some(Action::Receive { side, limit_bytes })
            }
            Operation::Running if !view.exact_receive_limit && queued >= view.share_bytes => {
                end.receive = Operation::Cancelling;
                Some(Action::Cancel {
                    side,
                    what: Ending::Receive,
                })
            }
            _ => None,
        }
    }

    /// Whether the receive from `side` was cancelled by us.
    pub fn ends_receive(&self, side: Side) -> bool {
        self.ends[side as usize].receive == Operation::Cancelling
    }

    /// Buffers are short: takes back claims to more than a first receive's, by ending receives that run under
    /// them. The worker cancels those named.
    pub fn withdraw_credit(&mut self) -> [bool; 2] {
        Side::BOTH.map(|side| {
            let direction = &mut self.directions[side as usize];
            let receive = &mut self.ends[side as usize].receive;
            let withdraws =
                direction.credit_bytes > FIRST_CREDIT_BYTES && *receive == Operation::Running;
            direction.credit_bytes = FIRST_CREDIT_BYTES;
            if withdraws {
                *receive = Operation::Cancelling;
            }
            withdraws
        })
    }

    /// Whether it wants to receive, from one side at least, and does not.
    pub fn lacks_receive(&self, share_bytes: u32) -> bool {
        let lacks = |side: Side| {
            let end = &self.ends[side as usize];
            let queued = self.directions[side as usize].queue.bytes();
            end.receive == Operation::Idle && !end.ended && queued <= share_bytes / 2
        };
        self.phase == Phase::Relaying && self.closing.is_none() && Side::BOTH.into_iter().any(lacks)
    }

    /// Watches a side that nothing is received from: a reset of it would show nowhere else.
    pub(super) fn next_watch(&mut self) -> Option<Action> {
        for side in Side::BOTH {
            if self.is_unheard(side) {
                self.ends[side as usize].watch = Operation::Running;
                return Some(Action::Watch { side });
            }
        }
        self.watch_is_due = false;
        None
    }

    /// Whether a side could break without the flow noticing.
    pub(super) fn is_unheard(&self, side: Side) -> bool {
        let end = &self.ends[side as usize];
        end.receive == Operation::Idle && !end.ended && end.watch == Operation::Idle
    }

    /// The watch of `side` ended: the connection broke, or something else that its receive will tell.
    pub fn on_watched(&mut self, side: Side, is_broken: bool) {
        self.ends[side as usize].watch = Operation::Idle;
        if is_broken {
            self.end(CloseReason::of_connection(side, Errno(libc::ECONNRESET)));
        }
    }
}
