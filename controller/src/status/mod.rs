//! What the controller says of policies: conditions and counts, worked out from the fleet and written when their meaning changes.

pub mod conditions;
mod events;
pub mod pace;
pub mod uninjected;
pub mod writer;

use std::time::Duration;

pub use conditions::status;
pub use pace::Pace;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::fleet::{Fleet, Summary};
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

/// A policy's conditions as its status would have them now; while its pods have not had a chance to call, as it had them last. Their
/// times mean nothing.
pub(crate) fn conditions_of(
    fleet: &Fleet,
    policy: &Name,
    summary: &Summary,
    now: Duration,
) -> Vec<Condition> {
    let Some(verdict) = fleet.policies().verdict(policy) else {
        return Vec::new();
    };
    let mut status = status(&verdict, summary, None, Timestamp::UNIX_EPOCH, |_| {
        Timestamp::UNIX_EPOCH
    });
    let told = fleet.policies().status(policy);
    if let Some(before) = told.and_then(|told| told.status.as_ref())
        && fleet.is_settling(summary, now)
    {
        conditions::keep_pods(&mut status, before);
    }
    status.conditions
}
