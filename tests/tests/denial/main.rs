//! Some clients are hostile, and the others hardly notice: their slowest answers stay within twice what they were.
//!
//! Quiet and disturbed phases take turns in one run, so that whatever else the machine does falls on both alike, and the
//! median of several rounds is judged. The figures are printed: `cargo test --test denial -- --nocapture`.

mod admin;
mod attackers;
mod floods;
mod half_open;
mod slow;
mod victims;
