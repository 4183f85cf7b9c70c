//! What a pod says about its own sidecar by annotations: backend, workers, log level, image, resources. It owns their names and
//! that one which is wrong is warned of, and what holds for all pods is used.

use ringside_api::resources::choice::POLICY_ANNOTATION;
use ringside_api::sentence::{nearest, quoted};
use ringside_api::{BackendChoice, Workers};
use serde_json::Value;

use super::allowed::{self, Amounts};
use super::budget;
use super::injection::{Injection, Resources};
use super::interception::INTERCEPT_ANNOTATION;
use super::pod::Pod;
use super::quantity::Quantity;
use super::relays::{PROXY_PROTOCOL_ANNOTATION, RELAY_ANNOTATION};
use super::{CA_ANNOTATION, INJECT_LABEL, INJECTED_ANNOTATION, SETTINGS_ANNOTATION};

const PREFIX: &str = "ringside.dev/";

/// The longest name of an object, in bytes.
const OBJECT_NAME_BYTES_MAX: usize = 253;

/// The annotations by which a pod tunes its sidecar.
const KNOWN: [&str; 16] = [
    RELAY_ANNOTATION,
    INTERCEPT_ANNOTATION,
    PROXY_PROTOCOL_ANNOTATION,
    "ringside.dev/backend",
    "ringside.dev/workers",
    "ringside.dev/log-level",
    "ringside.dev/image",
    "ringside.dev/cpu-request",
    "ringside.dev/cpu-limit",
    "ringside.dev/memory-request",
    "ringside.dev/memory-limit",
    POLICY_ANNOTATION,
    INJECTED_ANNOTATION,
    SETTINGS_ANNOTATION,
    CA_ANNOTATION,
    INJECT_LABEL,
];

/// What is this pod's own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tuning {
    pub(super) backend: Option<BackendChoice>,
    pub(super) workers: Option<Workers>,
    pub(super) log_level: Option<String>,
    pub(super) image: String,
    pub(super) resources: Resources,
}

/// Reads all of it.
pub(super) fn read(pod: &Pod<'_>, injection: &Injection, warnings: &mut Vec<String>) -> Tuning {
    check_names(pod, warnings);
    check_policy(pod, warnings);
    let mut say = |name: &str, why: String| {
        warnings.push(format!("{PREFIX}{name}: {why}; the default is used"));
    };
    let written = |name: &str| pod.annotation(&format!("{PREFIX}{name}")).map(str::trim);
    let mut tuning = Tuning {
        backend: injection.backend,
        workers: None,
        log_level: injection.log_level.clone(),
        image: injection.image.clone(),
        resources: Resources::default(),
    };
    if let Some(text) = written("backend") {
        match text.parse() {
            Ok(backend) => tuning.backend = Some(backend),
            Err(why) => say("backend", why),
        }
    }
    if let Some(text) = written("workers") {
        match text.parse() {
            Ok(workers) => tuning.workers = Some(workers),
            Err(why) => say("workers", why),
        }
    }
    if let Some(text) = written("log-level") {
        match allowed::log_level(text) {
            Ok(()) => tuning.log_level = Some(text.to_owned()),
            Err(why) => say("log-level", why),
        }
    }
    if let Some(text) = written("image") {
        match allowed::image(text) {
            Ok(()) => tuning.image = text.to_owned(),
            Err(why) => say("image", why),
        }
    }
    let nothing = Resources {
        cpu_request: None,
        cpu_limit: None,
        memory_request: None,
        memory_limit: None,
    };
    let shares = budget::is_set(pod);
    let defaults = if shares {
        &nothing
    } else {
        &injection.resources
    };
    let cpu = Bounds {
        amounts: Amounts::CPU,
        request: &defaults.cpu_request,
        limit: &defaults.cpu_limit,
    };
    let memory = Bounds {
        amounts: Amounts::MEMORY,
        request: &defaults.memory_request,
        limit: &defaults.memory_limit,
    };
    (tuning.resources.cpu_request, tuning.resources.cpu_limit) = cpu.read(&written, &mut say);
    (
        tuning.resources.memory_request,
        tuning.resources.memory_limit,
    ) = memory.read(&written, &mut say);
    if shares {
        tuning.resources = budget::fit(pod, tuning.resources, warnings);
    }
    tuning
}

/// Tells of annotations that nobody reads: misspelt ones, and values that are no text.
fn check_names(pod: &Pod<'_>, warnings: &mut Vec<String>) {
    for (key, value) in pod.annotations().filter(|(key, _)| key.starts_with(PREFIX)) {
        if key == INJECT_LABEL {
            warnings.push(format!(
                "{INJECT_LABEL} is a label, and does nothing as an annotation"
            ));
        } else if !KNOWN.contains(&key) {
            let meant = nearest(key, &KNOWN)
                .map_or(String::new(), |known| format!(": did you mean {known}?"));
            warnings.push(format!(
                "the annotation {} is not known, and does nothing{meant}",
                quoted(key)
            ));
        } else if !value.is_string() && *value != Value::Null {
            warnings.push(format!(
                "{key}: {} is no text, as an annotation must be: put it in quotes; the default is used",
                quoted(&value.to_string())
            ));
        }
    }
}

/// Tells of a policy that cannot be there. Which one is obeyed is decided elsewhere.
fn check_policy(pod: &Pod<'_>, warnings: &mut Vec<String>) {
    let Some(name) = pod.annotation(POLICY_ANNOTATION) else {
        return;
    };
    if !is_object_name(name) {
        warnings.push(format!(
            "{POLICY_ANNOTATION}: {} names no RelayPolicy: write at most {OBJECT_NAME_BYTES_MAX} lower-case letters, digits, and - and . between them; the policy that selects it is obeyed",
            quoted(name)
        ));
    }
}

/// As Kubernetes has it for an object's name (a DNS subdomain).
fn is_object_name(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= OBJECT_NAME_BYTES_MAX
        && name.split('.').map(str::as_bytes).all(|label| {
            is_end(label.first())
                && is_end(label.last())
                && label.iter().all(|byte| is_end(Some(byte)) || *byte == b'-')
        })
}

/// A request and a limit, and what holds for them.
struct Bounds<'a> {
    amounts: Amounts,
    request: &'a Option<String>,
    limit: &'a Option<String>,
}

impl Bounds<'_> {
    /// The request and the limit to set. Where the pod sets one of them, the other gives way; where both disagree, neither counts.
    fn read<'t>(
        &self,
        written: &impl Fn(&str) -> Option<&'t str>,
        say: &mut impl FnMut(&str, String),
    ) -> (Option<String>, Option<String>) {
        let mut own = |what: &str| {
            let name = format!("{}-{what}", self.amounts.kind);
            let text = written(&name)?;
            match self.amounts.read(text) {
                Ok(quantity) => Some((text.to_owned(), quantity)),
                Err(why) => {
                    say(&name, why);
                    None
                }
            }
        };
        let (request, limit) = (own("request"), own("limit"));
        let is_more =
            |request: &str, limit: &str| match (Quantity::read(request), Quantity::read(limit)) {
                (Some(request), Some(limit)) => request > limit,
                _ => false,
            };
        let (default_request, default_limit) = (self.request.clone(), self.limit.clone());
        match (request, limit) {
            (Some((request, asked)), Some((limit, most))) => {
                if asked > most {
                    let kind = self.amounts.kind;
                    say(
                        &format!("{kind}-request"),
                        format!("{request} is more than {kind}-limit, {limit}"),
                    );
                    return (default_request, default_limit);
                }
                (Some(request), Some(limit))
            }
            (Some((request, _)), None) => {
                let limit = default_limit.map(|limit| {
                    if is_more(&request, &limit) {
                        request.clone()
                    } else {
                        limit
                    }
                });
                (Some(request), limit)
            }
            (None, Some((limit, _))) => {
                let request = default_request.map(|request| {
                    if is_more(&request, &limit) {
                        limit.clone()
                    } else {
                        request
                    }
                });
                (request, Some(limit))
            }
            (None, None) => (default_request, default_limit),
        }
    }
}
