//! What one run is about, all of it from one seed: settings, faults, clients, and what the worker is told when.
//!
//! Each kind of fault is left out of most runs and frequent in some, as mixtures in which everything happens a little
//! find less than runs with a few things in excess.

use std::time::Duration;

use fastrand::Rng;
use ringside_api::Settings;
use ringside_api::settings::{AccessLogMode, BatchMode, Jitter, ReadinessMode};
use ringside_api::units::{Size, Span};

use crate::backend::simulated::Traits;
use crate::backend::simulated::faults::{ConnectFaults, Faults, Pushback, Window};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

/// How a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With the end of its stream, once all is sent; it reads to the end of the other.
    InOrder,
    /// By a reset after so many bytes were sent.
    Reset(u64),
    /// It does nothing any more after so many bytes were sent, and says nothing.
    Vanish(u64),
}

/// When a peer begins to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At once.
    AtOnce,
    /// After so many bytes have come.
    AfterBytes(u64),
    /// After the other's stream has ended: the answer to a request that is finished.
    AfterTheEnd,
}

/// What a peer does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script {
    /// Bytes that it sends in all.
    pub(super) total: u64,
    /// The most that it sends, and reads, at a time.
    pub(super) piece: u64,
    /// The longest pause between two times, in nanoseconds.
    pub(super) pause: u64,
    /// When it begins to send.
    pub(super) start: Start,
    /// How it ends.
    pub(super) ending: Ending,
    /// For so long it does nothing, once half is sent, in nanoseconds.
    pub(super) stall: u64,
}

/// What the worker is told.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// Obey these settings.
    Settings(Box<Settings>),
    /// Accept no more.
    Unlisten,
    /// Accept again.
    Listen,
    /// Leave.
    Finish(Duration),
    /// The target has no address, or has one again.
    Addresses(bool),
    /// The clock jumps, in nanoseconds.
    Jump(u64),
}

/// A run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// What it came from.
    pub(super) seed: u64,
    /// Settings at first.
    pub(super) settings: Settings,
    /// What goes wrong.
    pub(super) faults: Faults,
    /// What the backend can do.
    pub(super) traits: Traits,
    /// When clients come, in nanoseconds, and what they do.
    pub(super) clients: Vec<(u64, Script)>,
    /// What the worker is told, and when.
    pub(super) orders: Vec<(u64, Order)>,
    /// From here on all is well, in nanoseconds.
    pub(super) calm_at: u64,
    /// RLIMIT_NOFILE.
    pub(super) descriptor_limit: u32,
    /// How many may wait to be accepted.
    pub(super) backlog: usize,
    /// What kernels hold of a stream each way.
    pub(super) capacity: u64,
    /// Targets are told who the client is.
    pub(super) sends_header: bool,
    /// Connections are redirected, and go where they were to go.
    pub(super) intercepts: bool,
    /// Every setting that was ever in effect, the first included.
    pub(super) all_settings: Vec<Settings>,
}

/// One of several values, each as likely.
fn one_of<T: Copy>(random: &mut Rng, values: &[T]) -> T {
    values[random.usize(0..values.len())]
}

/// A rate of a fault: mostly none.
fn rate(random: &mut Rng) -> u32 {
    one_of(random, &[0, 0, 0, 0, 0, 5, 30, 200])
}

impl Plan {
    /// The run of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let random = &mut Rng::with_seed(seed);
        let calm_at = one_of(random, &[20, 100, 400, 1_500, 6_000]) * MILLISECOND;
        let settings = settings(random);
        let is_bulk = random.u32(0..6) == 0;
        let count = if is_bulk {
            random.usize(1..4)
        } else {
            one_of(random, &[1, 2, 3, 6, 12, 30])
        };
        let clients = (0..count)
            .map(|_| (random.u64(0..calm_at), script(random, is_bulk)))
            .collect();
        let mut plan = Plan {
            seed,
            settings,
            faults: faults(random, calm_at),
            traits: Traits {
                entries: one_of(random, &[4, 16, 64, 256]),
                exact_receive_limit: random.u32(0..4) > 0,
                prewarmed_operations: one_of(random, &[0, 0, 300, 4096]),
                has_pushback: true,
            },
            clients,
            orders: Vec::new(),
            calm_at,
            descriptor_limit: one_of(random, &[48, 64, 1_000, 1_000, 1_000]),
            backlog: one_of(random, &[1, 4, 64]),
            capacity: one_of(random, &[1 << 10, 16 << 10, 128 << 10, 512 << 10]),
            sends_header: random.u32(0..4) == 0,
            // By numbers of its own, so that everything else of a seed stays as it was.
            intercepts: Rng::with_seed(!seed).u32(0..4) == 0,
            all_settings: vec![settings],
        };
        plan.add_orders(random);
        let longest = plan.most(|s| s.backoff.max).unwrap_or_default();
        plan.faults.patience = if plan.jumps() {
            u64::MAX
        } else {
            longest.duration().as_nanos() as u64 + 2 * MILLISECOND
        };
        plan
    }

    fn add_orders(&mut self, random: &mut Rng) {
        for _ in 0..one_of(random, &[0, 0, 1, 3]) {
            let at = random.u64(0..self.calm_at);
            let new = settings(random);
            self.all_settings.push(new);
            self.orders.push((at, Order::Settings(Box::new(new))));
        }
        // Limits of connections that go up and down, with all else as it is.
        for _ in 0..one_of(random, &[0, 0, 0, 4]) {
            let at = random.u64(0..self.calm_at);
            let mut new = self.settings;
            new.accept.max_connections = one_of(random, &[1, 2, 5, 20, 300]);
            new.accept.per_source = one_of(random, &[0, 1, 2, 5]);
            self.all_settings.push(new);
            self.orders.push((at, Order::Settings(Box::new(new))));
        }
        for _ in 0..one_of(random, &[0, 0, 0, 2]) {
            let at = random.u64(0..self.calm_at);
            self.orders.push((at, Order::Unlisten));
            let later = at + random.u64(0..200 * MILLISECOND);
            self.orders.push((later, Order::Listen));
        }
        for _ in 0..one_of(random, &[0, 0, 0, 0, 1, 2]) {
            let by = one_of(random, &[5, 500, 30_000]) * MILLISECOND;
            let at = random.u64(0..self.calm_at);
            self.orders.push((at, Order::Jump(by)));
        }
        for _ in 0..one_of(random, &[0, 0, 0, 1]) {
            let at = random.u64(0..self.calm_at);
            self.orders.push((at, Order::Addresses(false)));
            let later = at + random.u64(0..100 * MILLISECOND);
            self.orders.push((later, Order::Addresses(true)));
        }
        if random.u32(0..10) == 0 {
            let limit = Duration::from_millis(one_of(random, &[0, 20, 1_000]));
            let at = random.u64(0..self.calm_at);
            self.orders.push((at, Order::Finish(limit)));
        }
    }

    /// Whether the clock jumps in this run.
    pub(super) fn jumps(&self) -> bool {
        self.orders
            .iter()
            .any(|(_, order)| matches!(order, Order::Jump(_)))
    }

    /// Whether the target is without an address at times.
    pub(super) fn loses_addresses(&self) -> bool {
        self.orders
            .iter()
            .any(|(_, order)| matches!(order, Order::Addresses(_)))
    }

    /// Whether it ends before all is well.
    pub(super) fn ends_early(&self) -> bool {
        self.orders
            .iter()
            .any(|(_, order)| matches!(order, Order::Finish(_)))
    }

    /// The largest value that a setting ever has.
    pub(super) fn most<T: Ord>(&self, of: impl Fn(&Settings) -> T) -> Option<T> {
        self.all_settings.iter().map(of).max()
    }

    /// The smallest value that a setting ever has.
    pub(super) fn least<T: Ord>(&self, of: impl Fn(&Settings) -> T) -> Option<T> {
        self.all_settings.iter().map(of).min()
    }
}

/// What a peer does, at random.
pub(super) fn script(random: &mut Rng, is_bulk: bool) -> Script {
    let total = if is_bulk {
        random.u64(0..3 << 20)
    } else {
        let most = one_of(random, &[0, 8, 500, 20_000, 200_000]);
        random.u64(0..=most)
    };
    let ending = match random.u32(0..12) {
        0 => Ending::Reset(random.u64(0..=total)),
        1 => Ending::Vanish(random.u64(0..=total)),
        _ => Ending::InOrder,
    };
    let start = match random.u32(0..6) {
        0 => Start::AfterBytes(random.u64(1..=8)),
        1 => Start::AfterTheEnd,
        _ => Start::AtOnce,
    };
    Script {
        total,
        piece: if is_bulk {
            one_of(random, &[64 << 10, 256 << 10])
        } else {
            one_of(random, &[1, 100, 4_096, 65_536])
        }
        .max(total / 300),
        pause: one_of(random, &[10_000, 200_000, 3 * MILLISECOND]),
        start,
        ending,
        stall: one_of(random, &[0, 0, 0, 0, 30, 800, 4_000]) * MILLISECOND,
    }
}

fn settings(random: &mut Rng) -> Settings {
    let mut s = Settings::default();
    s.access_log.mode = AccessLogMode::All;
    s.access_log.max_per_second = 100_000;
    let millis = |random: &mut Rng, of: &[u64]| Span::from_millis(one_of(random, of));
    if random.bool() {
        s.backoff.initial = Span::from_micros(one_of(random, &[1, 50, 1_000]));
        s.backoff.max = millis(random, &[5, 50, 400]);
        s.backoff.jitter = one_of(random, &[Jitter::Full, Jitter::Equal, Jitter::None]);
        s.backoff.max_retries = one_of(random, &[1, 4, 10]);
    }
    if random.bool() {
        s.batch.mode = one_of(random, &[BatchMode::Adaptive, BatchMode::Fixed]);
        s.batch.min = one_of(random, &[1, 8]);
        s.batch.max = one_of(random, &[8, 32, 256]);
    }
    if random.bool() {
        s.accept.max_connections = one_of(random, &[1, 2, 5, 300]);
        s.accept.max_per_second = one_of(random, &[10, 200, 5_000]);
        s.accept.per_source = one_of(random, &[0, 0, 1, 3]);
    }
    if random.bool() {
        s.buffers.pool = Size::from_kib(one_of(random, &[128, 256, 1_024]));
        s.buffers.per_direction = Size::from_kib(one_of(random, &[4, 16, 128]));
        s.buffers.pipes = one_of(random, &[0, 2, 128]);
    }
    if random.bool() {
        s.timeouts.idle = millis(random, &[50, 500, 5_000]);
        s.timeouts.half_close = millis(random, &[20, 200, 5_000]);
        s.timeouts.connect = millis(random, &[5, 100, 2_000]);
    } else {
        s.timeouts.connect = millis(random, &[2_000]);
    }
    s.readiness.unready_after = millis(random, &[10, 500, 2_000]);
    s.readiness.recover_after = millis(random, &[100, 2_000]);
    s.readiness.mode = one_of(random, &[ReadinessMode::Leave, ReadinessMode::Report]);
    s
}

fn faults(random: &mut Rng, calm_at: u64) -> Faults {
    let mut windows = Vec::new();
    for _ in 0..one_of(random, &[0, 0, 1, 1, 3]) {
        let from = random.u64(0..calm_at);
        let longest = one_of(
            random,
            &[50_000, 5 * MILLISECOND, 300 * MILLISECOND, 5 * SECOND],
        );
        let to = (from + random.u64(0..longest)).min(calm_at);
        let some = Pushback::Some(random.u32(1..=4));
        let kinds = [
            Pushback::Interrupted,
            Pushback::Again,
            Pushback::Again,
            Pushback::Again,
            Pushback::Busy,
            Pushback::NoMemory,
            some,
            some,
        ];
        let what = one_of(random, &kinds);
        windows.push(Window { from, to, what });
    }
    if random.u32(0..25) == 0 {
        let from = random.u64(0..calm_at);
        let what = one_of(random, &[Pushback::Forbidden, Pushback::Lost]);
        // To the end: a call that is forbidden stays so.
        windows.push(Window {
            from,
            to: calm_at,
            what,
        });
    }
    Faults {
        until: calm_at,
        windows,
        interrupted: rate(random),
        lying: rate(random),
        partly: rate(random),
        multishot_ends: rate(random),
        cancels: rate(random),
        no_memory: rate(random),
        arm_fails: rate(random),
        no_buffers: rate(random),
        accept_fails: rate(random),
        no_descriptor: rate(random),
        short: rate(random),
        late: rate(random),
        connect: ConnectFaults {
            refused: rate(random),
            unreachable: rate(random),
            black_hole: rate(random),
            other: rate(random),
            again: rate(random),
        },
        patience: u64::MAX,
        completions_most: one_of(random, &[2, 16, 4_096, 4_096, 4_096]),
    }
}
