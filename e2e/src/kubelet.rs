//! What a scheduler and a kubelet would tell the API server of pods, without running any: bound to a node, running, ready
//! or not, gone. Told by the same calls (bindings, status patches, deletions), so that whoever watches sees the same.
//!
//! It owns no pod and starts nothing by itself: each call does one thing to one pod.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// A node on which the pods of a namespace seem to run.
#[derive(Clone)]
pub struct Kubelet {
    client: Client,
    pods: Api<Pod>,
    namespace: String,
    node: String,
}

impl Kubelet {
    /// For the pods of `namespace`, on a node of that name; there need be no such node.
    pub fn new(client: Client, namespace: &str, node: &str) -> Self {
        Self {
            pods: Api::namespaced(client.clone(), namespace),
            client,
            namespace: namespace.to_owned(),
            node: node.to_owned(),
        }
    }

    /// Binds the pod to the node, if nobody has, and makes it running and ready with an address of its own.
    ///
    /// # Errors
    /// Whatever the API server refuses.
    pub async fn start(&self, pod: &str) -> kube::Result<Pod> {
        self.bind(pod).await?;
        self.report(pod, true).await
    }

    /// Makes a running pod ready or not ready, as a probe's answer would.
    ///
    /// # Errors
    /// Whatever the API server refuses.
    pub async fn set_ready(&self, pod: &str, ready: bool) -> kube::Result<Pod> {
        self.report(pod, ready).await
    }

    /// Binds the pod to the node, if nobody has: it is scheduled, and no container has started.
    ///
    /// # Errors
    /// Whatever the API server refuses.
    pub async fn bind(&self, pod: &str) -> kube::Result<()> {
        let found = self.pods.get(pod).await?;
        if found.spec.is_some_and(|spec| spec.node_name.is_some()) {
            return Ok(());
        }
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.node},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/binding", self.namespace);
        let request = hyper::Request::post(path)
            .header("content-type", "application/json")
            .body(binding.to_string().into_bytes());
        let request = request.expect("names of Kubernetes are fit for a path");
        self.client.request::<Value>(request).await.map(drop)
    }

    /// The user's end of a pod: it is marked as ending, with the grace period of its own, and stays until
    /// [`finish`](Self::finish). A pod that was never bound goes at once.
    ///
    /// # Errors
    /// Whatever the API server refuses.
    pub async fn delete(&self, pod: &str) -> kube::Result<()> {
        let deleted = self.pods.delete(pod, &DeleteParams::default()).await;
        deleted.map(drop)
    }

    /// The kubelet's end of a pod that is being deleted, once its containers have ended: it is not ready any more, and then
    /// gone.
    ///
    /// # Errors
    /// Whatever the API server refuses; also, as a conflict, if nobody has asked for the pod to be deleted.
    pub async fn finish(&self, pod: &str) -> kube::Result<()> {
        let found = self.pods.get(pod).await?;
        if found.metadata.deletion_timestamp.is_none() {
            let text = format!("the pod {pod} is not being deleted: nothing is to be finished");
            let status = kube::core::Status::failure(&text, "Conflict").with_code(409);
            return Err(kube::Error::Api(Box::new(status)));
        }
        self.report(pod, false).await?;
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: found.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default().grace_period(0)
        };
        self.pods.delete(pod, &params).await.map(drop)
    }

    /// The status of a running pod.
    async fn report(&self, pod: &str, ready: bool) -> kube::Result<Pod> {
        let found = self.pods.get(pod).await?;
        let spec = found.spec.clone().unwrap_or_default();
        let before = found.status.clone().unwrap_or_default();
        let now = json!(Time(Timestamp::now()));
        let since = |kind: &str, holds: bool| {
            let known = before.conditions.iter().flatten();
            let same = known
                .filter(|condition| condition.type_ == kind && condition.status == word(holds));
            let mut since = same.filter_map(|condition| condition.last_transition_time.clone());
            since.next_back().map_or(now.clone(), |since| json!(since))
        };
        let condition = |kind: &str, holds: bool| {
            json!({
                "type": kind, "status": word(holds), "lastTransitionTime": since(kind, holds),
                "reason": (!holds).then_some("ContainersNotReady"),
            })
        };
        let started = before
            .start_time
            .as_ref()
            .map_or(now.clone(), |time| json!(time));
        // Init containers that go on are native sidecars; others have ended by now.
        let initial: Vec<Value> = spec
            .init_containers
            .iter()
            .flatten()
            .map(|container| {
                if container.restart_policy.as_deref() == Some("Always") {
                    running(container, ready, &started)
                } else {
                    ended(container, &started)
                }
            })
            .collect();
        let containers: Vec<Value> = spec
            .containers
            .iter()
            .map(|container| running(container, ready, &started))
            .collect();
        let address = before
            .pod_ip
            .unwrap_or_else(|| address(&found.uid().unwrap_or_default()));
        let status = json!({"status": {
            "phase": "Running", "hostIP": "127.0.0.1", "startTime": started,
            "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [
                condition("PodScheduled", true), condition("Initialized", true),
                condition("ContainersReady", ready), condition("Ready", ready),
            ],
            "initContainerStatuses": initial, "containerStatuses": containers,
        }});
        let patch = Patch::Strategic(status);
        self.pods
            .patch_status(pod, &PatchParams::default(), &patch)
            .await
    }

    /// Makes a pod of these `fields` (a Pod's, without kind and namespace), as a user would.
    ///
    /// # Errors
    /// Whatever the API server refuses.
    ///
    /// # Panics
    /// If they are not a Pod's.
    pub async fn create(&self, fields: Value) -> kube::Result<Pod> {
        let pod: Pod = serde_json::from_value(fields).expect("the fields of a Pod");
        self.pods.create(&PostParams::default(), &pod).await
    }
}

fn word(holds: bool) -> &'static str {
    if holds { "True" } else { "False" }
}

fn running(container: &Container, ready: bool, since: &Value) -> Value {
    json!({
        "name": container.name, "image": container.image.as_deref().unwrap_or("none"), "imageID": "", "containerID": "",
        "ready": ready, "started": true, "restartCount": 0, "state": {"running": {"startedAt": since}},
    })
}

fn ended(container: &Container, since: &Value) -> Value {
    let state =
        json!({"exitCode": 0, "reason": "Completed", "startedAt": since, "finishedAt": since});
    json!({
        "name": container.name, "image": container.image.as_deref().unwrap_or("none"), "imageID": "", "containerID": "",
        "ready": true, "started": false, "restartCount": 0, "state": {"terminated": state},
    })
}

/// An address of 10.0.0.0/8 for a pod, which nothing answers at.
fn address(uid: &str) -> String {
    let hash = uid
        .bytes()
        .fold(0_u32, |hash, byte| hash.wrapping_mul(31) + u32::from(byte));
    let [_, b, c, d] = hash.to_be_bytes();
    format!("10.{b}.{c}.{}", d.clamp(1, 254))
}
