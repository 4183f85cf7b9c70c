//! Traffic whose every byte is checked: patterns that depend on the position, streams, servers of every temper.

mod pattern;
mod server;
mod stream;

pub use pattern::{Mismatch, Pattern};
pub use server::{Server, echo};
pub use stream::{Stream, Trouble};
