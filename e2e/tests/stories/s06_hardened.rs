//! Hardened: a namespace with Pod Security "restricted", on a runtime that lets io_uring through, on one that does not, and with the shipped profile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::story::{Application, Load, Ringside, Story, await_within};
use ringside_tests::metrics::Metrics;
use ringside_tests::seccomp::profile;
use serde_json::{Value, json};

/// How long a status may take, which is written every ten seconds at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// A profile that denies io_uring, as the defaults of newer runtimes do.
const STRICT: &str = "without-io-uring.json";

#[test]
fn s06_hardened() {
    let Some(story) = Story::begin(6, "Hardened") else {
        return;
    };
    let cluster = story.cluster();
    Ringside::installed(cluster);

    story.step("a namespace that enforces Pod Security \"restricted\"");
    let vault = story.namespace("vault");
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", vault.name(), enforce]);
    let loose = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "loose", "labels": {"ringside.dev/inject": "enabled"}},
        "spec": {"containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080}]}]},
    });
    let refused = vault.try_kubectl_with(&["apply", "-f", "-"], &loose.to_string());
    assert!(refused.err.contains("violates PodSecurity"), "{refused}");
    assert!(
        !refused.err.contains("ringside"),
        "what is refused is the application's container alone: {refused}"
    );
    story.shown(
        "a pod whose application is not restricted",
        "refused, for the application alone",
    );

    story.step("an application that is restricted itself, and its sidecar");
    let policy = json!({
        "apiVersion": "ringside.dev/v1alpha1", "kind": "RelayPolicy", "metadata": {"name": "web"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}},
    });
    vault.apply(&policy.to_string());
    let web = Application::deploy(cluster, &vault, "web", 2, |deployment| {
        let pod = &mut deployment["spec"]["template"]["spec"];
        pod["securityContext"] = json!({
            "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"},
        });
        pod["containers"][0]["securityContext"] = restricted();
    });
    assert_profile(&web, &json!({"type": "RuntimeDefault"}));
    let reasons = on(&web, "ring");
    story.shown(
        "backend under this containerd's RuntimeDefault",
        format_args!("ring ({reasons})"),
    );
    status_says(&vault, "ring");

    // Not restricted: it is in a namespace of its own.
    let street = story.namespace("street");
    let load = Load::start(
        cluster,
        &street,
        "clients",
        &format!("web.{}:80", vault.name()),
        &["keep=keep:4:20:10000", "each=each:4:20:10000"],
    );

    story.step("a profile that denies io_uring");
    let mut denies = profile(&[]);
    denies["defaultErrnoRet"] = json!(1);
    let folder = tempfile::tempdir().expect("a folder for a profile");
    let file = folder.path().join(STRICT);
    std::fs::write(&file, denies.to_string()).expect("a profile can be written");
    cluster.place_seccomp(&file);
    let localhost =
        |name: &str| format!("--set=sidecar.seccomp.mode=Localhost,sidecar.seccomp.profile={name}");
    Ringside::installed_with(cluster, &[&localhost(STRICT)]);
    restart(&vault, &web);
    assert_profile(
        &web,
        &json!({"type": "Localhost", "localhostProfile": STRICT}),
    );
    let reason = on(&web, "epoll");
    assert!(
        reason.contains("io_uring_setup: Operation not permitted") && reason.contains("seccomp"),
        "the reason names the call, what the kernel said, and what to look at: {reason}"
    );
    story.shown(
        "backend where io_uring is denied, by /statusz and metric",
        format_args!("epoll: {reason}"),
    );
    for pod in web.addresses().keys() {
        let log = vault.kubectl(&["logs", pod, "--container=ringside"]);
        let line = log
            .lines()
            .find(|line| line.contains("epoll") && line.contains("io_uring"));
        assert!(line.is_some(), "the log of {pod} does not say why: {log}");
    }
    let shown = status_says(&vault, "epoll");
    story.shown("the same in every log, and in the policy's status", shown);
    load.await_more(100);

    story.step("the shipped profile, which the chart brings to every node");
    Ringside::installed_with(
        cluster,
        &[
            &localhost("ringside.json"),
            "--set=seccomp.install=DaemonSet",
        ],
    );
    restart(&vault, &web);
    assert_profile(
        &web,
        &json!({"type": "Localhost", "localhostProfile": "ringside.json"}),
    );
    on(&web, "ring");
    let shown = status_says(&vault, "ring");
    story.shown(
        "backend with the shipped profile, installed by the chart's DaemonSet",
        format_args!("ring ({shown})"),
    );

    load.await_more(100);
    let seen = load
        .assert_no_failures("while all of this was rolled out")
        .total();
    story.shown(
        "requests meanwhile, over both changes of backend",
        format_args!("{} answered, {} failed", seen.answered, seen.failed),
    );
    Ringside::installed(cluster);
}

/// What Pod Security "restricted" asks of a container.
fn restricted() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}

/// Rolls the pods over, so that what is injected is what is asked for now.
fn restart(namespace: &Arc<Namespace<'static>>, web: &Application) {
    namespace.kubectl(&["rollout", "restart", &format!("deployment/{}", web.name())]);
    web.await_rollout();
    // Of the old ones nothing is left that could be taken for a new one.
    await_within(PATIENCE, "the old pods to be gone", || {
        (web.pods().len() == 2).then_some(())
    });
}

/// That every sidecar was injected with this seccomp profile.
#[track_caller]
fn assert_profile(web: &Application, wanted: &Value) {
    for pod in web.pods() {
        let sidecar = &pod["spec"]["initContainers"][0]["securityContext"];
        assert_eq!(&sidecar["seccompProfile"], wanted, "{pod}");
        assert_eq!(sidecar["capabilities"]["drop"][0], "ALL", "{pod}");
    }
}

/// That every worker of every sidecar is on this backend, by `/statusz` and by its metric; returns why.
#[track_caller]
fn on(web: &Application, backend: &str) -> String {
    let mut reason = String::new();
    let metrics: BTreeMap<String, Metrics> = web.metrics();
    for (pod, admin) in web.sidecars() {
        let status = web.ask(admin, "/statusz").expect("a sidecar's status");
        let status: Value = serde_json::from_str(&status.body).expect("JSON of a status");
        for worker in status["workers"].as_array().expect("workers") {
            assert_eq!(worker["backend"], backend, "{pod}: {worker}");
            worker["reason"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut reason);
        }
        let labels = [("backend", backend), ("reason", reason.as_str())];
        assert!(
            metrics[&pod].sum("ringside_backend_info", &labels) >= 1.0,
            "{pod}: no metric says {labels:?}"
        );
    }
    reason
}

/// Waits until the policy's status counts both sidecars on this backend; returns how it says so.
#[track_caller]
fn status_says(namespace: &Arc<Namespace<'static>>, backend: &str) -> String {
    await_within(
        PATIENCE,
        &format!("a status with both on {backend}"),
        || {
            let policy = namespace.kubectl(&["get", "relaypolicy", "web", "--output=json"]);
            let policy: Value = serde_json::from_str(&policy).expect("kubectl prints JSON");
            let backends = &policy["status"]["backends"];
            (*backends == json!({backend: 2})).then(|| format!("status.backends: {backends}"))
        },
    )
}
