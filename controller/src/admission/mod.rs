//! Admission: what the API server asks before it stores a pod or a policy. `/inject` adds the sidecar, `/validate` refuses policies whose
//! merged result is not allowed.
//!
//! It owns the words of AdmissionReview v1 and the routes. What is known of the cluster comes in through [`Context`]; serving TLS is the
//! caller's. It denies no pod, ever, and a policy only with a sentence that names field, value and what is allowed.

pub mod configuration;
mod mutate;
mod review;
mod routes;
mod selector;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use ringside_api::Patch;
use ringside_api::sync::Assigned;

use crate::inject::{Injected, Injection};

pub use mutate::mutate;
pub use review::Unanswerable;
pub use routes::{BODY_BYTES_MOST, INJECT_PATH, VALIDATE_PATH, router};
pub(crate) use selector::check_syntax;
pub use validate::validate;

/// What decides which settings a pod gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The policy that it names by the annotation `ringside.dev/policy`.
    pub named_policy: Option<String>,
}

/// A policy's settings, and which policy that is.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPatch {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// What it sets.
    pub settings: Patch,
}

/// What the endpoints need to know of the cluster at the moment of a call. All of it is answered from memory.
pub trait Context: Send + Sync + 'static {
    /// What is the same for all pods.
    fn injection(&self) -> Arc<Injection>;

    /// What policies assign to this pod; `ringside_api::resources::choose` decides which.
    fn assigned(&self, pod: &PodFacts) -> Assigned;

    /// What the ClusterRelayPolicy in effect sets; nothing where there is none, or none that was accepted.
    fn cluster_settings(&self) -> Patch;

    /// All RelayPolicies that were accepted, of all namespaces.
    fn policies(&self) -> Vec<NamedPatch>;

    /// Told of each pod that was asked about: its namespace, its name (for one without a name yet, the beginning of it) and what came of
    /// it. For metrics and Events; it must not wait.
    fn answered(&self, namespace: &str, name: &str, injected: &Injected) {
        let _ = (namespace, name, injected);
    }
}
