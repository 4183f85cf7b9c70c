//! What is watched of the API server, told to the fleet: policies, and pods that ask for a relay.
//!
//! One object that cannot be read stalls nothing: it is told of and the rest goes on. Whole pods are never kept, only what matters of
//! them. It writes nothing.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use ringside_api::resources::choice::POLICY_ANNOTATION;
use ringside_api::resources::{ClusterRelayPolicy, PolicyStatus, RelayPolicy};
use ringside_api::sync::PodIdentity;
use serde::de::DeserializeOwned;

use crate::fleet::ObservedPod;
use crate::inject::CONTAINER_NAME;
use crate::policies::{Name, Policies, SeenStatus, name_of};
use crate::status::uninjected::{self, Uninjected, Why};
use crate::sync::Sync;

/// The label by which a pod asks for a relay.
pub const INJECT_LABEL: &str = "ringside.dev/inject";

/// The annotation of a pod that has got one.
pub const INJECTED_ANNOTATION: &str = "ringside.dev/injected";

/// How often it is looked whether everything has been seen.
const SEEN_LOOK: Duration = Duration::from_millis(20);

/// Pods that one page of a list has.
const PAGE: u32 = 500;

/// Whether everything has been seen once.
#[derive(Debug, Default)]
pub struct Seen {
    pods: AtomicBool,
    policies: AtomicBool,
    cluster: AtomicBool,
}

impl Seen {
    /// Whether everything has been seen once: before that nothing is known of what is not there.
    pub fn all(&self) -> bool {
        [&self.pods, &self.policies, &self.cluster]
            .iter()
            .all(|seen| seen.load(Ordering::Relaxed))
    }

    /// Waits until everything has been seen once.
    pub async fn everything(&self) {
        while !self.all() {
            tokio::time::sleep(SEEN_LOOK).await;
        }
    }
}

/// Watches RelayPolicies, for ever.
pub async fn policies(client: Client, sync: Arc<Sync>, seen: Arc<Seen>) {
    let apply = |policy: Guarded<RelayPolicy>, is_listed: bool| {
        let (metadata, problem) = (policy.0.meta().clone(), policy.problem());
        let status = policy.status(|policy| policy.status.clone());
        let mut fleet = sync.fleet();
        if fleet.take_status(&metadata, status.clone()) {
            return;
        }
        let change = |policies: &mut Policies| match (policy.0.0, problem) {
            (Ok(policy), _) => policies.set(&policy),
            (Err(_), problem) => policies.set_unreadable(&metadata, problem),
        };
        if is_listed {
            fleet.list_policies(change);
        } else {
            fleet.change_policies(metadata.namespace.as_deref(), change);
        }
        fleet.take_status(&metadata, status);
    };
    let remove = |name: &Name| {
        sync.fleet()
            .change_policies(Some(&name.0), |policies| policies.remove(name));
    };
    let known = || {
        let names = sync.fleet().policies().names();
        names
            .into_iter()
            .filter(|name| !name.0.is_empty())
            .collect()
    };
    watch(
        Api::all(client),
        "RelayPolicies",
        apply,
        remove,
        known,
        // Once, rather than every pod for each policy.
        || sync.fleet().judge_all(),
        &seen.policies,
    )
    .await;
}

/// Watches the ClusterRelayPolicy, for ever.
pub async fn cluster_policy(client: Client, sync: Arc<Sync>, seen: Arc<Seen>) {
    let apply = |policy: Guarded<ClusterRelayPolicy>, _| {
        let (metadata, problem) = (policy.0.meta().clone(), policy.problem());
        let status = policy.status(|policy| policy.status.clone());
        let mut fleet = sync.fleet();
        if fleet.take_status(&metadata, status.clone()) {
            return;
        }
        fleet.change_policies(None, |policies| match (policy.0.0, problem) {
            (Ok(policy), _) => policies.set_cluster(&policy),
            (Err(_), problem) => policies.set_cluster_unreadable(&metadata, problem),
        });
        fleet.take_status(&metadata, status);
    };
    let remove = |name: &Name| {
        sync.fleet()
            .change_policies(None, |policies| policies.remove_cluster(&name.1));
    };
    let known = || {
        let names = sync.fleet().policies().names();
        names.into_iter().filter(|name| name.0.is_empty()).collect()
    };
    watch(
        Api::all(client),
        "ClusterRelayPolicies",
        apply,
        remove,
        known,
        || {},
        &seen.cluster,
    )
    .await;
}

/// An object that could be read, or what of it could.
struct Guarded<K>(DeserializeGuard<K>);

impl<K: Resource> Guarded<K> {
    /// Its status as `of` tells it; `None` where the object could not be read.
    fn status(&self, of: impl FnOnce(&K) -> Option<PolicyStatus>) -> Option<SeenStatus> {
        let policy = self.0.0.as_ref().ok()?;
        let version = policy.meta().resource_version.as_deref();
        Some(SeenStatus {
            version: version?.parse().ok()?,
            status: of(policy),
        })
    }

    /// Why it could not be read; empty where it could.
    fn problem(&self) -> String {
        match &self.0.0 {
            Ok(_) => String::new(),
            Err(error) => format!("it cannot be read: {}", error.error),
        }
    }
}

async fn watch<K>(
    api: Api<DeserializeGuard<K>>,
    what: &str,
    mut apply: impl FnMut(Guarded<K>, bool),
    mut remove: impl FnMut(&Name),
    known: impl Fn() -> HashSet<Name>,
    listed_all: impl Fn(),
    seen: &AtomicBool,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut listed = HashSet::new();
    let events = watcher(api, Config::default()).default_backoff();
    futures_util::pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object)) => apply(Guarded(object), false),
            Ok(Event::Delete(object)) => remove(&name_of(object.meta())),
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(name_of(object.meta()));
                apply(Guarded(object), true);
            }
            Ok(Event::InitDone) => {
                known().difference(&listed).for_each(&mut remove);
                listed_all();
                seen.store(true, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!("watching {what} failed, and is tried again: {error}"),
        }
    }
}

/// Watches pods that ask for a relay, for ever. Those that have none go to `uninjected`; `release` is the controller's namespace.
pub async fn pods(
    client: Client,
    sync: Arc<Sync>,
    seen: Arc<Seen>,
    uninjected: Arc<Mutex<Uninjected>>,
    release: String,
) {
    let without = || uninjected.lock().unwrap_or_else(PoisonError::into_inner);
    let observe = |pod: Pod| {
        let why = why_uninjected(&pod, &release);
        let observed = observed(pod);
        without().saw(observed.identity.clone(), why);
        sync.fleet().observe(observed);
    };
    let config = Config::default()
        .labels(&format!("{INJECT_LABEL}=enabled"))
        .page_size(PAGE);
    let mut listed = HashSet::new();
    let events = watcher(Api::<Pod>::all(client), config).default_backoff();
    futures_util::pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod)) => observe(pod),
            Ok(Event::Delete(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                without().forget(&uid);
                sync.fleet().forget(&uid);
            }
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.extend(pod.uid());
                observe(pod);
            }
            Ok(Event::InitDone) => {
                without().keep_only(&listed);
                sync.fleet().keep_only(&listed);
                seen.pods.store(true, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!("watching pods failed, and is tried again: {error}"),
        }
    }
}

/// Why a pod that asks for a relay has none.
fn why_uninjected(pod: &Pod, release: &str) -> Option<Why> {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let has_finished = matches!(phase, Some("Succeeded" | "Failed"));
    let spec = pod.spec.as_ref()?;
    let mut sidecars = spec.init_containers.iter().flatten();
    let has_sidecar = sidecars.any(|container| {
        container.name == CONTAINER_NAME && container.restart_policy.as_deref() == Some("Always")
    });
    if has_finished || has_sidecar {
        return None;
    }
    uninjected::why(&serde_json::to_value(pod).ok()?, release)
}

/// What matters of a pod.
fn observed(pod: Pod) -> ObservedPod {
    let ObjectMeta {
        namespace,
        name,
        uid,
        labels,
        annotations,
        deletion_timestamp,
        ..
    } = pod.metadata;
    let mut annotations = annotations.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let has_finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let conditions = status.conditions.unwrap_or_default();
    ObservedPod {
        identity: PodIdentity {
            namespace: namespace.unwrap_or_default(),
            name: name.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
        },
        labels: labels.unwrap_or_default(),
        named_policy: annotations.remove(POLICY_ANNOTATION),
        is_injected: annotations.contains_key(INJECTED_ANNOTATION),
        is_ready: conditions
            .iter()
            .any(|known| known.type_ == "Ready" && known.status == "True"),
        has_ended: deletion_timestamp.is_some() || has_finished,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_pod_only_what_matters_is_kept() {
        let pod = |status: serde_json::Value, deleted: Option<&str>| {
            let mut pod = json!({
                "metadata": {"namespace": "shop", "name": "web-1", "uid": "u", "labels": {"app": "web"},
                    "annotations": {"ringside.dev/injected": "0.1.0", "ringside.dev/policy": "web", "other": "x"}},
                "status": status,
            });
            if let Some(at) = deleted {
                pod["metadata"]["deletionTimestamp"] = at.into();
            }
            observed(serde_json::from_value(pod).unwrap())
        };
        let ready =
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let seen = pod(ready.clone(), None);
        assert!(seen.is_injected && seen.is_ready && !seen.has_ended);
        assert_eq!(seen.named_policy.as_deref(), Some("web"));
        assert!(pod(ready, Some("2026-01-01T00:00:00Z")).has_ended);
        assert!(pod(json!({"phase": "Succeeded"}), None).has_ended);
        assert!(!pod(json!({"phase": "Pending"}), None).is_ready);
    }
}
