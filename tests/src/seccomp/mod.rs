//! The shipped seccomp profile: its list, and a process held to it as a container's runtime would hold it.

mod filter;
mod profile;

pub use filter::Filter;
pub use profile::{IO_URING, profile, shipped};
