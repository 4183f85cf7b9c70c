//! `RelayPolicy` and `ClusterRelayPolicy`: settings for the pods of a namespace, and for all of a cluster.
//!
//! They own how a policy is written. No field has a default: one that is left out is a lower layer's to decide.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::status::PolicyStatus;
use crate::settings::Patch;

/// Settings for the relays of the namespace's pods that `podSelector` selects. A pod's annotation `ringside.dev/policy: NAME`
/// comes first; of several that select a pod, the oldest applies.
#[derive(CustomResource, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ringside.dev",
    version = "v1alpha1",
    kind = "RelayPolicy",
    doc = "A RelayPolicy sets what the relays of some pods of its namespace obey: how they accept, back off, batch, buffer, time out and leave their Services. It tells in its status how these pods are.",
    namespaced,
    shortname = "rlp",
    category = "ringside",
    status = "PolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Programmed","type":"string","jsonPath":".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.pods.summary","description":"Pods that take connections, of those that obey this policy"}"#,
    printcolumn = r#"{"name":"Degraded","type":"string","jsonPath":".status.conditions[?(@.type==\"Degraded\")].status"}"#,
    printcolumn = r#"{"name":"Ring","type":"integer","jsonPath":".status.backends.ring","priority":1}"#,
    printcolumn = r#"{"name":"Epoll","type":"integer","jsonPath":".status.backends.epoll","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct RelayPolicySpec {
    /// Which of the namespace's pods; left out, only pods that name this policy by annotation.
    pub pod_selector: Option<LabelSelector>,
    /// What it sets.
    pub settings: Patch,
}

/// Settings for all relays of the cluster, under those of a RelayPolicy. The one named `default` applies, and no other name is
/// allowed.
#[derive(CustomResource, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ringside.dev",
    version = "v1alpha1",
    kind = "ClusterRelayPolicy",
    doc = "A ClusterRelayPolicy sets what all relays of the cluster obey where their RelayPolicy says nothing. The one named default applies. It tells in its status how all pods with a relay are.",
    shortname = "crlp",
    category = "ringside",
    status = "PolicyStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name == 'default'").message("the one ClusterRelayPolicy that applies is named default: name it so"),
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Programmed","type":"string","jsonPath":".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.pods.summary","description":"Pods that take connections, of all that have a relay"}"#,
    printcolumn = r#"{"name":"Degraded","type":"string","jsonPath":".status.conditions[?(@.type==\"Degraded\")].status"}"#,
    printcolumn = r#"{"name":"Ring","type":"integer","jsonPath":".status.backends.ring","priority":1}"#,
    printcolumn = r#"{"name":"Epoll","type":"integer","jsonPath":".status.backends.epoll","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct ClusterRelayPolicySpec {
    /// What it sets.
    pub settings: Patch,
}

const POD_SELECTOR: &str = "podSelector";

impl Serialize for RelayPolicySpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        /// As it is written: the settings beside the selector.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            pod_selector: &'a Option<LabelSelector>,
            #[serde(flatten)]
            settings: &'a Patch,
        }
        let Self {
            pod_selector,
            settings,
        } = self;
        let written = Written {
            pod_selector,
            settings,
        };
        written.serialize(to)
    }
}

impl<'de> Deserialize<'de> for RelayPolicySpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut written = Map::<String, Value>::deserialize(from)?;
        let pod_selector = written.remove(POD_SELECTOR).unwrap_or_default();
        let pod_selector = serde_json::from_value(pod_selector)
            .map_err(|error| serde::de::Error::custom(format!("{POD_SELECTOR}: {error}")))?;
        Ok(Self {
            pod_selector,
            settings: settings(written)?,
        })
    }
}

impl Serialize for ClusterRelayPolicySpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.settings.serialize(to)
    }
}

impl<'de> Deserialize<'de> for ClusterRelayPolicySpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let settings = settings(Map::deserialize(from)?)?;
        Ok(Self { settings })
    }
}

fn settings<E: serde::de::Error>(written: Map<String, Value>) -> Result<Patch, E> {
    serde_json::from_value(Value::Object(written)).map_err(E::custom)
}

impl JsonSchema for RelayPolicySpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RelayPolicySpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Patch::json_schema(generator);
        let mut selector = LabelSelector::json_schema(generator);
        selector.insert(
            "description".to_owned(),
            "Which of the namespace's pods; left out, only pods that name this policy by the annotation ringside.dev/policy. \
             An empty selector selects all."
                .into(),
        );
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.insert(POD_SELECTOR.to_owned(), selector.to_value());
        }
        with_meaning(
            schema,
            "What the relays of the selected pods obey. A field that is left out is the ClusterRelayPolicy's, and else the built-in default.",
        )
    }
}

impl JsonSchema for ClusterRelayPolicySpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ClusterRelayPolicySpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let schema = Patch::json_schema(generator);
        with_meaning(
            schema,
            "What all relays obey where their RelayPolicy says nothing. A field that is left out is the built-in default.",
        )
    }
}

fn with_meaning(mut schema: Schema, meaning: &str) -> Schema {
    schema.insert("description".to_owned(), meaning.into());
    schema
}

/// A list that server-side apply merges by the key `type`.
pub(super) fn list_by_type(generator: &mut SchemaGenerator) -> Schema {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    let items = generator.subschema_for::<Condition>();
    json_schema!({
        "type": "array",
        "items": items,
        "description": "Accepted, Programmed, Ready and Degraded.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
