//! The controller: policies become sidecars' settings, sidecars' state becomes conditions, pods get their sidecar.
//!
//! It speaks with the API server and with sidecars, and never touches the data path: without it traffic goes on.

pub mod admission;
mod answered;
pub mod certificates;
pub mod check;
mod counted;
pub mod fleet;
pub mod generated;
pub mod http;
pub mod inject;
pub mod leader;
mod listen;
pub mod live;
pub mod observe;
mod page;
pub mod permissions;
pub mod policies;
pub mod run;
pub mod serve;
pub mod status;
pub mod sync;
