//! Decisions about load, told the time and given randomness: they decide and do nothing.
//!
//! A worker asks them each turn, in this order: what a submission met goes to [`backoff`], [`batch`] and [`readiness`];
//! those tell the ladder ([`shed`]) its rung; the rung and the counts tell the [`gate`]; [`budget`] says what may start.
//! Every `next_change` is a moment by which to ask again although nothing happened; the earliest bounds the wait.

pub mod backoff;
pub mod batch;
pub mod budget;
pub mod gate;
pub mod leave;
pub mod rate;
pub mod readiness;
pub mod shed;
pub mod sources;
mod window;
