//! Outbound: an application reaches another Service through its own sidecar, at a port of its own localhost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::report::Report;
use ringside_e2e::story::{
    Application, Ringside, Story, await_within, container, is_ready, service,
};
use ringside_tests::http;
use ringside_tests::metrics::Metrics;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

/// Where the application reaches the Service.
const WAY_OUT: &str = "127.0.0.1:8000";

#[test]
fn s10_outbound() {
    let Some(story) = Story::begin(10, "Outbound") else {
        return;
    };
    let cluster = story.cluster();
    Ringside::installed(cluster);
    let shop = story.namespace("shop");

    story.step("a Service, and an application that knows only its own localhost");
    let backend = Application::deploy(cluster, &shop, "backend", 2, |_| {});
    let target = format!("backend.{}.svc.cluster.local:80", shop.name());
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "frontend", "labels": {"app": "frontend", "ringside.dev/inject": "enabled"},
            "annotations": {"ringside.dev/relay": format!("out=localhost:8000:{target}"), "ringside.dev/workers": "1"},
        },
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            container(&["load", "9100", WAY_OUT, "keep=keep:4:20:10000", "each=each:4:20:10000"]),
        ]},
    });
    shop.apply(&pod.to_string());
    let frontend = Frontend::of(cluster, &shop);
    let first = frontend.await_answers(200);
    assert_eq!(
        first.by_pod.len(),
        2,
        "both pods of the Service answer: {:?}",
        first.by_pod
    );
    assert_eq!(first.failed, 0, "{:?}", first.failures);
    story.shown(
        "requests to localhost, answered by both pods of the other Service",
        format_args!("{} answered, {} failed", first.answered, first.failed),
    );

    story.step("by whom they were relayed");
    let out = [("relay", "out")];
    let opened = frontend
        .metrics()
        .sum("ringside_connections_opened_total", &out);
    let made = frontend.report().connections;
    assert!(
        opened >= first.connections as f64,
        "{opened} were relayed, {made} made"
    );
    let taken: f64 = backend
        .metrics()
        .values()
        .map(|metrics| metrics.sum("ringside_connections_opened_total", &[]))
        .sum();
    assert!(taken >= opened, "{opened} went out, {taken} came in");
    story.shown(
        "connections by the frontend's sidecar, and by the backend's sidecars",
        format_args!("{opened}, {taken}"),
    );

    story.step("somebody else tries that way");
    let stranger = cluster.inside(|| http::get((frontend.address, 8000).into(), "/"));
    let error = stranger.expect_err("the way out is for the pod alone");
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "{error}"
    );
    let declared = &frontend.pod["spec"]["initContainers"][0]["ports"];
    assert!(!declared.to_string().contains("8000"), "{declared}");
    story.shown(
        "a connection to that port from outside of the pod",
        "refused",
    );

    story.step("the Service has no pods: nobody listens at localhost either");
    let scale = |replicas: &str| shop.kubectl(&["scale", "deployment/backend", replicas]);
    scale("--replicas=0");
    let begin = Instant::now();
    frontend.await_listening(false);
    story.took(
        "from `kubectl scale` to zero until localhost refuses, as the Service does",
        begin.elapsed(),
    );
    story.step("it comes back, with another address");
    let old = backend.service();
    let begin = Instant::now();
    await_within(PATIENCE, "another address for the Service", || {
        shop.kubectl(&["delete", "service", "backend"]);
        shop.apply(&service("backend").to_string());
        (backend.service() != old).then_some(())
    });
    scale("--replicas=2");
    backend.await_rollout();
    story.took("until the pods are Ready again", begin.elapsed());
    // Whoever keeps asking is answered again once the name has been looked up anew.
    let begin = Instant::now();
    let before = frontend.await_answers(1);
    frontend.await_listening(true);
    story.took(
        "after that, until localhost leads to the new address",
        begin.elapsed(),
    );
    let after = frontend.await_answers(200);
    assert_eq!(after.failed, before.failed, "{:?}", after.failures);
    let restarts = &frontend.now()["status"]["initContainerStatuses"][0]["restartCount"];
    assert_eq!(restarts, 0, "the sidecar went on");
    story.shown(
        "requests over the whole of it, of clients that try again only to connect",
        format_args!(
            "{} answered, {} failed while the Service was away, none after",
            after.answered, after.failed
        ),
    );
}

/// The pod whose application asks.
struct Frontend {
    cluster: &'static Cluster,
    namespace: Arc<Namespace<'static>>,
    pod: Value,
    address: std::net::IpAddr,
}

impl Frontend {
    /// Once it is Ready.
    fn of(cluster: &'static Cluster, namespace: &Arc<Namespace<'static>>) -> Self {
        let pod = await_within(PATIENCE, "the frontend to be Ready", || {
            let pod = frontend(namespace);
            is_ready(&pod).then_some(pod)
        });
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        Self {
            cluster,
            namespace: Arc::clone(namespace),
            address: address.parse().expect("a pod's address"),
            pod,
        }
    }

    fn now(&self) -> Value {
        frontend(&self.namespace)
    }

    fn ask(&self, port: u16, path: &str) -> Option<String> {
        let answer = self
            .cluster
            .inside(|| http::get((self.address, port).into(), path));
        answer.ok().map(|answer| answer.body)
    }

    fn report(&self) -> ringside_e2e::story::report::Group {
        await_within(PATIENCE, "the report of the frontend", || {
            serde_json::from_str::<Report>(&self.ask(9100, "/")?).ok()
        })
        .total()
    }

    /// Waits until so many more were answered.
    fn await_answers(&self, more: u64) -> ringside_e2e::story::report::Group {
        let before = self.report().answered;
        await_within(PATIENCE, "more answers to the frontend", || {
            let report = self.report();
            (report.answered >= before + more).then_some(report)
        })
    }

    fn metrics(&self) -> Metrics {
        Metrics::parse(&self.ask(15490, "/metrics").expect("the sidecar's metrics"))
    }

    /// Waits until the relay listens, or does not.
    fn await_listening(&self, listens: bool) {
        await_within(PATIENCE, "the relay to follow its target", || {
            let status: Value = serde_json::from_str(&self.ask(15490, "/statusz")?).ok()?;
            (status["relays"][0]["listening"] == listens).then_some(())
        });
    }
}

fn frontend(namespace: &Namespace<'_>) -> Value {
    let pod = namespace.kubectl(&["get", "pod", "frontend", "--output=json"]);
    serde_json::from_str(&pod).expect("kubectl prints JSON")
}
