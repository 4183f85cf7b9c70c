//! What the controller says of policies: conditions and counts, worked out from the fleet and written when their meaning changes.

pub mod conditions;
pub mod pace;
pub mod uninjected;
pub mod writer;

pub use conditions::status;
pub use pace::Pace;
