//! The controller's certificates, made in process: an authority (CA) and a leaf in one Secret, renewed before they end.
//!
//! [`plan`] decides what becomes of the Secret, told the time; [`Keeper`] reads, writes and spreads it, and [`Handle`] is what the rest
//! of the controller sees of it. A CA is renewed with overlap: whoever verifies knows the new one before anything is signed by it, and
//! the old one for as long as anything signed by it may be shown. Nothing here serves, and no key leaves the Secret and this process.

mod contents;
mod handle;
mod issue;
mod keeper;
mod plan;
mod reading;
mod terms;
mod webhooks;

pub use contents::{Contents, KEYS};
pub use handle::{Handle, Trusted};
pub use issue::CannotMake;
pub use keeper::{Keeper, Managed, Setup};
pub use plan::{Plan, plan, recovered};
pub use reading::{Fault, Verified, verify};
pub use terms::{BadTerms, Terms};
pub use webhooks::Webhooks;
