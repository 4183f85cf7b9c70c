//! One sidecar: the real client of the controller, in a process that is made up. It relays nothing, and says of itself what it is told to.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringside::pressure::leave::{Leaving, Rule};
use ringside::settings::Assignment;
use ringside::settings::controller::{Host, Look, View};
use ringside::time::Time;
use ringside_api::sync::{Leave, RefusedOffer, State};

/// The process of a sidecar.
pub(crate) struct Sidecar {
    epoch: Instant,
    ready: AtomicBool,
    leaving: Mutex<Leaving>,
    view: View,
    /// What it runs, and since when.
    runs: Mutex<(String, Instant)>,
}

impl Sidecar {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            ready: AtomicBool::new(true),
            leaving: Mutex::new(Leaving::new(Rule::Asked, false)),
            view: View::default(),
            runs: Mutex::new((String::new(), epoch)),
        }
    }

    /// Since when it has run what it runs; `None` while it runs nothing.
    pub(crate) fn runs_since(&self) -> Option<Instant> {
        let runs = lock(&self.runs);
        (!runs.0.is_empty()).then_some(runs.1)
    }

    /// Since when it has been connected.
    pub(crate) fn connected_since(&self) -> Option<Instant> {
        let (_, since) = self.view.seen().connected?;
        Some(self.epoch + Duration::from_nanos(since.as_nanos()))
    }

    /// Ready, or not any more: told to the controller at once.
    pub(crate) fn flip(&self) {
        self.ready.fetch_xor(true, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host for Sidecar {
    fn now(&self) -> Time {
        Time::from_nanos(self.epoch.elapsed().as_nanos() as u64)
    }

    /// More rarely than a real one, of which there is one in a process.
    fn look_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn look(&self) -> Look {
        Look {
            ready: self.ready.load(Relaxed),
            cause: "",
            leave: Leave::Stays,
            backend: "ring",
            draining: false,
        }
    }

    fn state(&self) -> State {
        State {
            ready: self.ready.load(Relaxed),
            reason: "ready".to_owned(),
            backend: "ring".to_owned(),
            backend_reason: "io_uring works".to_owned(),
            connections: 12,
            ..State::default()
        }
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        lock(&self.leaving)
    }

    fn runs(&self) -> (String, Option<RefusedOffer>) {
        (lock(&self.runs).0.clone(), None)
    }

    fn take(&self, offered: Result<Assignment, RefusedOffer>) -> bool {
        let Ok(offered) = offered else { return false };
        let mut runs = lock(&self.runs);
        if runs.0 != offered.assigned.hash {
            *runs = (offered.assigned.hash, Instant::now());
        }
        true
    }

    fn count_descriptors(&self, _: i32) {}

    fn view(&self) -> &View {
        &self.view
    }
}
