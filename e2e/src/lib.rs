//! Real Kubernetes for tests: an API server with etcd, what a kubelet would tell it, and ways in that fail on command.
//!
//! It owns how a test gets a cluster, and the ends of what it started. It never touches a cluster that was not asked
//! for by name (`E2E_KUBECONFIG`), and a test that cannot have one is skipped aloud.

pub mod apiserver;
pub mod caller;
pub mod chart;
pub mod cluster;
pub mod definitions;
pub mod figures;
pub mod fleet;
pub mod forwarder;
pub mod identity;
pub mod installation;
pub mod kubelet;
pub mod others;
pub mod proxy;
pub mod running;
pub mod story;
pub mod usage;
pub mod watched;
pub mod workloads;

use std::thread;
use std::time::{Duration, Instant};

/// How long a program of Kubernetes may take for what takes seconds. Far above that, so that a slow machine fails nothing.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `holds`, at most [`PATIENCE`].
///
/// # Panics
/// If it does not, with `what`.
#[track_caller]
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
