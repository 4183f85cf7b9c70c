//! The clients that nobody may disturb, and the judgement on how much they were.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringside_tests::await_that;
use ringside_tests::relay::{Kind, Relay};
use ringside_tests::skip::skip;
use ringside_tests::traffic::{Pattern, Stream};

use crate::attackers::go_first;

/// Rounds of a quiet and a disturbed phase; odd, so that there is one in the middle.
const ROUNDS: usize = 5;

/// How long each phase is measured.
const PHASE: Duration = Duration::from_millis(300);

/// How long a round rests once the attackers are gone, for what they left in the machine's queues.
const REST: Duration = Duration::from_millis(100);

/// Clients with a connection each, which ping now and then.
const CLIENTS: u64 = 4;

/// Between two pings of one client.
const PAUSE: Duration = Duration::from_micros(500);

/// Below this nothing is a disturbance: with two cores and more to do than that, a few slices of the scheduler pass before
/// a thread has its turn.
const FLOOR: Duration = Duration::from_millis(5);

/// Measured again so many times at most: what disturbs is there each time, and what else the machine did is not.
const ATTEMPTS: usize = 3;

/// How many times slower the slowest in a hundred may become.
const FACTOR: u32 = 2;

/// What a measurement itself adds to the machine's load at most: attackers, victims, the relay, the application.
const OWN_LOAD: f64 = 5.0;

/// Tests that measure do so one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// The median over the rounds of what the slowest in a hundred took.
struct Figures {
    quiet: Duration,
    disturbed: Duration,
    pings: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (quiet, disturbed) = (millis(self.quiet), millis(self.disturbed));
        let factor = disturbed / quiet;
        let pings = self.pings;
        write!(
            f,
            "p99 quiet {quiet:.2} ms, disturbed {disturbed:.2} ms ({factor:.2} times), {pings} pings"
        )
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Even while quiet, odd while disturbed; 0 counts for nothing.
    phase: AtomicU64,
    /// The phase and the nanoseconds of each ping.
    pings: Mutex<Vec<(u64, u64)>>,
}

/// Runs `test` alone among those that measure.
pub(crate) fn alone(test: impl FnOnce()) {
    // A test that failed while it was alone has left nothing behind.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    go_first();
    test();
}

/// Measures clients of `relay`, whose target must echo what follows an `e`, without and with what `attack` makes, which
/// is in effect when it returns and over when it is dropped. Panics if the clients were disturbed.
#[track_caller]
pub(crate) fn compare<A>(kind: Kind, what: &str, relay: &Relay, mut attack: impl FnMut() -> A) {
    for attempt in 1..=ATTEMPTS {
        let figures = measure(relay, &mut attack);
        let line = format!("{what} ({kind:?}): {figures}");
        // Straight to standard error: cargo hides what a test that passes prints.
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        let most = (figures.quiet * FACTOR).max(FLOOR);
        if figures.disturbed <= most {
            return;
        }
        if let Some(load) = overload() {
            let reason = format!("{load} runnable on average by other work: times say nothing");
            return skip(&line, &reason);
        }
        assert!(
            attempt < ATTEMPTS,
            "{line}; at most {most:?} is allowed, and it was more {ATTEMPTS} times"
        );
    }
}

/// The machine's load of the last minute, where it is more than this test can have caused and its cores can bear.
fn overload() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    (load > OWN_LOAD + cores).then_some(load)
}

fn measure<A>(relay: &Relay, attack: &mut impl FnMut() -> A) -> Figures {
    let shared = Arc::new(Shared::default());
    let clients: Vec<JoinHandle<()>> = (0..CLIENTS)
        .map(|seed| {
            let (shared, stream) = (Arc::clone(&shared), relay.connect());
            thread::spawn(move || ping(&shared, &stream, seed))
        })
        .collect();
    let calm = CLIENTS as f64;
    let sample = |phase: u64| {
        shared.phase.store(phase, Ordering::SeqCst);
        thread::sleep(PHASE);
        shared.phase.store(0, Ordering::SeqCst);
    };
    for round in 1..=ROUNDS as u64 {
        await_that("the attackers to be gone", || {
            relay.metric("connections_open", &[]) == calm
        });
        thread::sleep(REST);
        sample(2 * round);
        let attackers = attack();
        sample(2 * round + 1);
        drop(attackers);
    }
    shared.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("a client that pings");
    }
    figures(&shared)
}

fn ping(shared: &Shared, stream: &Stream, seed: u64) {
    let pattern = Pattern::new(seed);
    let mut io = stream;
    io.write_all(b"e").expect("the relay takes a byte");
    let mut at = 0;
    let mut pings = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let phase = shared.phase.load(Ordering::SeqCst);
        let begin = Instant::now();
        let came = stream.ping(pattern, at, at + 64);
        came.unwrap_or_else(|trouble| panic!("client {seed}: {trouble}"));
        let took = begin.elapsed();
        at += 64;
        if phase > 0 {
            pings.push((phase, took.as_nanos() as u64));
        }
        thread::sleep(PAUSE);
    }
    let mut all = shared.pings.lock().expect("clients that did not panic");
    all.extend(pings);
}

fn figures(shared: &Shared) -> Figures {
    let pings = shared.pings.lock().expect("clients that did not panic");
    let p99_of = |phase: u64| {
        let mut took: Vec<u64> = pings
            .iter()
            .filter(|(of, _)| *of == phase)
            .map(|(_, nanos)| *nanos)
            .collect();
        took.sort_unstable();
        // Not one in a phase is the longest disturbance of all.
        let slowest = took.len() * 99 / 100;
        took.get(slowest)
            .copied()
            .unwrap_or(PHASE.as_nanos() as u64)
    };
    let median = |first: u64| {
        let mut of_rounds: Vec<u64> = (1..=ROUNDS as u64)
            .map(|round| p99_of(2 * round + first))
            .collect();
        of_rounds.sort_unstable();
        Duration::from_nanos(of_rounds[ROUNDS / 2])
    };
    Figures {
        quiet: median(0),
        disturbed: median(1),
        pings: pings.len(),
    }
}
