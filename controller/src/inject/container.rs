//! The sidecar's container and volumes as JSON. It owns the contract with the sidecar: which variables it gets, where its files
//! are, how it is probed and what it may do.

use ringside_api::sync::AUDIENCE;
use ringside_api::{Relay, Target};
use serde_json::{Map, Value, json};

use super::injection::{Controller, Injection, Probes, Resources, Seccomp};
use super::pod::{Pod, text};
use super::relays::{ADMIN_PORT_NAME, Ports};
use super::tuning::Tuning;
use super::{CA_ANNOTATION, CONTAINER_NAME, SETTINGS_ANNOTATION};

/// Where the sidecar finds its token, its settings of the moment and the certificates to trust.
pub const POD_FILES: &str = "/var/run/ringside";

/// Where the sidecar keeps what must outlive a restart of its container.
pub const STATE: &str = "/var/lib/ringside";

/// For how long a token is good, in seconds; the kubelet renews it well before.
const TOKEN_SECONDS: u32 = 3_600;

/// What the sidecar's state may take at most.
const STATE_SIZE: &str = "1Mi";

/// Readable for every user: the sidecar need not run as the one who owns the files.
const FILE_MODE: u32 = 0o644;

/// What is added to a pod's spec.
pub(super) struct Parts {
    pub(super) container: Value,
    pub(super) volumes: Vec<Value>,
}

/// The container and the volumes that it needs.
pub(super) fn parts(
    pod: &Pod<'_>,
    injection: &Injection,
    tuning: &Tuning,
    ports: &Ports,
    warnings: &mut Vec<String>,
) -> Parts {
    let mut mounts = socket_mounts(pod, &ports.relays, warnings);
    let mut volumes = Vec::new();
    if injection.controller.is_some() {
        let (files, state) = (
            free_volume_name(pod, "ringside"),
            free_volume_name(pod, "ringside-state"),
        );
        mounts.push(json!({"name": files, "mountPath": POD_FILES, "readOnly": true}));
        mounts.push(json!({"name": state, "mountPath": STATE}));
        volumes.push(pod_files(&files));
        volumes.push(json!({"name": state, "emptyDir": {"sizeLimit": STATE_SIZE}}));
    }
    let mut container = json!({
        "name": CONTAINER_NAME,
        "image": tuning.image,
        "args": ["relay"],
        "restartPolicy": "Always",
        "env": environment(injection, tuning, ports),
        "ports": container_ports(ports),
        "resources": resources(&tuning.resources),
        "securityContext": security(pod, injection),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let fields = container.as_object_mut().into_iter();
    fields.for_each(|fields| {
        fields.extend(probes(&injection.probes));
        if let Some(policy) = &injection.image_pull_policy {
            fields.insert("imagePullPolicy".to_owned(), json!(policy));
        }
        if !mounts.is_empty() {
            fields.insert("volumeMounts".to_owned(), json!(mounts));
        }
    });
    Parts { container, volumes }
}

fn container_ports(ports: &Ports) -> Vec<Value> {
    let port =
        |name: &str, number: u16| json!({"name": name, "containerPort": number, "protocol": "TCP"});
    // Where an intercepting relay listens is nobody's to name: it refuses all but what the kernel redirects to it. One on the loopback is
    // for the pod alone.
    let is_reached = |relay: &&Relay| !relay.intercepts() && !relay.listen.0.ip().is_loopback();
    let named = ports.relays.iter().filter(is_reached);
    let relays = named.map(|relay| port(&relay.name, relay.listen.0.port()));
    relays.chain([port(ADMIN_PORT_NAME, ports.admin)]).collect()
}

fn environment(injection: &Injection, tuning: &Tuning, ports: &Ports) -> Vec<Value> {
    let relays: Vec<String> = ports.relays.iter().map(Relay::to_string).collect();
    let mut variables: Vec<(&str, Value)> = Vec::new();
    // Kubernetes replaces $(NAME) in values, and takes $$ for $.
    let mut say = |name: &'static str, value: String| {
        variables.push((name, json!({"value": value.replace('$', "$$")})));
    };
    say("RINGSIDE_RELAY", relays.join(","));
    say("RINGSIDE_ADMIN", format!("[::]:{}", ports.admin));
    if let Some(backend) = tuning.backend {
        say("RINGSIDE_BACKEND", backend.to_string());
    }
    if let Some(workers) = tuning.workers {
        say("RINGSIDE_WORKERS", workers.to_string());
    }
    if let Some(level) = &tuning.log_level {
        say("RINGSIDE_LOG_LEVEL", level.clone());
    }
    if let Some(Controller {
        name,
        port,
        address,
        ..
    }) = &injection.controller
    {
        say("RINGSIDE_CONTROLLER", format!("https://{name}:{port}"));
        if let Some(address) = address {
            say("RINGSIDE_CONTROLLER_ADDRESS", address.to_string());
        }
        say("RINGSIDE_POD_FILES", POD_FILES.to_owned());
        say("RINGSIDE_STATE", STATE.to_owned());
        for (name, field) in [
            ("RINGSIDE_POD_NAME", "metadata.name"),
            ("RINGSIDE_POD_NAMESPACE", "metadata.namespace"),
            ("RINGSIDE_POD_UID", "metadata.uid"),
        ] {
            let source =
                json!({"valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}});
            variables.push((name, source));
        }
    }
    let named = |(name, mut value): (&str, Value)| {
        let fields = value.as_object_mut().into_iter();
        fields.for_each(|fields| {
            fields.insert("name".to_owned(), json!(name));
        });
        value
    };
    variables.into_iter().map(named).collect()
}

pub(super) fn resources(resources: &Resources) -> Value {
    let Resources {
        cpu_request,
        cpu_limit,
        memory_request,
        memory_limit,
    } = resources;
    let both = |cpu: &Option<String>, memory: &Option<String>| {
        let amounts = [("cpu", cpu), ("memory", memory)].into_iter();
        let set =
            amounts.filter_map(|(name, amount)| Some((name.to_owned(), json!(amount.as_ref()?))));
        set.collect::<Map<_, _>>()
    };
    let sets = [
        ("requests", both(cpu_request, memory_request)),
        ("limits", both(cpu_limit, memory_limit)),
    ];
    let set = sets.into_iter().filter(|(_, amounts)| !amounts.is_empty());
    set.map(|(name, amounts)| (name.to_owned(), Value::Object(amounts)))
        .collect::<Map<_, _>>()
        .into()
}

/// What Pod Security "restricted" asks for, whatever the pod's own context says.
fn security(pod: &Pod<'_>, injection: &Injection) -> Value {
    let profile = match &injection.seccomp {
        Seccomp::RuntimeDefault => json!({"type": "RuntimeDefault"}),
        Seccomp::Localhost(path) => json!({"type": "Localhost", "localhostProfile": path}),
        Seccomp::Unconfined => json!({"type": "Unconfined"}),
    };
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": profile,
    });
    let of_pod = |field: &str| {
        let id = pod
            .at("/securityContext")
            .and_then(|context| context.get(field));
        id.and_then(Value::as_i64)
    };
    for (field, id) in [
        // Root is no user to run as, whoever says so.
        ("runAsUser", of_pod("runAsUser").filter(|id| *id != 0)),
        ("runAsGroup", of_pod("runAsGroup")),
    ] {
        if let (None, Some(own)) = (id, injection.run_as) {
            context[field] = json!(own);
        }
    }
    context
}

fn probes(probes: &Probes) -> [(String, Value); 3] {
    let every = |period: std::time::Duration| period.as_secs().max(1);
    let ask = |path: &str, period: u64, failures: u64, timeout: u64| {
        json!({
            "httpGet": {"path": path, "port": ADMIN_PORT_NAME},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": timeout,
        })
    };
    let (ready, live) = (
        every(probes.readiness_period),
        every(probes.liveness_period),
    );
    let failures = u64::from(probes.liveness_failures.max(1));
    [
        (
            "startupProbe".to_owned(),
            ask("/startupz", 1, every(probes.startup_limit), 1),
        ),
        // One answer is enough: the sidecar itself has judged for long enough. Who says "unready" says it at once, and who is not there
        // refuses at once; a node too busy to let it answer within a second is no reason to take the pod out.
        ("readinessProbe".to_owned(), ask("/readyz", ready, 1, 3)),
        ("livenessProbe".to_owned(), ask("/livez", live, failures, 5)),
    ]
}

fn pod_files(name: &str) -> Value {
    let annotation = |path: &str, key: &str| json!({"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": format!("metadata.annotations['{key}']")}});
    json!({
        "name": name,
        "projected": {
            "defaultMode": FILE_MODE,
            "sources": [
                {"serviceAccountToken": {"path": "token", "audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS}},
                {"downwardAPI": {"items": [
                    annotation("settings.json", SETTINGS_ANNOTATION),
                    annotation("ca.pem", CA_ANNOTATION),
                ]}},
            ],
        },
    })
}

fn free_volume_name(pod: &Pod<'_>, name: &str) -> String {
    if !pod.has_named("volumes", name) {
        return name.to_owned();
    }
    let mut others = (2_u64..).map(|turn| format!("{name}-{turn}"));
    others
        .find(|other| !pod.has_named("volumes", other))
        .unwrap_or_default()
}

/// Mounts by which the sidecar sees the Unix sockets that its relays lead to: the application's own, and read-only, which is enough
/// to connect.
fn socket_mounts(pod: &Pod<'_>, relays: &[Relay], warnings: &mut Vec<String>) -> Vec<Value> {
    let mut mounts: Vec<Value> = Vec::new();
    for Relay { name, target, .. } in relays {
        let Target::Unix(path) = target else {
            continue;
        };
        let path = path.to_string_lossy();
        let mount = pod.mount_over(&path).filter(|mount| {
            let folder = text(mount, "mountPath").unwrap_or_default();
            let is_ours = [POD_FILES, STATE].contains(&folder.trim_end_matches('/'));
            // An expression is made of the container's own variables.
            !is_ours && mount.get("subPathExpr").is_none()
        });
        let Some(mount) = mount else {
            warnings.push(format!(
                "relay {name}: no volume of the application is mounted above {path}, so the sidecar cannot see the socket: put it into an emptyDir"
            ));
            continue;
        };
        let mut own = json!({"readOnly": true});
        for field in ["name", "mountPath", "subPath"] {
            if let Some(value) = text(mount, field) {
                own[field] = json!(value);
            }
        }
        if !mounts
            .iter()
            .any(|other| other.get("mountPath") == own.get("mountPath"))
        {
            mounts.push(own);
        }
    }
    mounts
}
