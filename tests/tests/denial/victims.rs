//! The clients that nobody may disturb: some who are there and ping now and then, and newcomers.
//!
//! They own what each ping took and what attackers got through meanwhile. They judge one thing only: an answer that does
//! not come at all.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringside_tests::await_that;
use ringside_tests::traffic::{Pattern, Stream, Trouble};

use crate::attackers::Passed;

/// An answer that takes so long is none: no scheduler keeps a thread waiting for it, only starvation does.
pub(crate) const STARVED: Duration = Duration::from_secs(10);

/// Between two pings of one client.
const PAUSE: Duration = Duration::from_micros(500);

const PING_BYTES: u64 = 64;

/// One ping, or one newcomer's first.
#[derive(Clone, Copy)]
pub(crate) struct Ping {
    /// What was going on, as the test numbers it.
    pub(crate) phase: u64,
    /// From its first byte sent to its last one back; a newcomer's from its connect on.
    pub(crate) took: Duration,
    /// What attackers got through the relay meanwhile.
    pub(crate) passed: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// 0 counts for nothing.
    phase: AtomicU64,
    passed: Passed,
    pings: Mutex<Vec<Ping>>,
    connections: AtomicU64,
    troubles: Mutex<Vec<String>>,
}

/// What clients have seen.
pub(crate) struct Seen {
    pub(crate) pings: Vec<Ping>,
    /// How many they made, also while nothing was counted.
    pub(crate) connections: u64,
}

/// Clients of one address.
pub(crate) struct Victims {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Victims {
    /// So many with a connection each, which ping now and then.
    pub(crate) fn who_stay(address: SocketAddr, clients: u64, passed: &Passed) -> Self {
        Self::start(clients, passed, move |shared, seed| {
            let stream = shared.arrive(address)?;
            let mut at = 0;
            while !shared.stop.load(Ordering::Relaxed) {
                shared.time(|| {
                    at += PING_BYTES;
                    stream.ping(Pattern::new(seed), at - PING_BYTES, at)
                })?;
                thread::sleep(PAUSE);
            }
            Ok(())
        })
    }

    /// One after the other, a `pause` apart, each of which connects, pings once, and leaves.
    pub(crate) fn who_come(address: SocketAddr, pause: Duration, passed: &Passed) -> Self {
        Self::start(1, passed, move |shared, seed| {
            while !shared.stop.load(Ordering::Relaxed) {
                shared.time(|| {
                    shared
                        .arrive(address)?
                        .ping(Pattern::new(seed), 0, PING_BYTES)
                })?;
                thread::sleep(pause);
            }
            Ok(())
        })
    }

    fn start<F>(clients: u64, passed: &Passed, live: F) -> Self
    where
        F: Fn(&Shared, u64) -> Result<(), Trouble> + Copy + Send + 'static,
    {
        let shared = Arc::new(Shared {
            passed: Arc::clone(passed),
            ..Shared::default()
        });
        let client = |seed| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if let Err(trouble) = live(&shared, seed) {
                    lock(&shared.troubles).push(format!("a victim, {seed}: {trouble}"));
                }
            })
        };
        let threads = (0..clients).map(client).collect();
        Victims { shared, threads }
    }

    /// From here on something else goes on.
    pub(crate) fn set_phase(&self, phase: u64) {
        self.shared.phase.store(phase, Ordering::SeqCst);
    }

    /// Waits until they have been answered so often in this phase, all together.
    #[track_caller]
    pub(crate) fn await_pings(&self, phase: u64, least: usize) {
        await_that("the victims to be answered", || {
            self.check();
            let pings = lock(&self.shared.pings);
            pings.iter().filter(|ping| ping.phase == phase).count() >= least
        });
    }

    #[track_caller]
    fn check(&self) {
        let troubles = lock(&self.shared.troubles);
        assert!(troubles.is_empty(), "{}", troubles.join("; "));
    }

    /// Has them leave; all that they saw.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a victim that does not panic");
        }
        self.check();
        Seen {
            pings: std::mem::take(&mut lock(&self.shared.pings)),
            connections: self.shared.connections.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Victims {
    fn drop(&mut self) {
        // After a failure they leave as soon as they can.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Keeps what `ping` took, if the phase was the same all the while.
    fn time(&self, ping: impl FnOnce() -> Result<(), Trouble>) -> Result<(), Trouble> {
        let phase = self.phase.load(Ordering::SeqCst);
        let (began, before) = (Instant::now(), self.passed.load(Ordering::Relaxed));
        ping()?;
        let took = began.elapsed();
        let passed = self.passed.load(Ordering::Relaxed) - before;
        if phase > 0 && self.phase.load(Ordering::SeqCst) == phase {
            lock(&self.pings).push(Ping {
                phase,
                took,
                passed,
            });
        }
        Ok(())
    }

    /// A connection whose bytes will be echoed.
    fn arrive(&self, address: SocketAddr) -> Result<Stream, Trouble> {
        let arriving = |source| Trouble::Io {
            doing: "arriving",
            after: 0,
            source,
        };
        let stream = Stream::connect(address).map_err(arriving)?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        stream.set_patience(STARVED).map_err(arriving)?;
        (&stream).write_all(b"e").map_err(arriving)?;
        Ok(stream)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
