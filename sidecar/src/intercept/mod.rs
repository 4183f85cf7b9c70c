//! Interception: rules of the kernel's packet filter by which connections to an application's own port come to a relay.
//!
//! It owns which rules there are and how they come into the kernel and out of it. It runs no relay, and touches no table but
//! its own, whose name is [`TABLE`].
//!
//! The relay finds out by itself where such a connection was to go (a target `*:PORT`).

mod messages;
pub mod rules;
mod transaction;

pub use rules::{REDIRECTS_MOST, Redirect, Rules, TABLE};
pub use transaction::{InterceptError, apply, remove};
