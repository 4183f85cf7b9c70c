//! Interception of an application's own ports: what the annotation `ringside.dev/intercept` asks for, and the init container that
//! has the kernel redirect them. It owns which ports can be intercepted; nothing here is refused, only warned of.
//!
//! The container comes after the sidecar, so that no rule leads to a port where nobody listens yet, and before all others of the
//! pod, so that no application is there before the rules.

use std::collections::BTreeSet;

use ringside_api::config::RELAYS_MAX;
use ringside_api::sentence::quoted;
use ringside_api::{Relay, Target};
use serde_json::{Value, json};

use super::budget;
use super::container::resources;
use super::injection::Injection;
use super::pod::Pod;
use super::relays::{Ports, Wanted, port};
use super::tuning::Tuning;

/// The application's own ports whose connections are to come through the relay, separated by commas.
pub const INTERCEPT_ANNOTATION: &str = "ringside.dev/intercept";

/// The name of the init container that sets the rules.
pub const INTERCEPT_CONTAINER_NAME: &str = "ringside-intercept";

/// Ports of a pod that are intercepted, at most: as many as `ringside intercept` takes.
pub const INTERCEPTED_PORTS_MOST: usize = 64;

/// The ports to intercept, each once; without what is wrong, or is the sidecar's own. `relays` are those that the pod asks for.
pub(super) fn wanted(
    pod: &Pod<'_>,
    injection: &Injection,
    relays: &[Wanted],
    warnings: &mut Vec<String>,
) -> Vec<u16> {
    let mut ports: Vec<u16> = Vec::new();
    let Some(written) = pod.annotation(INTERCEPT_ANNOTATION) else {
        return ports;
    };
    let mut say = |why: String| warnings.push(format!("{INTERCEPT_ANNOTATION}: {why}"));
    let is_taken = ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .any(|field| pod.has_named(field, INTERCEPT_CONTAINER_NAME));
    if is_taken {
        say(format!(
            "a container of the pod is named {INTERCEPT_CONTAINER_NAME}, as the one that sets the rules would be: nothing is intercepted"
        ));
        return ports;
    }
    let most = INTERCEPTED_PORTS_MOST.min(RELAYS_MAX - relays.len().min(RELAYS_MAX));
    let of_application = pod.ports_in_use();
    let items = written.split(|c: char| c == ',' || c.is_whitespace());
    for item in items.filter(|item| !item.is_empty()) {
        let Some(number) = port(item) else {
            say(format!(
                "{} is no port: write numbers from 1 to 65535, such as 8080 or 8080,9090; it is left out",
                quoted(item)
            ));
            continue;
        };
        if let Some(why) = not_the_applications(number, &of_application, injection, relays) {
            say(format!("{number} {why}; it is left out"));
        } else if !ports.contains(&number) {
            if ports.len() == most {
                say(format!(
                    "at most {most} ports are intercepted; the others are left out"
                ));
                break;
            }
            ports.push(number);
        }
    }
    if ports.is_empty() {
        say("nothing is intercepted".to_owned());
    }
    ports
}

/// Why a port is the sidecar's own. One that the application declares is the application's, and the sidecar gives way.
fn not_the_applications(
    port: u16,
    of_application: &BTreeSet<u16>,
    injection: &Injection,
    relays: &[Wanted],
) -> Option<String> {
    if of_application.contains(&port) {
        return None;
    }
    if let Some(relay) = relays.iter().find(|relay| relay.listen == Some(port)) {
        let name = &relay.name;
        return Some(format!(
            "is where relay {name} listens, and nothing of the application's: name the application's port"
        ));
    }
    (port == injection.admin_port).then(|| {
        "is the sidecar's port for probes and metrics, which must not depend on the relay"
            .to_owned()
    })
}

/// What is redirected, and where to.
fn redirects(relays: &[Relay]) -> impl Iterator<Item = (u16, u16)> {
    relays.iter().filter_map(|relay| match relay.target {
        Target::Original { port } => Some((port, relay.listen.0.port())),
        _ => None,
    })
}

/// The init container, if anything is intercepted.
pub(super) fn container(
    pod: &Pod<'_>,
    injection: &Injection,
    tuning: &Tuning,
    ports: &Ports,
    warnings: &mut Vec<String>,
) -> Option<Value> {
    let all: Vec<String> = redirects(&ports.relays)
        .map(|(from, to)| format!("{from}:{to}"))
        .collect();
    if all.is_empty() {
        return None;
    }
    if asks_for_no_root(pod) {
        warnings.push(format!(
            "{INTERCEPT_ANNOTATION}: this pod asks to run without root, and what sets the rules is root with NET_ADMIN: a namespace that enforces Pod Security baseline or restricted refuses the pod"
        ));
    }
    // As the sidecar's, so that a Guaranteed pod is not made another one by this container. Where the pod has resources of its own, which
    // alone decide about that, both together could be too much for them.
    let of_container = if budget::is_set(pod) {
        json!({})
    } else {
        resources(&tuning.resources)
    };
    let mut container = json!({
        "name": INTERCEPT_CONTAINER_NAME,
        "image": tuning.image,
        "args": ["intercept"],
        "env": [{"name": "RINGSIDE_INTERCEPT", "value": all.join(",")}],
        "resources": of_container,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            // Only root's capabilities are in effect in a container.
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if let Some(policy) = &injection.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    Some(container)
}

/// Whether the pod as a whole, or each of its containers, says that it does not run as root, as Pod Security "restricted" asks.
fn asks_for_no_root(pod: &Pod<'_>) -> bool {
    let says = |context: Option<&Value>| {
        context.and_then(|context| context.get("runAsNonRoot")) == Some(&Value::Bool(true))
    };
    let mut containers = pod.containers().iter();
    says(pod.at("/securityContext"))
        || (!pod.containers().is_empty()
            && containers.all(|container| says(container.get("securityContext"))))
}
