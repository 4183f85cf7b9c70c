//! What can go wrong in a call, each with its sentence and with how long to wait because of it.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::view::Outcome;

/// The longest wait that a controller may ask for.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Failure {
    /// No connection, or it broke.
    #[error("the controller cannot be reached: {0}")]
    Unreachable(String),
    /// TLS refused it.
    #[error("the controller is not trusted: {0}")]
    Untrusted(String),
    /// Too slow.
    #[error("the controller is too slow: {0}")]
    TimedOut(String),
    /// The token cannot be shown, or is not believed.
    #[error("the controller does not take this pod's token: {0}")]
    Refused(String),
    /// It asks to wait.
    #[error("the controller asks to wait: {why}")]
    Busy {
        /// What it says.
        why: String,
        /// How long.
        wait: Option<Duration>,
    },
    /// Another leads.
    #[error("this replica of the controller does not lead: {why}")]
    Redirected {
        /// What it says.
        why: String,
        /// Who does.
        leader: Option<SocketAddr>,
    },
    /// No answer that can be understood.
    #[error("the controller's answer is of no use: {0}")]
    Failed(String),
}

impl Failure {
    /// For the count.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Unreachable(_) => Outcome::Unreachable,
            Self::Untrusted(_) => Outcome::Untrusted,
            Self::TimedOut(_) => Outcome::TimedOut,
            Self::Refused(_) => Outcome::Refused,
            Self::Busy { .. } => Outcome::Busy,
            Self::Redirected { .. } => Outcome::Redirected,
            Self::Failed(_) => Outcome::Failed,
        }
    }
}
