//! The settings a relay obeys, in two shapes: a [`Patch`] is what one document says, [`Settings`] is what is in effect.
//! It owns fields, defaults, merging and validation; it never knows where a document comes from.

#[cfg(feature = "resources")]
#[macro_use]
mod schema;
#[macro_use]
mod declare;
mod groups;
mod layers;
mod resolve;
mod rules;
#[cfg(test)]
mod tests;

pub use groups::{
    Accept, AcceptPatch, AccessLog, AccessLogMode, AccessLogPatch, Backoff, BackoffPatch, Batch,
    BatchMode, BatchPatch, Buffers, BuffersPatch, Jitter, Patch, Readiness, ReadinessMode,
    ReadinessPatch, Settings, TargetCheck, TargetCheckMode, TargetCheckPatch, Tcp, TcpPatch,
    Timeouts, TimeoutsPatch,
};
pub use layers::Layers;
pub(crate) use resolve::fingerprint;
pub use resolve::{FieldInEffect, Resolved, Source, Violation};
