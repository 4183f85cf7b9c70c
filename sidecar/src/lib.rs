//! The relay: everything of the sidecar except its command line.
//!
//! Arrows go one way: `worker` uses `flow`, `pressure` and `backend`; `admin` reads what workers publish;
//! `flow` and `pressure` know nobody and do no I/O.

pub mod admin;
pub mod backend;
pub mod bug;
pub mod check;
pub mod demo;
pub mod flow;
pub mod intercept;
pub mod logging;
pub mod pressure;
pub mod process;
pub mod resolver;
pub mod settings;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod target_check;
pub mod time;
#[cfg(feature = "top")]
pub mod top;
pub mod worker;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build; `unknown` where it was built without git.
pub const COMMIT: &str = env!("RINGSIDE_COMMIT");
