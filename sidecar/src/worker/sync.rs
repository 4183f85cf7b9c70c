//! What threads share state by: the standard library's, or loom's, which tries every order in which threads could meet it.
//! It owns that choice, which `make threads` makes by a flag of the build, and the tests that rest on it.

#[cfg(ringside_loom)]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(ringside_loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(ringside_loom))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(not(ringside_loom))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, ringside_loom))]
mod tests;
