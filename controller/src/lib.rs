//! The controller: policies become sidecars' settings, sidecars' state becomes conditions, pods get their sidecar.
//!
//! It speaks with the API server and with sidecars, and never touches the data path: without it traffic goes on.

pub mod certificates;
pub mod fleet;
pub mod generated;
pub mod policies;
pub mod serve;
