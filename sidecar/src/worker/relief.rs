//! Relief: what a worker does when buffers run short, or when pushback has become a stall.
//!
//! A stalled taker may hold its share of the pool, but must not keep others from receiving. So its bytes move
//! to memory of their own when the pool is short, and as the last resort whoever holds most is shed.

use std::time::Duration;

use super::{Waiting, Worker, mark_dirty};
use crate::backend::{Backend, OperationKind, Token};
use crate::flow::{CloseReason, FIRST_CREDIT_BYTES, FlowId, Side};
use crate::pressure::shed::Rung;
use crate::time::Time;

/// How long bytes have waited before they count as held by a stalled taker.
const HELD_UP: Duration = Duration::from_millis(10);

/// How soon a shortage is looked at again, at first.
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
    /// Between looks that change nothing.
    look_pause: Duration,
}

impl Shortage {
    /// A shortage that shows now; `before` is what is known of the last one.
    pub(super) fn since(now: Time, before: &Relieved) -> Self {
        Shortage {
            shed_at: before.shed_at.unwrap_or(now.saturating_add(SHED_AFTER)),
            look_at: now.max(before.at.saturating_add(before.pause)),
            look_pause: LOOK_EVERY,
        }
    }

    pub(super) fn next_look(&self) -> Time {
        self.look_at
    }
}

impl<B: Backend> Worker<B> {
    pub(super) fn relieve(&mut self) {
        let usage = self.backend.pool();
        if self.shortage.is_none() && usage.pinned_bytes > usage.limit_bytes {
            // What has moved out counts: it may not take more than the pool for long.
            self.shortage = Some(Shortage::since(self.now, &self.relieved));
        }
        self.relieve_shortage();
        if self.ladder.rung() == Rung::CancelIdle {
            self.shed_idle();
        }
        // What receives that wait in the queue will take is not known yet.
        if self.may_wake() && self.backend.queued() == 0 {
            self.wake_starved();
        }
    }

    /// Whether connections wait to receive which now may, as far as there is room.
    pub(super) fn may_wake(&self) -> bool {
        !self.starved.is_empty()
            && self.shortage.is_none()
            && self.ladder.rung() < Rung::PauseReceiving
    }

    /// Lets as many connections receive again as there is room for, first come first served. If there is room
    /// for none, the wait is a shortage like one that a receive met.
    fn wake_starved(&mut self) {
        let room = self.room_for_receives();
        if room == 0 {
            self.shortage = Some(Shortage::since(self.now, &self.relieved));
            self.surroundings.stats.buffer_shortages.add(1);
            return;
        }
        let woken = room.min(self.starved.len());
        for id in self.starved.drain(..woken) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.waiting = Waiting::Woken;
                mark_dirty(&mut self.dirty, id, connection);
            }
        }
    }

    /// How many receives there are buffers for.
    fn room_for_receives(&self) -> usize {
        let each_bytes = self.share_bytes().min(FIRST_CREDIT_BYTES);
        self.backend.pool().free_bytes / each_bytes as usize
    }

    fn relieve_shortage(&mut self) {
        let Some(mut shortage) = self.shortage else {
            return;
        };
        let usage = self.backend.pool();
        let is_over = usage.pinned_bytes > usage.limit_bytes;
        let is_roomy = usage.free_bytes >= usage.limit_bytes / 2;
        if is_roomy && !(is_over && self.now >= shortage.shed_at) {
            self.relieved = Relieved {
                shed_at: is_over.then_some(shortage.shed_at),
                ..Relieved::default()
            };
            self.shortage = None;
            return;
        }
        if self.now < shortage.look_at {
            return;
        }
        self.withdraw_credits();
        // Moving out frees entries of which little is in use. Where all of it is, the same memory would only
        // lie elsewhere; but before nobody could receive any more it may lie there, until enough is shed.
        let is_sparse = self.chunks.queued_bytes() < usage.pinned_bytes as u64 / 4 * 3;
        if is_sparse || self.room_for_receives() == 0 {
            self.move_out_held_up();
        }
        if self.now >= shortage.shed_at {
            shortage.shed_at = self.now.saturating_add(SHED_AFTER);
            self.shed_largest_holders(usage.pinned_bytes.saturating_sub(usage.limit_bytes));
        }
        if self.room_for_receives() > 0 {
            // Some can go on; if that is not enough the next receive says so.
            self.relieved = Relieved {
                at: self.now,
                pause: (self.relieved.pause * 2).clamp(LOOK_EVERY, LOOK_PAUSE_MOST),
                shed_at: Some(shortage.shed_at),
            };
            self.shortage = None;
        } else {
            shortage.look_at = self.now.saturating_add(shortage.look_pause);
            shortage.look_pause = (shortage.look_pause * 2).min(LOOK_PAUSE_MOST);
            self.shortage = Some(shortage);
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

    /// Sheds who holds most of those that have moved nothing for long, then of those that are held up: one of them, or as
    /// many as hold a quarter of what is over the limit.
    fn shed_largest_holders(&mut self, over_bytes: usize) {
        let mut holders = Vec::new();
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            let flow = &connection.flow;
            let idle = self.now.saturating_since(flow.last_activity());
            let held: u32 = Side::BOTH.map(|from| flow.queue(from).bytes()).iter().sum();
            if idle >= HELD_UP && held > 0 && flow.closing().is_none() {
                holders.push(((idle >= SHED_AFTER, held), id));
            }
        }
        holders.sort_by_key(|&(rank, _)| std::cmp::Reverse(rank));
        let (mut shed, mut shed_bytes) = (0, 0);
        for ((_, held), id) in holders {
            if shed > 0 && shed_bytes >= over_bytes / 4 {
                break;
            }
            shed += 1;
            shed_bytes += held as usize;
            self.shed(id);
        }
        if shed > 0 {
            let worker = self.surroundings.index;
            tracing::warn!(
                worker,
                connections = shed,
                held_bytes = shed_bytes,
                "the buffer pool is used up: the connections that hold most are shed"
            );
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
