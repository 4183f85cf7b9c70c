//! What the controller says of a policy. Its conditions are `Accepted` (the settings are allowed), `Programmed` (every relay that
//! obeys it runs them), `Ready` (enough of its pods take connections) and `Degraded` (something is wrong with one of them).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::policy::list_by_type;

/// Pods that a status names at most, the worst first.
pub const WORST_PODS_MOST: usize = 10;

/// The status of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation of the policy that this status tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The pods that obey this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// How many of their relays run on each backend.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "counts")]
    pub backends: BTreeMap<String, u32>,
    /// Pods under the most pushback, ten at most, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub worst_pods: Vec<WorstPod>,
    /// The reason of the condition that matters most, for `kubectl get -o wide`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Accepted, Programmed, Ready and Degraded.
    #[serde(default)]
    #[schemars(schema_with = "list_by_type")]
    pub conditions: Vec<Condition>,
}

/// A number from 0 on, in a format that Kubernetes knows: kubectl warns of others, such as uint32.
fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0})
}

/// Numbers from 0 on, by name.
fn counts(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": count(generator)})
}

/// How many pods obey a policy, and how they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodCounts {
    /// Pods with a relay that obey this policy.
    #[schemars(schema_with = "count")]
    pub matched: u32,
    /// Of them, those whose relay runs its settings.
    #[schemars(schema_with = "count")]
    pub programmed: u32,
    /// Of them, those whose relay takes connections.
    #[schemars(schema_with = "count")]
    pub ready: u32,
    /// Ready and matched, such as `38/40`.
    pub summary: String,
}

/// A pod under pushback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorstPod {
    /// The pod's name; with its namespace before a slash where the policy is the cluster's.
    pub name: String,
    /// The share of its submissions that the kernel pushed back, in percent.
    #[schemars(schema_with = "count")]
    pub pushback_percent: u32,
    /// Since when it has been under sustained pushback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
