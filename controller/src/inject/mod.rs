//! Injection: what is added to a pod so that the relay rides in it. Pure: a pod's JSON in, a patch and warnings out.
//!
//! It owns the words on the pod (label, annotations) and the order of decisions. It only ever adds, changes nothing that is the user's,
//! denies nothing and never panics, whatever the JSON; what is injected already is left as it is.

mod additions;
mod allowed;
mod budget;
mod container;
mod injection;
mod interception;
pub mod manifest;
mod pod;
mod quality;
mod quantity;
mod relays;
mod skip;
#[cfg(test)]
mod tests;
mod tuning;

use json_patch::PatchOperation;
use ringside_api::sync::Assigned;
use serde_json::{Map, Value, json};

use additions::Additions;
pub use allowed::NotAllowed;
pub use container::{POD_FILES, STATE};
pub use injection::{
    Controller, FIRST_LISTEN_PORT_DEFAULT, Injection, Probes, Resources, Seccomp, USER_DEFAULT,
    Unlabelled,
};
pub use interception::{INTERCEPT_ANNOTATION, INTERCEPT_CONTAINER_NAME, INTERCEPTED_PORTS_MOST};
use pod::Pod;
pub use relays::{
    ADMIN_PORT_NAME, DERIVED_RELAYS_MOST, PROXY_PROTOCOL_ANNOTATION, RELAY_ANNOTATION,
};
pub use skip::Skip;

/// The label by which a pod asks for a sidecar: `enabled`.
pub const INJECT_LABEL: &str = "ringside.dev/inject";

/// The name of the sidecar's container.
pub const CONTAINER_NAME: &str = "ringside";

/// Stamped at injection: the version that injected.
pub const INJECTED_ANNOTATION: &str = "ringside.dev/injected";

/// Stamped at injection: what policies assign at that moment, as JSON of [`Assigned`].
pub const SETTINGS_ANNOTATION: &str = "ringside.dev/settings";

/// Stamped at injection: the certificates to trust the controller by, in PEM.
pub const CA_ANNOTATION: &str = "ringside.dev/controller-ca";

/// How annotations begin that tell a Prometheus what to scrape.
const SCRAPE_PREFIX: &str = "prometheus.io/";

/// What comes of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// Whether it gets a sidecar, and how.
    pub outcome: Outcome,
    /// What whoever made the pod should know, a sentence each.
    pub warnings: Vec<String>,
}

/// Whether a pod gets a sidecar.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It does, by these operations, all of them `add`.
    Patch(Vec<PatchOperation>),
    /// It does not.
    Skipped(Skip),
}

impl Injected {
    /// What to add: nothing for a pod that is skipped.
    pub fn patch(&self) -> &[PatchOperation] {
        match &self.outcome {
            Outcome::Patch(operations) => operations,
            Outcome::Skipped(_) => &[],
        }
    }
}

/// What to add to this pod, or pod template: an object with `metadata` and `spec`. `assigned` is what policies assign to it.
pub fn inject(pod: &Value, injection: &Injection, assigned: &Assigned) -> Injected {
    let mut warnings = Vec::new();
    let outcome = match decide(pod, injection, assigned, &mut warnings) {
        Ok(patch) => Outcome::Patch(patch),
        Err(skip) => {
            if skip.is_worth_a_warning() {
                warnings.push(format!(
                    "no relay is injected into this pod, because {skip}"
                ));
            }
            Outcome::Skipped(skip)
        }
    };
    Injected { outcome, warnings }
}

fn decide(
    whole: &Value,
    injection: &Injection,
    assigned: &Assigned,
    warnings: &mut Vec<String>,
) -> Result<Vec<PatchOperation>, Skip> {
    let pod = Pod::read(whole).map_err(Skip::Malformed)?;
    if let Some(skip) = skip::reason(&pod, injection.unlabelled) {
        return Err(skip);
    }
    let tuning = tuning::read(&pod, injection, warnings);
    let ports = relays::choose(&pod, injection, warnings)?;
    let parts = container::parts(&pod, injection, &tuning, &ports, warnings);
    let intercept = interception::container(&pod, injection, &tuning, &ports, warnings);
    quality::warn_of_loss(&pod, &tuning.resources, warnings);

    let mut additions = Additions::to(whole);
    additions.members(&["metadata", "annotations"], stamps(injection, assigned));
    additions.members(
        &["metadata", "annotations"],
        scrape_annotations(&pod, injection, ports.admin),
    );
    if injection.unlabelled == Unlabelled::InjectAndLabel
        && !pod.has("/metadata/labels/ringside.dev~1inject")
    {
        let label = (INJECT_LABEL.to_owned(), json!("enabled"));
        additions.members(&["metadata", "labels"], Map::from_iter([label]));
    }
    additions.last(&["spec", "volumes"], parts.volumes);
    // The second of both, as what comes to the front last is the first.
    if let Some(intercept) = intercept {
        additions.first(&["spec", "initContainers"], intercept);
    }
    additions.first(&["spec", "initContainers"], parts.container);
    Ok(additions.into_patch())
}

/// What tells of the injection, and what the sidecar reads through the downward API.
fn stamps(injection: &Injection, assigned: &Assigned) -> Map<String, Value> {
    let mut stamps = Map::new();
    let mut stamp = |key: &str, text: String| stamps.insert(key.to_owned(), Value::String(text));
    stamp(INJECTED_ANNOTATION, injection.version.clone());
    if let Some(controller) = &injection.controller {
        // It has only text keys and values that JSON can hold.
        stamp(
            SETTINGS_ANNOTATION,
            serde_json::to_string(assigned).unwrap_or_default(),
        );
        stamp(CA_ANNOTATION, controller.ca_pem.clone());
    }
    stamps
}

/// What leads a Prometheus to the sidecar that goes by annotations; nothing for a pod that leads it elsewhere.
fn scrape_annotations(pod: &Pod<'_>, injection: &Injection, port: u16) -> Map<String, Value> {
    let mut annotations = pod.annotations();
    if !injection.scrape_annotations || annotations.any(|(key, _)| key.starts_with(SCRAPE_PREFIX)) {
        return Map::new();
    }
    [
        ("scrape", "true".to_owned()),
        ("port", port.to_string()),
        ("path", "/metrics".to_owned()),
    ]
    .map(|(key, value)| (format!("{SCRAPE_PREFIX}{key}"), Value::String(value)))
    .into_iter()
    .collect()
}
