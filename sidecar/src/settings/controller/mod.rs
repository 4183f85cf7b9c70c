//! The sidecar's side of sync: calls to the controller, held until there is news, in which state goes up and settings come down.
//!
//! It owns the connection, what is kept for the next start, and what is published about both. It runs on the thread that owns no
//! ring; it never touches a worker or a connection, and losing the controller changes nothing for traffic. What it knows and
//! changes of the process goes through [`Host`].

mod address;
mod answer;
mod call;
mod connection;
mod failure;
mod first;
mod kept;
mod line;
mod pace;
mod reading;
mod trust;
mod view;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::Duration;

use ringside_api::sync::{PodIdentity, RefusedOffer, State};

pub use address::{Address, AddressError};
pub use connection::reach;
pub use first::{First, first};
pub use kept::Kept;
pub use view::{Outcome, Seen, View};
pub use work::work;

use super::Assignment;
use crate::pressure::leave::Leaving;
use crate::time::Time;

/// Which controller, and what is needed to speak with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its name, which its certificate must be for, and its port.
    pub address: Address,
    /// Where to connect, so that no name is looked up.
    pub connect_to: Option<SocketAddr>,
    /// Who speaks.
    pub pod: PodIdentity,
    /// The folder with `token`, `ca.pem` and `settings.json`.
    pub pod_files: PathBuf,
    /// The folder for what is kept from one process to the next, if there is one.
    pub state: Option<PathBuf>,
}

/// What of the process has to be told at once when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What `/readyz` says.
    pub ready: bool,
    /// The kind of reason for it.
    pub cause: &'static str,
    /// Where it stands on leaving.
    pub leave: ringside_api::sync::Leave,
    /// The backend of its workers.
    pub backend: &'static str,
    /// Whether it ends.
    pub draining: bool,
}

/// The process that speaks with the controller.
pub trait Host: Send + Sync + 'static {
    /// The time since its epoch.
    fn now(&self) -> Time;
    /// How often it is seen whether something has to be told at once.
    fn look_every(&self) -> Duration {
        Duration::from_millis(50)
    }
    /// What has to be told at once.
    fn look(&self) -> Look;
    /// All that is told.
    fn state(&self) -> State;
    /// Where it stands on leaving.
    fn leaving(&self) -> MutexGuard<'_, Leaving>;
    /// The hash of the assignment that it runs, empty where it runs none; and the last offer that it refused.
    fn runs(&self) -> (String, Option<RefusedOffer>);
    /// Takes an assignment or counts why it could not be read; says whether it runs.
    fn take(&self, offered: Result<Assignment, RefusedOffer>) -> bool;
    /// A descriptor was opened (1) or closed (-1).
    fn count_descriptors(&self, by: i32);
    /// What is published about the controller.
    fn view(&self) -> &View;
}
