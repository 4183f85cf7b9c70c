//! The custom resources: what users write, what the controller answers, and which policy a pod obeys. It owns their schemas
//! and the choice among policies; it never asks an API server anything.

pub mod choice;
pub mod policy;
pub mod status;
#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use choice::{Candidate, Choice, PodFacts, choose, selector};
pub use policy::{ClusterRelayPolicy, ClusterRelayPolicySpec, RelayPolicy, RelayPolicySpec};
pub use status::{PodCounts, PolicyStatus, WorstPod};

/// The group of the custom resources, and the prefix of labels and annotations.
pub const GROUP: &str = "ringside.dev";

/// The definitions of both custom resources, as an API server takes them.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [RelayPolicy::crd(), ClusterRelayPolicy::crd()]
}
