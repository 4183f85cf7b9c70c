//! What a relay looked like, once per interval, from before the first process to after the last: asked of its admin port by
//! a thread of its own, written as JSON and CSV.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;

use super::crowd::Books;
use crate::http;
use crate::metrics::Metrics;

/// Outcomes of submissions in which the kernel took less than it was offered.
const PUSHBACK: [&str; 7] = [
    "some", "eagain", "ebusy", "enomem", "late", "eperm", "ebadr",
];

/// One moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Since the soak began.
    pub at_seconds: f64,
    /// Which process, from 1 on.
    pub life: u32,
    /// Resident memory.
    pub resident_bytes: f64,
    /// Open descriptors.
    pub descriptors: f64,
    /// Connections.
    pub open: f64,
    /// Connections opened per second since the sample before.
    pub opened_per_second: f64,
    /// Bytes relayed per second, both directions together, since the sample before.
    pub bytes_per_second: f64,
    /// The worst worker's share of turns with pushback, as readiness judges it.
    pub pushback_percent: f64,
    /// Submissions that the kernel did not take whole, per second since the sample before.
    pub refused_per_second: f64,
    /// Whether it is ready: 1 or 0.
    pub ready: f64,
    /// Workers that accept nothing at the moment.
    pub accept_paused: f64,
}

/// Counters, to make rates of.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    at: f64,
    life: u32,
    opened: f64,
    bytes: f64,
    refused: f64,
}

#[derive(Debug)]
struct Shared {
    /// The process at the moment: its number and its admin port.
    current: Mutex<Option<(u32, SocketAddr)>>,
    samples: Mutex<Vec<Sample>>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that takes samples until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Takes a sample every `interval` of whatever process is [`watch`](Self::watch)ed.
    pub fn start(interval: Duration, books: &Arc<Books>) -> Self {
        let shared = Arc::new(Shared {
            current: Mutex::default(),
            samples: Mutex::default(),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        });
        let (theirs, books) = (Arc::clone(&shared), Arc::clone(books));
        let thread = thread::spawn(move || take_samples(&theirs, interval, &books));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// From now on this process is looked at; `None` while there is none.
    pub fn watch(&self, process: Option<(u32, SocketAddr)>) {
        *lock(&self.shared.current) = process;
    }

    /// The newest sample.
    pub fn latest(&self) -> Option<Sample> {
        lock(&self.shared.samples).last().cloned()
    }

    /// All samples so far.
    pub fn all(&self) -> Vec<Sample> {
        lock(&self.shared.samples).clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.stopped.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was already printed.
            let _ = thread.join();
        }
    }
}

fn take_samples(shared: &Shared, interval: Duration, books: &Books) {
    let mut before = Counters::default();
    let mut stop = lock(&shared.stop);
    loop {
        let waited = shared.stopped.wait_timeout(stop, interval);
        stop = waited.unwrap_or_else(PoisonError::into_inner).0;
        if *stop {
            return;
        }
        let current = *lock(&shared.current);
        // A process that is stopped or ends just now has nothing to tell.
        let answer =
            current.and_then(|(life, address)| Some((life, http::get(address, "/metrics").ok()?)));
        if let Some((life, answer)) = answer.filter(|(_, answer)| answer.status == 200) {
            let at = books.now().as_secs_f64();
            let (sample, counters) = sample(&Metrics::parse(&answer.body), at, life, before);
            before = counters;
            lock(&shared.samples).push(sample);
        }
    }
}

fn sample(metrics: &Metrics, at: f64, life: u32, before: Counters) -> (Sample, Counters) {
    let sum = |name: &str| metrics.sum(name, &[]);
    let most = |name: &str| {
        metrics
            .matching(name, &[])
            .map(|sample| sample.value)
            .fold(0.0, f64::max)
    };
    let refused =
        PUSHBACK.map(|outcome| metrics.sum("ringside_submissions_total", &[("outcome", outcome)]));
    let now = Counters {
        at,
        life,
        opened: sum("ringside_connections_opened_total"),
        bytes: sum("ringside_relayed_bytes_total"),
        refused: refused.iter().sum(),
    };
    // Counters begin anew with each process.
    let rate = |of: fn(&Counters) -> f64| {
        let is_same = now.life == before.life && at > before.at;
        if is_same {
            (of(&now) - of(&before)) / (at - before.at)
        } else {
            0.0
        }
    };
    let sample = Sample {
        at_seconds: (at * 100.0).round() / 100.0,
        life,
        resident_bytes: sum("process_resident_memory_bytes"),
        descriptors: sum("process_open_fds"),
        open: sum("ringside_connections_open"),
        opened_per_second: rate(|counters| counters.opened).round(),
        bytes_per_second: rate(|counters| counters.bytes).round(),
        pushback_percent: most("ringside_pushback_percent"),
        refused_per_second: rate(|counters| counters.refused).round(),
        ready: sum("ringside_ready"),
        accept_paused: sum("ringside_accept_paused"),
    };
    (sample, now)
}

/// The samples as CSV, with a line of names.
pub fn csv(samples: &[Sample]) -> String {
    let mut text = String::from(
        "at_seconds,life,resident_bytes,descriptors,open,opened_per_second,bytes_per_second,pushback_percent,refused_per_second,ready,accept_paused\n",
    );
    for sample in samples {
        let Sample {
            at_seconds,
            life,
            resident_bytes,
            descriptors,
            open,
            opened_per_second,
            bytes_per_second,
            pushback_percent,
            refused_per_second,
            ready,
            accept_paused,
        } = sample;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{at_seconds},{life},{resident_bytes},{descriptors},{open},{opened_per_second},{bytes_per_second},{pushback_percent},{refused_per_second},{ready},{accept_paused}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(opened: u32) -> Metrics {
        Metrics::parse(&format!(
            "ringside_connections_opened_total{{relay=\"web\"}} {opened}\nringside_pushback_percent{{worker=\"0\"}} 3\n\
             ringside_pushback_percent{{worker=\"1\"}} 7\nringside_ready 1\n"
        ))
    }

    #[test]
    fn rates_are_of_one_process() {
        let (first, counters) = sample(&scrape(100), 10.0, 1, Counters::default());
        assert_eq!(
            (first.opened_per_second, first.pushback_percent),
            (0.0, 7.0)
        );
        let (second, counters) = sample(&scrape(150), 12.0, 1, counters);
        assert_eq!(second.opened_per_second, 25.0);
        let (third, _) = sample(&scrape(20), 13.0, 2, counters);
        assert_eq!(third.opened_per_second, 0.0);
        let csv = csv(&[second, third]);
        let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [11, 11, 11]);
    }
}
