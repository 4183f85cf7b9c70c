//! Which backend a worker runs on, and why: for the log, a metric and the status.

use super::{Backend, Errno};

/// Which backend a worker runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendReport {
    /// Its name: `ring`, `epoll`, `tokio-uring`; `starting` before there is one.
    pub name: &'static str,
    /// Why it is this one.
    pub reason: String,
}

impl BackendReport {
    /// A worker that has none yet.
    pub fn starting() -> Self {
        BackendReport {
            name: "starting",
            reason: String::new(),
        }
    }

    /// A worker that runs on `B`.
    pub fn of<B: Backend>(reason: &str) -> Self {
        BackendReport {
            name: B::NAME,
            reason: reason.to_owned(),
        }
    }
}

/// No backend could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoBackend(String);

impl NoBackend {
    /// The one that was asked for by name does not work here.
    pub fn refused(name: &str, why: &dyn std::error::Error) -> Self {
        NoBackend(format!(
            "the backend {name} was asked for and does not work here: {why}; `--backend auto` falls back to epoll"
        ))
    }

    /// Not even the fallback works.
    pub fn epoll(errno: Errno) -> Self {
        NoBackend(format!("epoll cannot be set up: {errno}"))
    }

    /// A thread could not be started.
    pub fn thread(error: std::io::Error) -> Self {
        NoBackend(format!(
            "a worker's thread cannot be started: {error}; is the limit of processes or memory reached?"
        ))
    }
}
