//! What the behaviour tests share: namespaces, processes and traffic, each cleaned up when dropped.
//!
//! Everything here waits for events with a bound, fails with a sentence, and leaves nothing behind.

pub mod browser;
pub mod cgroup;
mod configuration;
pub mod controller;
pub mod document;
pub mod fuzz;
pub mod http;
pub mod memory_group;
pub mod metrics;
pub mod namespace;
pub mod outside;
pub mod processes;
pub mod prometheus;
pub mod reference;
pub mod relay;
pub mod seccomp;
pub mod setup;
pub mod skip;
pub mod soak;
pub mod steady;
pub mod traffic;
pub mod tuning;

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what should come soon. Far above what it takes, so that a slow machine fails nothing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `probe` until it gives something, for what no event tells (another process's state). Panics after
/// [`PATIENCE`] with `what`.
#[track_caller]
pub fn await_some<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    await_within(PATIENCE, what, probe)
}

/// The same with another patience, such as for a browser.
#[track_caller]
pub fn await_within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            begin.elapsed() < patience,
            "waited {patience:?} in vain for {what}"
        );
        thread::sleep(Duration::from_millis(3));
    }
}

/// Waits until `holds`, as [`await_some`] does.
#[track_caller]
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}
