//! What is published about the controller: connected since when, what went wrong last, how calls came out. Read from any thread.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::time::Time;

/// How a call came out, or the attempt to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, and understood.
    Answered,
    /// Given up for one with newer state.
    Superseded,
    /// There was no connection, or it was lost.
    Unreachable,
    /// The controller's certificate is not trusted.
    Untrusted,
    /// No answer came in time.
    TimedOut,
    /// The controller does not believe the token.
    Refused,
    /// The controller asked to wait.
    Busy,
    /// Another replica leads.
    Redirected,
    /// Anything else that was no answer.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 9] = [
        Self::Answered,
        Self::Superseded,
        Self::Unreachable,
        Self::Untrusted,
        Self::TimedOut,
        Self::Refused,
        Self::Busy,
        Self::Redirected,
        Self::Failed,
    ];

    /// For a metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Superseded => "superseded",
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Redirected => "redirected",
            Self::Failed => "failed",
        }
    }
}

/// What was seen of the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where the connection leads, and since when it is there.
    pub connected: Option<(SocketAddr, Time)>,
    /// When it last answered.
    pub last_answer: Option<Time>,
    /// What went wrong last, and when.
    pub last_error: Option<(String, Time)>,
    /// Why it offers nothing, as it says.
    pub keeps: Option<String>,
    /// The fingerprint of the certificates that it is trusted by.
    pub trusts: String,
}

/// What is published.
#[derive(Debug, Default)]
pub struct View {
    seen: Mutex<Seen>,
    calls: [AtomicU64; Outcome::ALL.len()],
}

impl View {
    /// What was seen.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// How often a call came out so.
    pub fn calls(&self, outcome: Outcome) -> u64 {
        self.calls[outcome as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.calls[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
