//! The policies of a cluster, as last seen: which one a pod obeys, what that makes of its settings, and what is wrong with each.
//!
//! Pure. It owns the merging for pods and the sentence for every policy that is not accepted; it never asks an API server.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::core::Selector;
use ringside_api::resources::{
    Candidate, Choice, ClusterRelayPolicy, PodFacts, PolicyStatus, RelayPolicy, choose, selector,
};
use ringside_api::sync::{Assigned, Offer};
use ringside_api::{Layers, Patch, Source};

use crate::admission::check_syntax;

/// The name of the one ClusterRelayPolicy that applies.
pub const CLUSTER_POLICY: &str = "default";

/// A status as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenStatus {
    /// The version of the object that has it; a later one has a greater number.
    pub version: u64,
    /// `None` where there is none.
    pub status: Option<PolicyStatus>,
}

/// A policy as it was written.
#[derive(Clone, Debug)]
struct Policy {
    uid: Option<String>,
    generation: i64,
    created: Option<Timestamp>,
    /// What it selects; `None` where it selects nothing.
    selector: Option<Selector>,
    patch: Patch,
    /// Why it cannot be read at all.
    problem: Option<String>,
    /// Its status; `None` where it is not known.
    status: Option<Box<SeenStatus>>,
}

/// What the policies make of the pods that obey the same one.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// What is offered to their sidecars.
    pub offer: Offer,
    /// The share of them that may be unready at once, in percent.
    pub max_unready_percent: u32,
}

/// Whether a policy is accepted, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which object it is: another one may come under its name.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Why it is not accepted: a sentence for each problem.
    pub problem: Option<String>,
}

/// All policies.
#[derive(Debug, Default)]
pub struct Policies {
    cluster: Option<Policy>,
    namespaces: HashMap<String, BTreeMap<String, Policy>>,
    /// What was worked out for pods that run since the last change, by namespace and policy.
    worked_out: HashMap<(String, String), Arc<Assignment>>,
}

/// A name in a namespace; the namespace of what is the cluster's is empty.
pub type Name = (String, String);

impl Policies {
    /// Takes a RelayPolicy as it is now.
    pub fn set(&mut self, policy: &RelayPolicy) {
        let spec = &policy.spec;
        let read = |wanted| check_syntax(wanted).and_then(|()| selector(wanted));
        let (selector, problem) = match spec.pod_selector.as_ref().map(read).transpose() {
            Ok(selector) => (selector, None),
            Err(problem) => (None, Some(problem)),
        };
        let known = Policy {
            selector,
            problem,
            patch: spec.settings,
            ..Policy::of(&policy.metadata)
        };
        self.insert(&policy.metadata, known);
    }

    /// Takes note of a RelayPolicy that cannot be read.
    pub fn set_unreadable(&mut self, metadata: &kube::core::ObjectMeta, problem: String) {
        let known = Policy {
            problem: Some(problem),
            ..Policy::of(metadata)
        };
        self.insert(metadata, known);
    }

    /// Whose selector cannot be read goes on with the pods that it had: they keep what they run, and
    /// the limit that they had, and are not handed to the layer below.
    fn insert(&mut self, metadata: &kube::core::ObjectMeta, mut policy: Policy) {
        let (namespace, name) = name_of(metadata);
        self.worked_out.clear();
        let policies = self.namespaces.entry(namespace).or_default();
        if policy.problem.is_some()
            && let Some(before) = policies.get(&name)
            && before.uid == policy.uid
        {
            policy.selector.clone_from(&before.selector);
            policy.patch.readiness = policy.patch.readiness.or(before.patch.readiness);
        }
        policies.insert(name, policy);
    }

    /// Forgets a RelayPolicy that is gone.
    pub fn remove(&mut self, (namespace, name): &Name) {
        self.worked_out.clear();
        if let Some(policies) = self.namespaces.get_mut(namespace) {
            policies.remove(name);
            if policies.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }

    /// Takes the ClusterRelayPolicy as it is now; one under another name is passed over.
    pub fn set_cluster(&mut self, policy: &ClusterRelayPolicy) {
        if policy.metadata.name.as_deref() == Some(CLUSTER_POLICY) {
            self.worked_out.clear();
            self.cluster = Some(Policy {
                patch: policy.spec.settings,
                ..Policy::of(&policy.metadata)
            });
        }
    }

    /// Takes note of a ClusterRelayPolicy that cannot be read.
    pub fn set_cluster_unreadable(&mut self, metadata: &kube::core::ObjectMeta, problem: String) {
        if metadata.name.as_deref() == Some(CLUSTER_POLICY) {
            self.worked_out.clear();
            self.cluster = Some(Policy {
                problem: Some(problem),
                ..Policy::of(metadata)
            });
        }
    }

    /// Forgets the ClusterRelayPolicy.
    pub fn remove_cluster(&mut self, name: &str) {
        if name == CLUSTER_POLICY {
            self.worked_out.clear();
            self.cluster = None;
        }
    }

    /// Takes a policy's status as it is now. Returns whether that is all that can have changed: the policy is known, and of the same
    /// generation.
    pub fn take_status(
        &mut self,
        metadata: &kube::core::ObjectMeta,
        status: Option<SeenStatus>,
    ) -> bool {
        let (namespace, name) = name_of(metadata);
        let policy = if namespace.is_empty() {
            self.cluster.as_mut().filter(|_| name == CLUSTER_POLICY)
        } else {
            let policies = self.namespaces.get_mut(&namespace);
            policies.and_then(|policies| policies.get_mut(&name))
        };
        let Some(policy) = policy else {
            return false;
        };
        policy.status = status.map(Box::new);
        policy.uid == metadata.uid && Some(policy.generation) == metadata.generation
    }

    /// A policy's status as it was last seen.
    pub fn status(&self, name: &Name) -> Option<&SeenStatus> {
        self.find(name)?.status.as_deref()
    }

    /// The names of all policies; that of the ClusterRelayPolicy has no namespace.
    pub fn names(&self) -> Vec<Name> {
        let cluster = self.cluster.iter();
        let cluster = cluster.map(|_| (String::new(), CLUSTER_POLICY.to_owned()));
        let of = |(namespace, policies): (&String, &BTreeMap<String, Policy>)| {
            let name = |name: &String| (namespace.clone(), name.clone());
            policies.keys().map(name).collect::<Vec<_>>()
        };
        cluster.chain(self.namespaces.iter().flat_map(of)).collect()
    }

    fn find(&self, (namespace, name): &Name) -> Option<&Policy> {
        if namespace.is_empty() {
            return self.cluster.as_ref().filter(|_| name == CLUSTER_POLICY);
        }
        self.namespaces.get(namespace)?.get(name)
    }

    /// Whether a policy is accepted; `None` where there is none of that name.
    pub fn verdict(&self, name: &Name) -> Option<Verdict> {
        let policy = self.find(name)?;
        let problem = match &policy.problem {
            Some(problem) => Some(problem.clone()),
            None if name.0.is_empty() => self.merged(None).err(),
            None => merged(&self.layers_of_accepted(Some(policy))).err(),
        };
        Some(Verdict {
            uid: policy.uid.clone().unwrap_or_default(),
            generation: policy.generation,
            problem,
        })
    }

    /// Which of its namespace's policies a pod obeys.
    pub fn choose<'a>(&'a self, namespace: &str, pod: &PodFacts<'a>) -> Choice<'a> {
        let candidates: Vec<Candidate<'a>> = self
            .namespaces
            .get(namespace)
            .into_iter()
            .flatten()
            .map(|(name, policy)| Candidate {
                name,
                created: policy.created,
                selector: policy.selector.as_ref(),
            })
            .collect();
        choose(pod, &candidates)
    }

    /// What the policies make of the pods of a namespace that obey `policy`, or none where it is empty.
    pub fn assignment(&mut self, namespace: &str, policy: &str) -> Arc<Assignment> {
        let key = (namespace.to_owned(), policy.to_owned());
        if let Some(known) = self.worked_out.get(&key) {
            return known.clone();
        }
        let assignment = Arc::new(self.work_out(&key));
        self.worked_out.insert(key, assignment.clone());
        assignment
    }

    fn work_out(&self, key: &Name) -> Assignment {
        let policy = Some(&key.1).filter(|name| !name.is_empty());
        let policy = policy.and_then(|_| self.find(key));
        let layers = self.layers(policy);
        let problems = [self.cluster.as_ref(), policy];
        let unreadable = problems
            .into_iter()
            .flatten()
            .find_map(|policy| policy.problem.clone());
        let resolved = match unreadable {
            Some(problem) => Err(problem),
            None => self.merged(policy),
        };
        match resolved {
            Ok(max_unready_percent) => Assignment {
                offer: Offer::Run(Box::new(Assigned {
                    hash: layers.hash(),
                    policy: key.1.clone(),
                    layers,
                })),
                max_unready_percent,
            },
            // Whatever else is wrong with it, no more may be unready than any of them says.
            Err(problem) => Assignment {
                offer: Offer::Keep(problem),
                max_unready_percent: smallest_limit(&layers),
            },
        }
    }

    /// What a pod of a namespace that is about to be gets: what is assigned to those that run; but where that is only that they keep what
    /// they have, its own policy over the ClusterRelayPolicy, as far as each is accepted.
    ///
    /// Nothing of it is kept: anybody may ask, of any namespace.
    pub fn first_assignment(&self, namespace: &str, policy: &str) -> Assigned {
        let key = (namespace.to_owned(), policy.to_owned());
        let assignment = match self.worked_out.get(&key) {
            Some(known) => known.clone(),
            None => Arc::new(self.work_out(&key)),
        };
        if let Offer::Run(assigned) = &assignment.offer {
            return (**assigned).clone();
        }
        let accepted = |verdict: Verdict| verdict.problem.is_none();
        let policy = self
            .find(&key)
            .filter(|_| self.verdict(&key).is_some_and(accepted));
        let layers = self.layers_of_accepted(policy);
        Assigned {
            hash: layers.hash(),
            policy: policy.map(|_| key.1).unwrap_or_default(),
            layers,
        }
    }

    /// What the ClusterRelayPolicy sets; nothing where there is none, or none that is accepted.
    pub fn cluster_patch(&self) -> Patch {
        let name = (String::new(), CLUSTER_POLICY.to_owned());
        match self.verdict(&name) {
            Some(Verdict { problem: None, .. }) => self.layers(None).cluster,
            _ => Patch::default(),
        }
    }

    /// Every RelayPolicy that is accepted, and what it sets.
    pub fn accepted(&self) -> Vec<(Name, Patch)> {
        let names = self.names().into_iter().filter(|name| !name.0.is_empty());
        let accepted = names.filter(|name| {
            self.verdict(name)
                .is_some_and(|verdict| verdict.problem.is_none())
        });
        accepted
            .filter_map(|name| {
                let patch = self.find(&name)?.patch;
                Some((name, patch))
            })
            .collect()
    }

    /// A policy over the ClusterRelayPolicy if that one is accepted by itself: what is wrong with it is told of it alone.
    fn layers_of_accepted(&self, policy: Option<&Policy>) -> Layers {
        Layers {
            cluster: self.cluster_patch(),
            policy: policy.map(|policy| policy.patch).unwrap_or_default(),
        }
    }

    fn layers(&self, policy: Option<&Policy>) -> Layers {
        let patch = |policy: Option<&Policy>| policy.map(|policy| policy.patch).unwrap_or_default();
        Layers {
            cluster: patch(self.cluster.as_ref()),
            policy: patch(policy),
        }
    }

    fn merged(&self, policy: Option<&Policy>) -> Result<u32, String> {
        merged(&self.layers(policy))
    }
}

/// The smallest share of pods that may be unready of those that the layers and the defaults name, in percent.
fn smallest_limit(layers: &Layers) -> u32 {
    let default = ringside_api::Settings::default();
    let layers = [&layers.cluster, &layers.policy].into_iter();
    let named = layers.filter_map(|patch| patch.readiness?.max_unready_percent);
    named.fold(default.readiness.max_unready_percent, u32::min)
}

/// The share of pods that may be unready by the merged settings, or all that is wrong with them.
fn merged(layers: &Layers) -> Result<u32, String> {
    let resolved = layers.resolve(None).map_err(|violations| {
        let sentence = |violation: &ringside_api::Violation| {
            let set_by = match violation.source_of_value {
                // The field itself may be nobody's; the rule that it breaks is with one that somebody set.
                Source::Default => String::new(),
                source => format!(" (set by the {source})"),
            };
            format!("{violation}{set_by}")
        };
        violations
            .iter()
            .map(sentence)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    Ok(resolved.settings.readiness.max_unready_percent)
}

impl Policy {
    fn of(metadata: &kube::core::ObjectMeta) -> Self {
        Self {
            uid: metadata.uid.clone(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            selector: None,
            patch: Patch::default(),
            problem: None,
            status: None,
        }
    }
}

/// The name and namespace of an object.
pub fn name_of(metadata: &kube::core::ObjectMeta) -> Name {
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;
