//! The fleet as its users make it: Deployments with a Service and a policy each; and how far they are, as the API server tells.
//!
//! It makes objects and looks at them; it owns no process.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use ringside_api::resources::RelayPolicy;
use ringside_api::sync::PodIdentity;
use ringside_e2e::fleet::crowd::Made;
use ringside_e2e::identity;
use serde_json::{Value, json};
use tokio::time::sleep;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often the API server is asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Tokens that are asked for at a time.
const AT_ONCE: usize = 64;

/// How long they are good: longer than the whole of it takes.
const TOKEN_LIFE: Duration = Duration::from_secs(4 * 3600);

/// A Deployment's name; so begin those of its pods.
pub(crate) fn app(index: usize) -> String {
    format!("app{index:02}-")
}

/// A Deployment of `replicas` pods, which ask for a relay if `injected`.
pub(crate) fn deployment(name: &str, replicas: usize, injected: bool) -> Value {
    let name = name.trim_end_matches('-');
    let mut labels = json!({"app": name});
    if injected {
        labels["ringside.dev/inject"] = json!("enabled");
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels, "annotations": {"ringside.dev/relay": "web=15080:8080"}},
                "spec": {"serviceAccountName": "default",
                    "containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080}]}]},
            },
        },
    })
}

/// The Service of a Deployment, which leads to the relay.
pub(crate) fn service(name: &str) -> Value {
    let name = name.trim_end_matches('-');
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "web"}]},
    })
}

/// The policy of a Deployment's pods, of which at most `max_unready_percent` may leave.
pub(crate) fn policy(name: &str, batch: usize, max_unready_percent: usize) -> Value {
    let name = name.trim_end_matches('-');
    json!({
        "apiVersion": "ringside.dev/v1alpha1", "kind": "RelayPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": name}}, "batch": {"max": batch},
            "readiness": {"maxUnreadyPercent": max_unready_percent}},
    })
}

/// All of these as one document.
pub(crate) fn list(items: impl Iterator<Item = Value>) -> String {
    let items: Vec<Value> = items.collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// The native sidecar of a pod that was injected.
fn sidecar(pod: &Pod) -> Option<&Container> {
    let initial = pod.spec.as_ref()?.init_containers.iter().flatten();
    let mut ours = initial.filter(|container| {
        container.name == "ringside" && container.restart_policy.as_deref() == Some("Always")
    });
    ours.next()
}

/// Where the fleet is.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Place {
    /// Waits until Deployments have so many ready pods together.
    pub(crate) async fn await_ready(&self, count: usize) {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let begin = Instant::now();
        loop {
            let all = deployments.list(&ListParams::default()).await;
            let all = all.expect("the Deployments");
            let ready = all
                .iter()
                .filter_map(|one| one.status.as_ref()?.ready_replicas);
            let ready: i32 = ready.sum();
            if usize::try_from(ready) == Ok(count) {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{ready} of {count} pods are Ready after {PATIENCE:?}"
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until there are no pods.
    pub(crate) async fn await_no_pods(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let begin = Instant::now();
        while !pods
            .list_metadata(&ListParams::default().limit(1))
            .await
            .expect("the pods")
            .items
            .is_empty()
        {
            assert!(begin.elapsed() < PATIENCE, "pods are never gone");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Deletes the pods that have no relay, since the webhook did not answer in time: their Deployments make others. Returns how many
    /// there were, and how many have one.
    pub(crate) async fn delete_uninjected(&self) -> (usize, usize) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = self.all_pods().await;
        let without = all.iter().filter(|pod| sidecar(pod).is_none());
        let names: Vec<String> = without.map(ResourceExt::name_any).collect();
        for name in &names {
            pods.delete(name, &DeleteParams::default())
                .await
                .expect("a pod can be deleted");
        }
        (names.len(), all.len() - names.len())
    }

    async fn all_pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let mut page = ListParams::default().limit(500);
            page.continue_token = from.take();
            let page = pods.list(&page).await.expect("the pods");
            from = page
                .metadata
                .continue_
                .clone()
                .filter(|token| !token.is_empty());
            all.extend(page.items);
            if from.is_none() {
                break;
            }
        }
        all.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        all
    }

    /// Who its pods are, each with a token, and with what the webhook has stamped on it.
    ///
    /// # Panics
    /// If one of them was not injected.
    pub(crate) async fn pods(&self) -> Vec<Made> {
        let all = self.all_pods().await;
        let one = |pod: Pod| async move {
            let name = pod.name_any();
            assert!(sidecar(&pod).is_some(), "the pod {name} was not injected");
            let ca = pod.annotations().get("ringside.dev/controller-ca").cloned();
            let token = identity::token_living(
                &self.client,
                &self.namespace,
                "default",
                identity::AUDIENCE,
                Some(&pod),
                TOKEN_LIFE,
            );
            Ok::<_, kube::Error>(Made {
                token: token.await?,
                ca: ca.unwrap_or_else(|| panic!("nothing on the pod {name} says whom to trust")),
                identity: PodIdentity {
                    namespace: self.namespace.clone(),
                    uid: pod.uid().unwrap_or_default(),
                    name,
                },
            })
        };
        let made = stream::iter(all).map(one).buffer_unordered(AT_ONCE);
        made.try_collect().await.expect("tokens of the pods")
    }

    /// Waits until `count` policies, as they are now, have a status that says of each: all of its `pods` pods run it.
    pub(crate) async fn await_programmed(&self, count: usize, pods: u32) {
        let policies: Api<RelayPolicy> = Api::namespaced(self.client.clone(), &self.namespace);
        let begin = Instant::now();
        loop {
            let all = policies
                .list(&ListParams::default())
                .await
                .expect("the policies");
            let programmed = all.iter().filter(|policy| {
                let Some(status) = &policy.status else {
                    return false;
                };
                let programmed = status.conditions.iter().any(|condition| {
                    condition.type_ == "Programmed"
                        && condition.status == "True"
                        && condition.observed_generation == policy.metadata.generation
                });
                programmed
                    && status
                        .pods
                        .as_ref()
                        .is_some_and(|counts| counts.programmed == pods && counts.ready == pods)
            });
            let programmed = programmed.count();
            if programmed == count {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{programmed} of {count} policies are Programmed after {PATIENCE:?}"
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// Of each Service, how many of its endpoints take no connections.
    pub(crate) async fn endpoints_away(&self) -> Vec<usize> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = slices
            .list(&ListParams::default())
            .await
            .expect("the EndpointSlices");
        let mut away: BTreeMap<String, usize> = BTreeMap::new();
        for slice in all {
            let endpoints = slice.endpoints.iter();
            let ready = |endpoint: &Endpoint| {
                endpoint
                    .conditions
                    .as_ref()
                    .and_then(|conditions| conditions.ready)
            };
            let service = slice.labels().get("kubernetes.io/service-name").cloned();
            *away.entry(service.unwrap_or_default()).or_default() += endpoints
                .filter(|endpoint| ready(endpoint) == Some(false))
                .count();
        }
        away.into_values().collect()
    }
}
