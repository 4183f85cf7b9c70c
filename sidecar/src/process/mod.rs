//! One relaying process: what it is made of, how it starts, changes and ends.
//!
//! It ties together workers, settings, resolver, logs and admin listener. It decides nothing about load, and it
//! never touches a connection.

pub mod access_lines;
pub mod applying;
pub mod drain;
pub mod history;
pub mod judging;
pub mod run;
pub mod state;
mod synced;
mod taking;
pub(crate) mod workers;

pub use run::{AdminListener, Ended, Options, Overrides, run};
pub use state::State;
