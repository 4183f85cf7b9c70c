//! Relief: what a worker does when buffers run short, or when pushback has become a stall.
//!
//! A stalled taker may hold its share of the pool, but must not keep others from receiving. So its bytes move
//! to memory of their own when the pool is short, and as the last resort whoever holds most is shed.

use std::time::Duration;

use super::Worker;
use crate::backend::pool::ENTRY_BYTES;
use crate::backend::{Backend, OperationKind, Token};
use crate::flow::{CloseReason, FlowId, Side};
use crate::pressure::shed::Rung;
use crate::time::Time;

/// How long bytes have waited before they count as held by a stalled taker.
const HELD_UP: Duration = Duration::from_millis(10);

/// How often a shortage is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A shortage that comes back again and again is left alone for up to so long.
const LOOK_PAUSE_MOST: Duration = Duration::from_millis(80);

/// A shortage that lasts so long, whatever was moved out, is ended by shedding; again after as long.
const SHED_AFTER: Duration = Duration::from_secs(1);

/// A connection idle for so long may be shed in a long stall.
const IDLE_LEAST: Duration = Duration::from_secs(30);

/// Idle connections shed in one turn.
const SHED_PER_TURN: usize = 16;

/// What is known of a shortage that was relieved in part: it may come back at once.
#[derive(Debug, Default)]
pub(super) struct Relieved {
    at: Time,
    /// How long to leave the next one alone.
    pause: Duration,
    shed_at: Option<Time>,
}

/// The pool had no buffer for a receive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shortage {
    shed_at: Time,
    look_at: Time,
}

impl Shortage {
    /// A shortage that shows now; `before` is what is known of the last one.
    pub(super) fn since(now: Time, before: &Relieved) -> Self {
        Shortage {
            shed_at: before.shed_at.unwrap_or(now.saturating_add(SHED_AFTER)),
            look_at: now.max(before.at.saturating_add(before.pause)),
        }
    }

    pub(super) fn next_look(&self) -> Time {
        self.look_at
    }
}

impl<B: Backend> Worker<B> {
    pub(super) fn relieve(&mut self) {
        self.relieve_shortage();
        if self.ladder.rung() == Rung::CancelIdle {
            self.shed_idle();
        }
        if !self.starved.is_empty()
            && self.shortage.is_none()
            && self.ladder.rung() < Rung::PauseReceiving
        {
            self.wake_starved();
        }
    }

    fn relieve_shortage(&mut self) {
        let Some(mut shortage) = self
            .shortage
            .filter(|shortage| self.now >= shortage.look_at)
        else {
            return;
        };
        let usage = self.backend.pool();
        // Woken with little to give, all who wait would only run out again.
        if usage.free_bytes() >= usage.limit_bytes / 2 {
            self.relieved = Relieved::default();
            self.shortage = None;
            return;
        }
        self.withdraw_credits();
        // Moving out frees entries of which little is in use; where all of it is, there is nothing to gain.
        if self.chunks.queued_bytes() < usage.pinned_bytes as u64 / 4 * 3 {
            self.move_out_held_up();
        }
        if usage.free_bytes() >= ENTRY_BYTES as usize {
            // Some can go on; if that is not enough the next receive says so.
            self.wake_starved();
            self.relieved = Relieved {
                at: self.now,
                pause: (self.relieved.pause * 2).clamp(LOOK_EVERY, LOOK_PAUSE_MOST),
                shed_at: Some(shortage.shed_at),
            };
            self.shortage = None;
            if self.now < shortage.shed_at {
                return;
            }
        }
        if self.now >= shortage.shed_at {
            shortage.shed_at = self.now.saturating_add(SHED_AFTER);
            self.shed_largest_holder();
        }
        if self.shortage.is_some() {
            shortage.look_at = self.now.saturating_add(LOOK_EVERY);
            self.shortage = Some(shortage);
        } else {
            self.relieved.shed_at = Some(shortage.shed_at);
        }
    }

    fn withdraw_credits(&mut self) {
        let mut ended = Vec::new();
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            for (side, withdrawn) in Side::BOTH
                .into_iter()
                .zip(connection.flow.withdraw_credit())
            {
                if withdrawn {
                    let key = super::completions::key(id, side);
                    let target = Token::new(OperationKind::Receive, key);
                    ended.push((target, connection.flow.socket(side)));
                }
            }
        }
        for (target, socket) in ended {
            self.end_early(target, socket);
        }
    }

    /// Interrupts the sends of stalled takers, so that their bytes can leave the pool.
    pub(super) fn move_out_held_up(&mut self) {
        let mut ended = Vec::new();
        for id in self.connections.ids() {
            let now = self.now;
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            let flow = &mut connection.flow;
            if now.saturating_since(flow.last_activity()) < HELD_UP {
                continue;
            }
            for from in Side::BOTH {
                // Bytes that moved out before, and nothing since: nothing to gain by another time.
                if self.chunks.holds_entries(flow.queue(from)) && flow.interrupt_send(from) {
                    connection.moves_out[from as usize] = true;
                    let target = Token::new(
                        OperationKind::Send,
                        super::completions::key(id, from.other()),
                    );
                    ended.push((target, flow.socket(from.other())));
                }
            }
        }
        for (target, socket) in ended {
            self.end_early(target, socket);
        }
    }

    /// The interrupted send is over: copies what waits into memory of its own and frees its buffers.
    pub(super) fn move_out(&mut self, id: FlowId, from: Side) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.moves_out[from as usize] = false;
        if connection.flow.closing().is_some() || connection.flow.queue(from).is_empty() {
            return;
        }
        let mut bytes = Vec::with_capacity(connection.flow.queue(from).bytes() as usize);
        let backend = &mut self.backend;
        self.chunks.for_each(connection.flow.queue(from), |chunk| {
            bytes.extend_from_slice(backend.bytes(chunk));
        });
        let moved = backend.own(&bytes);
        connection.flow.replace_queue(from, moved, &mut self.chunks);
        self.give_back_chunks();
    }

    fn shed_largest_holder(&mut self) {
        let mut largest: Option<(u32, FlowId)> = None;
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            let flow = &connection.flow;
            let stalled = self.now.saturating_since(flow.last_activity()) >= HELD_UP;
            let held = Side::BOTH.map(|from| flow.queue(from).bytes()).iter().sum();
            let may_go = stalled && held > 0 && flow.closing().is_none();
            if may_go && largest.is_none_or(|(most, _)| held > most) {
                largest = Some((held, id));
            }
        }
        if let Some((held_bytes, id)) = largest {
            let worker = self.surroundings.index;
            tracing::warn!(
                worker,
                held_bytes,
                "the buffer pool is used up: the connection that holds most is shed"
            );
            self.shed(id);
        }
    }

    /// Ends connections that have long been idle, to take work off a kernel that takes none.
    fn shed_idle(&mut self) {
        let mut shed = 0;
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            let idle = self.now.saturating_since(connection.flow.last_activity());
            if connection.flow.is_idle() && idle >= IDLE_LEAST {
                self.shed(id);
                shed += 1;
                if shed == SHED_PER_TURN {
                    return;
                }
            }
        }
    }

    fn shed(&mut self, id: FlowId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.flow.end(CloseReason::Shed);
        }
        self.touch(id);
    }
}
