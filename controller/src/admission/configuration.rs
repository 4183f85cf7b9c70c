//! The webhook configurations: what an API server is told, as data. It owns which pods and policies are asked about and what happens while
//! nobody answers; it applies nothing.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ringside_api::resources::GROUP;
use serde_json::{Value, json};

use super::{INJECT_PATH, VALIDATE_PATH};
use crate::inject::{CONTAINER_NAME, INJECT_LABEL};

/// The name of the webhook that injects.
pub const INJECT_WEBHOOK: &str = "inject.ringside.dev";

/// The name of the webhook that validates policies.
pub const VALIDATE_WEBHOOK: &str = "validate.ringside.dev";

/// How long an API server waits, in seconds.
const TIMEOUT_SECONDS: u32 = 5;

/// How an API server reaches the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// By `https://HOST:PORT`, without a path: for a controller outside of the cluster.
    Url(String),
}

/// What the configurations are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhooks {
    /// The name of both configurations.
    pub name: String,
    /// Labels of both.
    pub labels: BTreeMap<String, String>,
    /// Where the endpoints are.
    pub reach: Reach,
    /// The certificates to trust them by, in PEM; `None` where somebody else fills them in.
    pub ca_pem: Option<String>,
    /// The namespace of the release, whose pods must start without the webhook.
    pub release_namespace: String,
}

impl Webhooks {
    /// The MutatingWebhookConfiguration. While nobody answers, pods are created without a relay.
    pub fn mutating(&self) -> Value {
        self.configuration(
            "MutatingWebhookConfiguration",
            json!({
                "name": INJECT_WEBHOOK,
                "clientConfig": self.client(INJECT_PATH),
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["pods"], "scope": "Namespaced",
                }],
                "objectSelector": {"matchLabels": {INJECT_LABEL: "enabled"}},
                "namespaceSelector": {"matchExpressions": [{
                    "key": "kubernetes.io/metadata.name", "operator": "NotIn",
                    "values": excluded(&self.release_namespace),
                }]},
                "matchConditions": [
                    {
                        "name": "not-in-the-nodes-network",
                        "expression": "!(has(object.spec.hostNetwork) && object.spec.hostNetwork)",
                    },
                    {
                        "name": "not-injected-yet",
                        "expression": format!(
                            "!has(object.spec.initContainers) || !object.spec.initContainers.exists(c, c.name == '{CONTAINER_NAME}')"
                        ),
                    },
                ],
                "failurePolicy": "Ignore",
                "reinvocationPolicy": "IfNeeded",
            }),
        )
    }

    /// The ValidatingWebhookConfiguration. While nobody answers, policies are stored unseen, and the controller judges them later.
    pub fn validating(&self) -> Value {
        self.configuration(
            "ValidatingWebhookConfiguration",
            json!({
                "name": VALIDATE_WEBHOOK,
                "clientConfig": self.client(VALIDATE_PATH),
                "rules": [{
                    "apiGroups": [GROUP], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["relaypolicies", "clusterrelaypolicies"], "scope": "*",
                }],
                "failurePolicy": "Ignore",
            }),
        )
    }

    fn configuration(&self, kind: &str, mut webhook: Value) -> Value {
        for (field, value) in [
            ("admissionReviewVersions", json!(["v1"])),
            ("matchPolicy", json!("Equivalent")),
            ("sideEffects", json!("None")),
            ("timeoutSeconds", json!(TIMEOUT_SECONDS)),
        ] {
            webhook[field] = value;
        }
        let mut metadata = json!({"name": self.name});
        if !self.labels.is_empty() {
            metadata["labels"] = json!(self.labels);
        }
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": metadata,
            "webhooks": [webhook],
        })
    }

    fn client(&self, path: &str) -> Value {
        let mut client = match &self.reach {
            Reach::Service {
                namespace,
                name,
                port,
            } => {
                json!({"service": {"namespace": namespace, "name": name, "port": port, "path": path}})
            }
            Reach::Url(url) => json!({"url": format!("{}{path}", url.trim_end_matches('/'))}),
        };
        if let Some(pem) = &self.ca_pem {
            client["caBundle"] = json!(BASE64_STANDARD.encode(pem));
        }
        client
    }
}

/// The namespaces whose pods are never asked about.
fn excluded(release: &str) -> Vec<&str> {
    let mut namespaces = vec!["kube-system"];
    if release != "kube-system" {
        namespaces.push(release);
    }
    namespaces
}
