//! What a worker publishes: counters, levels and histograms that any thread may read while it runs.
//!
//! Each value has one writer, its worker, so that counting is a plain load and store, without a lock or an
//! atomic addition. A reader sees each value whole, and may see two of them a moment apart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::Outcome;
use crate::flow::{CloseReason, Side};
use crate::pressure::gate::PauseReason;

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Value(AtomicU64);

impl Value {
    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes it `value`. Only its one writer may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to it. Only its one writer may.
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }
}

/// How often values fell into each of a row of ranges, and their sum.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// The upper bound of each range, in the unit that `per_unit` makes of the recorded numbers.
    pub bounds: &'static [u64; N],
    /// Recorded numbers in one unit of the metric: a billion for nanoseconds told as seconds.
    pub per_unit: f64,
    counts: [Value; N],
    above: Value,
    sum: Value,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [u64; N], per_unit: f64) -> Self {
        Histogram {
            bounds,
            per_unit,
            counts: std::array::from_fn(|_| Value::default()),
            above: Value::default(),
            sum: Value::default(),
        }
    }

    /// Records one number.
    pub fn record(&self, number: u64) {
        let place = self.bounds.iter().position(|&bound| number <= bound);
        place
            .map_or(&self.above, |place| &self.counts[place])
            .add(1);
        self.sum.add(number);
    }

    /// Cumulative counts for each bound, the count of all, and the sum in the metric's unit.
    pub fn read(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut cumulative = 0;
        let mut ranges = Vec::with_capacity(N);
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            cumulative += count.get();
            ranges.push((*bound as f64 / self.per_unit, cumulative));
        }
        (
            ranges,
            cumulative + self.above.get(),
            self.sum.get() as f64 / self.per_unit,
        )
    }
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

static BACKOFF_BOUNDS: [u64; 10] = [
    20 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    200 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
];
static BATCH_BOUNDS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
static CONNECT_BOUNDS: [u64; 10] = [
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    5 * MILLISECOND,
    25 * MILLISECOND,
    100 * MILLISECOND,
    500 * MILLISECOND,
    2_000 * MILLISECOND,
];

/// Why an operation was started again, or a turn repeated, though nobody asked for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It failed with EAGAIN: the kernel could not arm its poll.
    Again,
    /// It failed for lack of the kernel's memory.
    Memory,
    /// It was cancelled, and not by us.
    Cancelled,
    /// An accept failed.
    Accept,
    /// Completions waited in the kernel, as their queue was full.
    Overflow,
}

impl Retry {
    /// Every reason, in the order of [`Retry::index`].
    pub const ALL: [Retry; 5] = [
        Retry::Again,
        Retry::Memory,
        Retry::Cancelled,
        Retry::Accept,
        Retry::Overflow,
    ];

    /// Its place in [`Retry::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Retry::Again => "eagain",
            Retry::Memory => "enomem",
            Retry::Cancelled => "ecanceled",
            Retry::Accept => "accept",
            Retry::Overflow => "cq_overflow",
        }
    }
}

/// What one worker publishes.
#[derive(Debug)]
pub struct WorkerStats {
    /// When the loop last turned, in nanoseconds since the process's epoch. 0 before the first turn.
    pub last_turn_nanos: Value,
    /// Submissions by outcome, in the order of [`Outcome::ALL`].
    pub submissions: [Value; Outcome::ALL.len()],
    /// How long each wait in backoff was meant to be.
    pub backoff: Histogram<10>,
    /// Operations in each submission.
    pub batch_size: Histogram<9>,
    /// The most operations in the next submission.
    pub batch_limit: Value,
    /// Operations whose last completion has not come.
    pub operations_in_flight: Value,
    /// The most that may be in flight.
    pub operations_budget: Value,
    /// Pushback that outlasted `maxRetries`.
    pub stalls: Value,
    /// Where on the ladder of reactions the worker stands, as an index of `Rung::ALL`.
    pub rung: Value,
    /// 0 while accepting; else 1 + the index of the reason in [`PauseReason::ALL`].
    pub accept_pause: Value,
    /// Pauses begun, by reason, in the order of [`PauseReason::ALL`].
    pub accept_pauses: [Value; PauseReason::ALL.len()],
    /// Connections open.
    pub connections_open: Value,
    /// Time from accept to the upstream's connect.
    pub connect: Histogram<10>,
    /// Bytes moved by splice.
    pub spliced_bytes: Value,
    /// Operations started again, by reason, in the order of [`Retry::ALL`].
    pub retries: [Value; Retry::ALL.len()],
    /// Times a receive found no buffer.
    pub buffer_shortages: Value,
    /// The most the buffer pool may take, in bytes.
    pub pool_limit_bytes: Value,
    /// What the pool has taken, in bytes.
    pub pool_allocated_bytes: Value,
    /// What cannot be filled before something is sent, in bytes.
    pub pool_pinned_bytes: Value,
    /// Bytes that wait to be sent.
    pub queued_bytes: Value,
    /// Pipes that streams hold places for.
    pub pipes_held: Value,
    /// The most of them.
    pub pipes_limit: Value,
    /// The share of pushback over the last second, in percent.
    pub pushback_percent: Value,
    /// 1 + the time since when pushback is sustained, in nanoseconds since the epoch; 0 when it is not.
    pub sustained_since: Value,
    /// Whether this worker judges itself unready (1) or ready (0).
    pub unready: Value,
    /// Times the backend had to be built anew.
    pub backend_rebuilds: Value,
    /// Access log lines that were not written, because of the rate limit or a full queue.
    pub access_log_dropped: Value,
}

impl Default for WorkerStats {
    fn default() -> Self {
        let values = || Value::default();
        WorkerStats {
            last_turn_nanos: values(),
            submissions: std::array::from_fn(|_| values()),
            backoff: Histogram::new(&BACKOFF_BOUNDS, 1e9),
            batch_size: Histogram::new(&BATCH_BOUNDS, 1.0),
            batch_limit: values(),
            operations_in_flight: values(),
            operations_budget: values(),
            stalls: values(),
            rung: values(),
            accept_pause: values(),
            accept_pauses: std::array::from_fn(|_| values()),
            connections_open: values(),
            connect: Histogram::new(&CONNECT_BOUNDS, 1e9),
            spliced_bytes: values(),
            retries: std::array::from_fn(|_| values()),
            buffer_shortages: values(),
            pool_limit_bytes: values(),
            pool_allocated_bytes: values(),
            pool_pinned_bytes: values(),
            queued_bytes: values(),
            pipes_held: values(),
            pipes_limit: values(),
            pushback_percent: values(),
            sustained_since: values(),
            unready: values(),
            backend_rebuilds: values(),
            access_log_dropped: values(),
        }
    }
}

impl WorkerStats {
    /// Counts one operation that has to be started again.
    pub fn retried(&self, why: Retry) {
        self.retries[why.index()].add(1);
    }

    /// Counts one submission.
    pub fn submitted(&self, outcome: Outcome, taken: u32) {
        self.submissions[outcome.index()].add(1);
        if taken > 0 {
            self.batch_size.record(u64::from(taken));
        }
    }

    /// Counts one wait in backoff.
    pub fn backed_off(&self, wait: Duration) {
        self.backoff.record(wait.as_nanos() as u64);
    }
}

/// What one worker publishes of one relay.
#[derive(Debug, Default)]
pub struct RelayStats {
    /// Connections accepted.
    pub opened: Value,
    /// Connections ended, by reason, in the order of [`CloseReason::ALL`].
    pub closed: [Value; CloseReason::ALL.len()],
    /// Bytes passed on, by the side that they came from: client, upstream.
    pub relayed_bytes: [Value; 2],
}

impl RelayStats {
    /// Connections that are open.
    pub fn connections_open(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(Value::get).sum();
        self.opened.get().saturating_sub(closed)
    }

    /// Counts bytes passed on.
    pub fn relayed(&self, from: Side, bytes: u64) {
        self.relayed_bytes[from as usize].add(bytes);
    }
}
