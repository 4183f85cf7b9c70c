//! What is asked on a connection: how many calls are open, and since when there are none.
//!
//! It owns that, and tells the connection's place. It closes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::limits::Limits;
use super::room::Place;

/// The calls of a connection.
#[derive(Debug)]
pub(super) struct Calls {
    state: Mutex<CallsState>,
    pub(super) place: Place,
}

#[derive(Debug)]
struct CallsState {
    open: u32,
    any: bool,
    /// When it was accepted, or the last call ended.
    since: Instant,
}

impl Calls {
    pub(super) fn new(since: Instant, place: Place) -> Self {
        let (open, any) = (0, false);
        let state = Mutex::new(CallsState { open, any, since });
        Self { state, place }
    }

    pub(super) fn begin(calls: &Arc<Self>) -> OpenCall {
        let mut state = calls.state();
        state.open += 1;
        state.any = true;
        if state.open == 1 {
            calls.place.is_idle(false);
        }
        drop(state);
        OpenCall(calls.clone())
    }

    /// When it may be idle for too long at the earliest.
    pub(super) fn look_at(&self, limits: &Limits, now: Instant) -> Instant {
        let state = self.state();
        match state.open {
            0 => state.over(limits),
            _ => now + limits.idle,
        }
    }

    pub(super) fn is_idle(&self, limits: &Limits, now: Instant) -> bool {
        let state = self.state();
        state.open == 0 && now >= state.over(limits)
    }

    /// Whether nothing is asked now.
    pub(super) fn is_quiet(&self) -> bool {
        self.state().open == 0
    }

    fn state(&self) -> MutexGuard<'_, CallsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallsState {
    fn over(&self, limits: &Limits) -> Instant {
        self.since
            + if self.any {
                limits.idle
            } else {
                limits.first_request
            }
    }
}

/// A call that is being answered, until it is dropped.
#[derive(Debug)]
pub struct OpenCall(Arc<Calls>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        state.since = Instant::now();
        if state.open == 0 {
            self.0.place.is_idle(true);
        }
    }
}
