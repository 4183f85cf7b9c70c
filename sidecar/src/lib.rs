//! The relay: everything of the sidecar except its command line.
//!
//! Arrows go one way: `worker` uses `flow`, `pressure` and `backend`; `admin` reads what workers publish;
//! `flow` and `pressure` know nobody and do no I/O.

pub mod backend;
pub mod pressure;
