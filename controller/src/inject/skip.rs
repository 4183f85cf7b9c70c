//! Which pods get no sidecar, and why. It owns the reasons and their sentences.

use serde_json::Value;
use thiserror::Error;

use super::injection::Unlabelled;
use super::pod::{Pod, text};
use super::{CONTAINER_NAME, INJECT_LABEL};

/// Why a pod gets no sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Skip {
    /// Its label does not ask for one.
    #[error("its label {INJECT_LABEL} does not say enabled")]
    NotAsked,
    /// It has one.
    #[error("it has a sidecar already")]
    AlreadyInjected,
    /// It is on its way out.
    #[error("it is being deleted")]
    BeingDeleted,
    /// The kubelet made it from a file on its node; what the API server shows is a mirror of it.
    #[error(
        "it is a static pod, which only its file on the node can change: run ringside-controller inject on that file"
    )]
    StaticPod,
    /// It lives in its node's network.
    #[error(
        "it uses its node's network (hostNetwork), where the relay's ports would be taken from every pod like it"
    )]
    HostNetwork,
    /// It runs on Windows.
    #[error("it runs on Windows, and the relay needs Linux")]
    Windows,
    /// Another container has the sidecar's name.
    #[error(
        "a container of its own is named {CONTAINER_NAME}, as the sidecar would be: give it another name"
    )]
    NameTaken,
    /// Nothing says what to relay.
    #[error(
        "nothing says what to relay: declare the application's TCP port (containerPort), or annotate ringside.dev/relay: \"web=15080:8080\", which listens on 15080 and relays to 8080"
    )]
    NothingToRelay,
    /// It is no pod.
    #[error("it is no valid pod: {0}")]
    Malformed(String),
}

impl Skip {
    /// Whether whoever asked for a sidecar should hear of it.
    pub fn is_worth_a_warning(&self) -> bool {
        !matches!(
            self,
            Self::NotAsked | Self::AlreadyInjected | Self::BeingDeleted
        )
    }
}

/// The reason to skip this pod, if there is one. What there is to relay is judged later.
pub(super) fn reason(pod: &Pod<'_>, unlabelled: Unlabelled) -> Option<Skip> {
    let label = pod
        .metadata("labels")
        .and_then(|labels| labels.get(INJECT_LABEL));
    let is_asked = match label {
        None => unlabelled == Unlabelled::InjectAndLabel,
        Some(label) => label == "enabled",
    };
    let mut sidecars = pod.list("initContainers").iter();
    let is_ours = |container: &Value| {
        text(container, "name") == Some(CONTAINER_NAME)
            && text(container, "restartPolicy") == Some("Always")
    };
    let is = |truth: bool, skip: Skip| truth.then_some(skip);
    is(!is_asked, Skip::NotAsked)
        .or_else(|| is(sidecars.any(is_ours), Skip::AlreadyInjected))
        .or_else(|| is(pod.has("/metadata/deletionTimestamp"), Skip::BeingDeleted))
        .or_else(|| is(is_static(pod), Skip::StaticPod))
        .or_else(|| {
            is(
                pod.at("/hostNetwork") == Some(&Value::Bool(true)),
                Skip::HostNetwork,
            )
        })
        .or_else(|| is(runs_on_windows(pod), Skip::Windows))
        .or_else(|| is(has_name_taken(pod), Skip::NameTaken))
}

fn is_static(pod: &Pod<'_>) -> bool {
    let annotations = pod.metadata("annotations");
    annotations.is_some_and(|all| all.get("kubernetes.io/config.mirror").is_some())
}

fn runs_on_windows(pod: &Pod<'_>) -> bool {
    let system = |path: &str| pod.at(path).and_then(Value::as_str);
    [
        "/os/name",
        "/nodeSelector/kubernetes.io~1os",
        "/nodeSelector/beta.kubernetes.io~1os",
    ]
    .into_iter()
    .any(|path| system(path) == Some("windows"))
}

fn has_name_taken(pod: &Pod<'_>) -> bool {
    ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .any(|field| pod.has_named(field, CONTAINER_NAME))
}
