//! One timer per flow, at a cost that does not grow with the number of flows.
//!
//! Owns a hierarchical timing wheel over slot indices of the flow table: five levels of 64 buckets, each bucket a doubly
//! linked list threaded through one 16-byte node per slot, and one bit per bucket that says whether it holds anything.
//! Scheduling, moving and cancelling touch a node and its neighbours; a node moves down at most four levels before it
//! expires. It must never fire early, never walk empty ticks, and never allocate except to cover a slot not seen before.

use std::time::Duration;

use crate::time::{Time, saturating_nanos};

/// A tick that suits relay timers: far below any timeout, and a worker with idle flows wakes at most 250 times a second.
pub const DEFAULT_TICK: Duration = Duration::from_millis(4);

const LEVELS: usize = 5;
const DIGIT_BITS: u32 = 6;
const BUCKETS_PER_LEVEL: usize = 1 << DIGIT_BITS;
const TOP: usize = LEVELS - 1;
const BUCKETS: usize = LEVELS * BUCKETS_PER_LEVEL;
/// Ticks that the wheel tells apart: 49 days at 4 ms. A later deadline waits in the last bucket and is placed again.
/// One top bucket short of a whole turn, so that no bucket means both this turn and the next.
const HORIZON_TICKS: u64 = (1 << (DIGIT_BITS * LEVELS as u32)) - (1 << (DIGIT_BITS * TOP as u32));

/// No slot: the end of a list.
const NONE: u32 = u32::MAX;
/// The bucket of a node that is not scheduled.
const UNSCHEDULED: usize = BUCKETS;
/// Where nodes wait that [`Timers::expire`] has taken out of the wheel and will place again.
const REPLACING: usize = BUCKETS + 1;

/// Ticks fit in 55 bits when a tick is no shorter than this, which leaves 9 for the bucket.
const SHORTEST_TICK_NANOS: u64 = 1_000;
const TICK_BITS: u32 = 55;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;

#[derive(Clone, Copy)]
struct Node {
    previous: u32,
    next: u32,
    /// The bucket in the upper 9 bits, the deadline in ticks in the lower 55: 16 bytes a slot and no more.
    bucket_and_deadline: u64,
}

impl Node {
    const IDLE: Node = Node {
        previous: NONE,
        next: NONE,
        bucket_and_deadline: (UNSCHEDULED as u64) << TICK_BITS,
    };

    fn bucket(&self) -> usize {
        (self.bucket_and_deadline >> TICK_BITS) as usize
    }

    fn deadline(&self) -> u64 {
        self.bucket_and_deadline & TICK_MASK
    }

    fn set(&mut self, bucket: usize, deadline: u64) {
        self.bucket_and_deadline = ((bucket as u64) << TICK_BITS) | deadline;
    }
}

/// The timers of one worker's flows: at most one per slot.
pub struct Timers {
    tick_nanos: u64,
    start: Time,
    /// The tick up to which everything has expired. Buckets are told apart by how they differ from it.
    elapsed: u64,
    nodes: Vec<Node>,
    heads: [u32; BUCKETS + 2],
    occupied: [u64; LEVELS],
    scheduled: usize,
    /// List operations done so far; what the tests bound instead of the time taken.
    #[cfg(test)]
    steps: u64,
}

impl Timers {
    /// No timers yet. `tick` is the precision, at least 1 us ([`DEFAULT_TICK`] suits a relay); `start` is the present.
    #[must_use]
    pub fn new(tick: Duration, start: Time) -> Self {
        Timers {
            tick_nanos: saturating_nanos(tick).max(SHORTEST_TICK_NANOS),
            start,
            elapsed: 0,
            nodes: Vec::new(),
            heads: [NONE; BUCKETS + 2],
            occupied: [0; LEVELS],
            scheduled: 0,
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Sets the timer of `slot` to `deadline`, moving it when it is already set. A deadline in the past expires at the
    /// next [`expire`](Timers::expire); [`Time::MAX`] never comes. Memory is 16 bytes times the highest slot ever scheduled, so slots must be
    /// indices of a table and small; `u32::MAX` is no slot and is ignored.
    pub fn schedule(&mut self, slot: u32, deadline: Time) {
        if slot == NONE {
            return;
        }
        let index = slot as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node::IDLE);
        }
        let deadline = self.ticks_rounded_up(deadline);
        let bucket = self.bucket_for(deadline);
        // An idle timer that moves with every message mostly stays in its bucket: then only its own node is touched.
        if self.nodes[index].bucket() == bucket {
            self.nodes[index].set(bucket, deadline);
            self.count_step();
            return;
        }
        self.unlink(slot);
        self.link(slot, bucket, deadline);
    }

    /// Removes the timer of `slot`; does nothing when there is none.
    pub fn cancel(&mut self, slot: u32) {
        if (slot as usize) < self.nodes.len() {
            self.unlink(slot);
        }
    }

    /// Whether the timer of `slot` is set.
    #[cfg(test)]
    #[must_use]
    pub fn is_scheduled(&self, slot: u32) -> bool {
        self.nodes
            .get(slot as usize)
            .is_some_and(|node| node.bucket() != UNSCHEDULED)
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scheduled == 0
    }

    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scheduled
    }

    /// Calls `expired` with each slot whose deadline has come, its timer already removed: never early, and late by less
    /// than one tick beyond `now`. Earlier buckets come first; within one call there is no finer order. The work is
    /// bounded by the timers touched, however far time has jumped; a `now` before the last one does nothing new.
    pub fn expire(&mut self, now: Time, expired: &mut impl FnMut(u32)) {
        let now = self.ticks_rounded_down(now).max(self.elapsed);
        for level in 0..LEVELS {
            let mut due = self.due_buckets(level, now);
            while due != 0 {
                // In order of time from the present position on; only the top level wraps around.
                let position = self.position(level);
                let digit = (due.rotate_right(position).trailing_zeros() + position)
                    % BUCKETS_PER_LEVEL as u32;
                due &= !(1 << digit);
                let bucket = level * BUCKETS_PER_LEVEL + digit as usize;
                while self.heads[bucket] != NONE {
                    let slot = self.heads[bucket];
                    let deadline = self.nodes[slot as usize].deadline();
                    self.unlink(slot);
                    if deadline <= now {
                        expired(slot);
                    } else {
                        self.link(slot, REPLACING, deadline);
                    }
                }
            }
        }
        self.elapsed = now;
        while self.heads[REPLACING] != NONE {
            let slot = self.heads[REPLACING];
            let deadline = self.nodes[slot as usize].deadline();
            self.unlink(slot);
            self.link(slot, self.bucket_for(deadline), deadline);
        }
    }

    /// When to call [`expire`](Timers::expire) next; `None` without timers. Exact to the tick for the next 64 ticks at
    /// most; beyond that it may be early by the width of the bucket it waits in (then `expire` moves it down and this
    /// tells more closely), and never later than the earliest deadline rounded up to a tick.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        // A lower level's buckets all come before those of the levels above it.
        let level = (0..LEVELS).find(|&level| self.occupied[level] != 0)?;
        let shift = DIGIT_BITS * level as u32;
        let ahead = self.occupied[level]
            .rotate_right(self.position(level))
            .trailing_zeros();
        let ticks = ((self.elapsed >> shift) + u64::from(ahead)) << shift;
        Some(Time::from_nanos(
            self.start
                .as_nanos()
                .saturating_add(ticks.saturating_mul(self.tick_nanos)),
        ))
    }

    fn ticks_rounded_up(&self, time: Time) -> u64 {
        time.as_nanos()
            .saturating_sub(self.start.as_nanos())
            .div_ceil(self.tick_nanos)
    }

    fn ticks_rounded_down(&self, time: Time) -> u64 {
        time.as_nanos().saturating_sub(self.start.as_nanos()) / self.tick_nanos
    }

    /// The digit of the present at `level`.
    fn position(&self, level: usize) -> u32 {
        ((self.elapsed >> (DIGIT_BITS * level as u32)) % BUCKETS_PER_LEVEL as u64) as u32
    }

    /// The bucket for a deadline: its level is that of the highest digit in which it differs from the present.
    fn bucket_for(&self, deadline: u64) -> usize {
        let tick = deadline.clamp(self.elapsed, self.elapsed.saturating_add(HORIZON_TICKS));
        let difference = (tick ^ self.elapsed) | (BUCKETS_PER_LEVEL as u64 - 1);
        let level = (difference.ilog2() / DIGIT_BITS).min(TOP as u32);
        let digit = (tick >> (DIGIT_BITS * level)) % BUCKETS_PER_LEVEL as u64;
        level as usize * BUCKETS_PER_LEVEL + digit as usize
    }

    /// The occupied buckets of `level` whose first tick is at or before `now`, as bits.
    fn due_buckets(&self, level: usize, now: u64) -> u64 {
        let shift = DIGIT_BITS * level as u32;
        let passed = (now >> shift) - (self.elapsed >> shift);
        let ahead = self.occupied[level].rotate_right(self.position(level));
        // Bits 0..=passed of the buckets counted from the present one.
        let reached = if passed >= BUCKETS_PER_LEVEL as u64 - 1 {
            u64::MAX
        } else {
            (2u64 << passed) - 1
        };
        (ahead & reached).rotate_left(self.position(level))
    }

    fn link(&mut self, slot: u32, bucket: usize, deadline: u64) {
        let head = self.heads[bucket];
        let node = &mut self.nodes[slot as usize];
        node.previous = NONE;
        node.next = head;
        node.set(bucket, deadline);
        if head != NONE {
            self.nodes[head as usize].previous = slot;
        }
        self.heads[bucket] = slot;
        if bucket < BUCKETS {
            self.occupied[bucket / BUCKETS_PER_LEVEL] |= 1 << (bucket % BUCKETS_PER_LEVEL);
        }
        self.scheduled += 1;
        self.count_step();
    }

    fn unlink(&mut self, slot: u32) {
        let Node { previous, next, .. } = self.nodes[slot as usize];
        let bucket = self.nodes[slot as usize].bucket();
        if bucket == UNSCHEDULED {
            return;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
        } else {
            self.heads[bucket] = next;
            if next == NONE && bucket < BUCKETS {
                self.occupied[bucket / BUCKETS_PER_LEVEL] &= !(1 << (bucket % BUCKETS_PER_LEVEL));
            }
        }
        self.nodes[slot as usize] = Node::IDLE;
        self.scheduled -= 1;
        self.count_step();
    }

    #[cfg(test)]
    fn count_step(&mut self) {
        self.steps += 1;
    }

    #[cfg(not(test))]
    fn count_step(&mut self) {}
}

#[cfg(test)]
mod tests;
