//! Install, inject, use: what somebody does first, and what comes of it.

use std::time::{Duration, Instant};

use ringside_e2e::story::{Application, Load, RELEASE, Ringside, Story, await_within, is_ready};
use serde_json::Value;

/// More than the requests that are counted; metrics may lag behind by as little.
const REQUESTS: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn s01_install_inject_use() {
    let Some(story) = Story::begin(1, "Install, inject, use") else {
        return;
    };
    let cluster = story.cluster();

    story.step("helm install");
    Ringside::load_images(cluster);
    let helm = cluster.helm();
    let arguments = Ringside::arguments(&["upgrade", "--install"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ringside = story.timed("`helm install --wait` until pods are injected", || {
        helm.run(&arguments);
        let ringside = Ringside::of(cluster);
        ringside.await_injection();
        ringside
    });
    assert_eq!(ringside.controllers().len(), 1);

    story.step("helm test");
    let said = story.timed("`helm test` passes", || {
        helm.run(&["test", RELEASE, "--namespace", RELEASE, "--timeout=60s"])
    });
    assert!(said.contains("Phase:          Succeeded"), "{said}");

    story.step("a Deployment of three whose pods ask for a relay");
    let shop = story.namespace("shop");
    let begin = Instant::now();
    let web = Application::deploy(cluster, &shop, "web", 3, |_| {});
    story.took(
        "three pods with sidecars Ready after `kubectl apply`",
        begin.elapsed(),
    );
    let pods = web.pods();
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert!(is_ready(pod), "{pod}");
        let sidecar = &pod["spec"]["initContainers"][0];
        assert_eq!(sidecar["name"], "ringside", "{pod}");
        assert_eq!(sidecar["restartPolicy"], "Always", "{pod}");
        assert_eq!(pod["spec"]["containers"].as_array().map(Vec::len), Some(1));
    }
    story.shown("pods of the Deployment with a native sidecar", "3 of 3");
    let mut slowest = 0;
    for pod in &pods {
        slowest = slowest.max(seconds_to_ready(pod));
    }
    assert!(slowest <= 20, "a pod took {slowest} s to be Ready");
    story.shown(
        "slowest pod from created to Ready, by its own times",
        format_args!("{slowest} s"),
    );

    story.step("clients of the Service");
    let load = Load::start(
        cluster,
        &shop,
        "clients",
        "web:80",
        &["keep=keep:6:20:10000", "each=each:6:20:10000"],
    );
    load.await_more(REQUESTS);
    await_within(PATIENCE, "answers of all pods", || {
        (load.report().total().by_pod.len() == 3).then_some(())
    });
    let before = web.metrics();
    let seen = load
        .assert_no_failures("traffic through the Service")
        .total();
    story.shown(
        "requests through the Service, answered by three pods",
        format_args!("{} of {}", seen.answered, seen.answered + seen.failed),
    );

    // What came before the metrics were read, and went another way than through the relay, would be missing here.
    let opened =
        |metrics: &std::collections::BTreeMap<String, ringside_tests::metrics::Metrics>| {
            let sum = |name: &str| metrics.values().map(|one| one.sum(name, &[])).sum::<f64>();
            (
                sum("ringside_connections_opened_total"),
                sum("ringside_relayed_bytes_total"),
            )
        };
    load.await_more(REQUESTS);
    let (then, more) = (load.report().total(), web.metrics());
    let (connections, bytes) = opened(&more);
    let made = then.connections as f64;
    assert!(
        connections >= made,
        "{connections} by the relays, {made} by clients"
    );
    assert!(bytes > 0.0);
    for (pod, metrics) in &more {
        let (old, new) = (
            before[pod].sum("ringside_connections_opened_total", &[]),
            metrics.sum("ringside_connections_opened_total", &[]),
        );
        assert!(new > old, "{pod} has relayed nothing since: {old}, {new}");
        let ring = metrics.sum("ringside_backend_info", &[("backend", "ring")]);
        assert!(ring >= 1.0, "{pod} is not on ring");
    }
    story.shown(
        "connections that clients made, and that the relays' metrics count",
        format_args!("{made}, {connections}"),
    );
    story.shown(
        "backend of all sidecars under RuntimeDefault of this containerd",
        "ring",
    );
    load.assert_no_failures("at the end");
}

/// From its creation to its condition Ready, in whole seconds, which is how Kubernetes keeps them.
fn seconds_to_ready(pod: &Value) -> i64 {
    let time = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        let time: k8s_openapi::jiff::Timestamp = text.parse().expect("a time of the API server");
        time.as_second()
    };
    let conditions = pod["status"]["conditions"].as_array().expect("conditions");
    let ready = conditions.iter().find(|one| one["type"] == "Ready");
    let ready = time(&ready.expect("a condition")["lastTransitionTime"]);
    ready - time(&pod["metadata"]["creationTimestamp"])
}
