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

/// Why there is no io_uring for a worker, in words for the log, the metric and the status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {errno}{hint}")]
pub struct SetupError {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel said.
    pub errno: Errno,
    /// What it likely means.
    pub hint: &'static str,
}

impl SetupError {
    pub(super) fn new(step: &'static str, errno: Errno) -> Self {
        let hint = match errno.0 {
            libc::EPERM => {
                "; a seccomp profile or the sysctl kernel.io_uring_disabled forbids it: allow io_uring_setup, \
                 io_uring_enter and io_uring_register"
            }
            libc::ENOSYS => "; this kernel has no io_uring, or a seccomp profile hides it",
            libc::EINVAL => {
                "; this kernel lacks a feature that is needed: of 6.1 for the ring (DEFER_TASKRUN), of 5.19 for tokio-uring"
            }
            libc::ENOMEM => {
                "; the locked-memory limit (ulimit -l) is too small or used up by others of this user"
            }
            libc::EMFILE => "; the descriptor limit is reached: raise it (ulimit -n)",
            libc::EOPNOTSUPP => "; this platform does not offer io_uring",
            _ => "",
        };
        SetupError { step, errno, hint }
    }

    pub(super) fn at(step: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::new(step, Errno::of(&error))
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
