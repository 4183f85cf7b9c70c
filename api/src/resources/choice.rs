//! Which RelayPolicy a pod obeys: the one that it names by annotation, else the oldest that selects it, else the first by name.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::core::{Selector, SelectorExt};

/// The annotation by which a pod names its policy.
pub const POLICY_ANNOTATION: &str = "ringside.dev/policy";

/// What of a pod decides which policy it obeys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts<'a> {
    /// The pod's labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The policy that the pod names by annotation.
    pub named_policy: Option<&'a str>,
}

/// A policy of the pod's namespace that may apply. One that was refused is none.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it was created; one without a time is younger than all.
    pub created: Option<Timestamp>,
    /// What it selects; `None` where it selects nothing.
    pub selector: Option<&'a Selector>,
}

/// The outcome for one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The policy that the pod obeys.
    pub policy: Option<&'a str>,
    /// Policies that select the pod as well, and lost.
    pub losers: Vec<&'a str>,
    /// The policy that the pod names and that is not there.
    pub missing: Option<&'a str>,
}

/// A policy's selector, ready to match.
///
/// # Errors
/// It is none: a sentence that says why.
pub fn selector(written: &LabelSelector) -> Result<Selector, String> {
    Selector::try_from(written.clone())
        .map_err(|error| format!("podSelector is not allowed: {error}"))
}

/// Chooses among the policies of a pod's namespace.
pub fn choose<'a>(pod: &PodFacts<'a>, candidates: &[Candidate<'a>]) -> Choice<'a> {
    let none = BTreeMap::new();
    let labels = pod.labels.unwrap_or(&none);
    let mut selecting: Vec<&Candidate<'a>> = candidates
        .iter()
        .filter(|candidate| {
            candidate
                .selector
                .is_some_and(|selector| selector.matches(labels))
        })
        .collect();
    selecting.sort_by_key(|candidate| {
        (
            candidate.created.is_none(),
            candidate.created,
            candidate.name,
        )
    });
    let mut names = selecting.iter().map(|candidate| candidate.name);
    match pod.named_policy {
        Some(named) if candidates.iter().any(|candidate| candidate.name == named) => Choice {
            policy: Some(named),
            losers: names.filter(|name| *name != named).collect(),
            missing: None,
        },
        missing => Choice {
            policy: names.next(),
            losers: names.collect(),
            missing,
        },
    }
}
