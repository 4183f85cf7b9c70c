//! What the controller says of policies: conditions and counts, worked out from the fleet and written when their meaning changes.

pub mod conditions;
pub mod pace;
pub mod uninjected;
pub mod writer;

use std::time::Duration;

pub use conditions::status;
pub use pace::Pace;

use crate::fleet::Fleet;
use crate::policies::Name;

/// Whether a policy is ready, and the sentence for it; while its pods have not had a chance to call, what its status said last.
pub fn readiness(fleet: &Fleet, policy: &Name, now: Duration) -> (bool, String) {
    let summary = fleet.summary(policy, now);
    let told = fleet.policies().status(policy);
    let told = told.and_then(|told| told.status.as_ref());
    let ready = told
        .filter(|_| fleet.is_settling(&summary, now))
        .and_then(|told| told.conditions.iter().find(|known| known.type_ == "Ready"));
    match ready {
        Some(ready) => (ready.status == "True", ready.message.clone()),
        None => conditions::readiness(&summary),
    }
}
