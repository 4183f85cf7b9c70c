//! Sustained EAGAIN: under load, the kernel refuses one pod's relay. The pod leaves its Service, everybody is told, and when it is over it comes back.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringside_e2e::chart::project;
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::report::unix_ms;
use ringside_e2e::story::{
    Application, Change, INJECTED_SIDECAR_IMAGE, Load, Ringside, Story, Timeline, await_within,
    load_injected_sidecar,
};
use ringside_tests::metrics::Metrics;
use ringside_tests::processes::installed;
use ringside_tests::prometheus::{PROGRAMS, Prometheus, Target};
use serde_json::{Value, json};

use crate::policy::{condition, policy};

/// Of the policy, for how long the pushback has to last.
const UNREADY_AFTER: Duration = Duration::from_secs(2);
/// How often the kubelet asks, as injection has it.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// What a busy machine may add: a kubelet's report, a watch.
const SLACK: Duration = Duration::from_secs(5);
/// The rule's `for` is a minute.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn s02_sustained_eagain() {
    if !installed("s02_sustained_eagain", &PROGRAMS) {
        return;
    }
    let Some(story) = Story::begin(2, "Sustained EAGAIN") else {
        return;
    };
    // In the cluster's network, so that Prometheus is there as well.
    story.cluster().inside(|| tell(&story));
}

fn tell(story: &Story) {
    let (cluster, begin) = (story.cluster(), Instant::now());
    story.step("three pods whose relays run under the fault injector, and clients");
    let ringside = Ringside::installed(cluster);
    load_injected_sidecar(cluster);
    let shop = story.namespace("shop");
    let readiness = json!({"mode": "Leave", "pushbackPercent": 50, "unreadyAfter": "2s", "recoverAfter": "3s", "maxUnreadyPercent": 50});
    shop.apply(&policy("web", "web", json!({"readiness": readiness})).to_string());
    let web = Application::deploy(cluster, &shop, "web", 3, |deployment| {
        let annotations = &mut deployment["spec"]["template"]["metadata"]["annotations"];
        annotations["ringside.dev/image"] = json!(INJECTED_SIDECAR_IMAGE);
    });
    let watch = |version: &str, kind: &str, plural: &str| {
        Timeline::watch(cluster, shop.name(), version, kind, plural)
    };
    let pods = watch("v1", "Pod", "pods");
    let slices = watch("discovery.k8s.io/v1", "EndpointSlice", "endpointslices");
    let policies = watch("ringside.dev/v1alpha1", "RelayPolicy", "relaypolicies");
    let events = watch("v1", "Event", "events");
    let groups = ["keep=keep:4:30:5000", "each=each:8:30:5000"];
    let load = Load::start(cluster, &shop, "clients", "web:80", &groups);
    let prometheus = prometheus(&ringside, &web, shop.name());
    let is_programmed = |change: &Change| {
        change.condition("Programmed") == "True"
            && change.object["status"]["pods"]["summary"] == "3/3"
    };
    policies.first(begin, PATIENCE, "the policy in effect", is_programmed);
    load.await_more(100);
    load.assert_no_failures("before the fault");
    let before = web.metrics();
    for admin in web.sidecars().into_values() {
        await_within(PATIENCE, "kube-proxy to lead to every pod", || {
            leads_to(cluster, &format!("{} . 15080", admin.ip())).then_some(())
        });
    }

    let victim = web.sidecars().into_keys().next().expect("a pod");
    let admin = web.sidecars()[&victim];
    story.step(&format!("EAGAIN to all that the relay of {victim} submits"));
    let fault = Instant::now();
    web.order(&victim, "fail-for 10m EAGAIN");

    await_within(PATIENCE, "the relay to back off", || {
        let backoffs = count(
            &metrics(&web, admin)?,
            "ringside_submission_backoff_seconds_count",
        );
        (backoffs
            > count(
                &before[&victim],
                "ringside_submission_backoff_seconds_count",
            ))
        .then_some(())
    });
    story.took("it backs off (its metrics)", fault.elapsed());
    let is_victim = |change: &Change| change.name() == victim;
    let unready = pods.first(fault, PATIENCE, "the pod to go NotReady", |change| {
        is_victim(change) && change.condition("Ready") == "False"
    });
    let after = unready.at - fault;
    story.took(
        "the pod is NotReady (unreadyAfter 2 s, probe period 1 s)",
        after,
    );
    assert!(
        after < UNREADY_AFTER + PROBE_PERIOD + SLACK,
        "NotReady after {after:?}"
    );
    let left = slices.first(
        fault,
        PATIENCE,
        "the pod to leave the EndpointSlice",
        |change| is_ready_endpoint(&change.object, &victim) == Some(false),
    );
    story.took("it has left the EndpointSlice", left.at - fault);
    await_within(PATIENCE, "kube-proxy to follow", || {
        (!leads_to(cluster, &format!("{} . 15080", admin.ip()))).then_some(())
    });
    story.took(
        "kube-proxy of the clients' node leads to it no more",
        fault.elapsed(),
    );
    let lost_ms = unix_ms();

    let alert = "RingsideSustainedPushback";
    let names_victim = |alert: &Value| alert["labels"]["pod"] == victim.as_str();
    prometheus.await_that("the alert to be pending", || {
        prometheus.alerts(alert).iter().any(names_victim)
    });
    story.took(
        "RingsideSustainedPushback is pending in Prometheus",
        fault.elapsed(),
    );
    prometheus.await_that("the alert RingsideStalls", || {
        let alerts = prometheus.alerts("RingsideStalls");
        alerts
            .iter()
            .any(|alert| names_victim(alert) && alert["state"] == "firing")
    });
    story.took("RingsideStalls fires", fault.elapsed());
    let degraded = policies.first(fault, PATIENCE, "the policy to be Degraded", |change| {
        change.condition("Degraded") == "True" && change.object["status"]["pods"]["ready"] == 2
    });
    story.took(
        "the policy's status says Degraded, and 2/3 ready",
        degraded.at - fault,
    );
    story.shown("Degraded", condition(&degraded.object, "Degraded"));
    story.shown("Ready", condition(&degraded.object, "Ready"));
    assert_eq!(
        degraded.condition("Ready"),
        "True",
        "one of three may be unready"
    );
    let event = events.first(fault, PATIENCE, "the Event LeftService", |change| {
        is_about(change, "LeftService", &victim)
    });
    story.took("Event LeftService on the pod", event.at - fault);
    let path = format!("/readyz/policies/{}/web", shop.name());
    let page = await_within(PATIENCE, "the controller's page to tell of 2 of 3", || {
        let answer = ringside.ask(&path);
        answer.body.contains("2 of 3").then_some(answer)
    });
    assert_eq!(page.status, 200, "{}", page.body);
    story.shown(&path.replace(shop.name(), "shop"), page.body.trim());

    prometheus.await_that("the alert to fire", || {
        let alerts = prometheus.alerts(alert);
        let others: Vec<&Value> = alerts.iter().filter(|alert| !names_victim(alert)).collect();
        assert!(others.is_empty(), "of pods that are well: {others:?}");
        alerts.iter().any(|alert| alert["state"] == "firing")
    });
    story.took(
        "RingsideSustainedPushback fires (its rule waits for 1 minute)",
        fault.elapsed(),
    );

    let total = load.report().total();
    let late = total.failures_since(lost_ms);
    assert!(late.is_empty(), "after the pod had left: {late:?}");
    let by_pod = total.answers_since(lost_ms);
    assert!(
        !by_pod.contains_key(&victim),
        "it is asked still: {by_pod:?}"
    );
    assert_eq!(by_pod.len(), 2, "{by_pod:?}");
    story.shown(
        "requests begun after it had left: answered by the two others; failed",
        format_args!("{}; 0", by_pod.values().sum::<u64>()),
    );
    let reasons = reasons(&total.failures);
    story.shown(
        "requests that were at the pod when it was refused, and failed",
        format_args!("{} {reasons:?}", total.failed),
    );
    let now = metrics(&web, admin).expect("its admin port answers, since it has no ring");
    let refused = now.sum("ringside_submissions_total", &[("outcome", "eagain")]);
    let stalls = count(&now, "ringside_stalls_total");
    assert!(refused > 0.0 && stalls > 0.0, "{refused} {stalls}");
    story.shown(
        "submissions refused; stalls",
        format_args!("{refused}; {stalls}"),
    );
    let restarts = pods
        .changes()
        .iter()
        .filter(|change| is_victim(change))
        .map(restarts)
        .max();
    assert_eq!(restarts, Some(0), "liveness never depends on load");
    story.shown("restarts of the sidecar", 0);

    story.step("the fault ends");
    let end = Instant::now();
    web.order(&victim, "stop");
    let ready = pods.first(end, PATIENCE, "the pod to be Ready again", |change| {
        is_victim(change) && change.condition("Ready") == "True"
    });
    story.took(
        "the pod is Ready again (recoverAfter 3 s, probe period 1 s)",
        ready.at - end,
    );
    let back = slices.first(
        end,
        PATIENCE,
        "the pod to be in the EndpointSlice again",
        |change| is_ready_endpoint(&change.object, &victim) == Some(true),
    );
    story.took("it is in the EndpointSlice again", back.at - end);
    let back_ms = unix_ms();
    await_within(PATIENCE, "answers of the pod", || {
        let answers = load.report().total().answers_since(back_ms);
        answers.contains_key(&victim).then_some(())
    });
    story.took("it answers clients again", end.elapsed());
    prometheus.await_that("the alert to be over", || {
        prometheus.alerts(alert).is_empty()
    });
    story.took(
        "RingsideSustainedPushback is over in Prometheus",
        end.elapsed(),
    );
    let event = events.first(end, PATIENCE, "the Event CameBack", |change| {
        is_about(change, "CameBack", &victim)
    });
    story.took("Event CameBack on the pod", event.at - end);
    let well = policies.first(end, PATIENCE, "the policy to be well", |change| {
        change.condition("Degraded") == "False" && change.object["status"]["pods"]["ready"] == 3
    });
    story.took(
        "the policy's status says 3/3 and not Degraded (written every 10 s at most)",
        well.at - end,
    );
    let total = load.report().total();
    let late = total.failures_since(lost_ms);
    assert!(late.is_empty(), "at the end: {late:?}");
    story.shown("requests that failed since it had left, to the end", 0);
}

/// A Prometheus that scrapes all sidecars and the controller each second, with the rules that are shipped.
fn prometheus(ringside: &Ringside, web: &Application, namespace: &str) -> Prometheus {
    let target = |job, pod: &str, address| Target {
        job,
        address,
        labels: BTreeMap::from([
            ("namespace".to_owned(), namespace.to_owned()),
            ("pod".to_owned(), pod.to_owned()),
        ]),
    };
    let sidecars = web.sidecars();
    let sidecars = sidecars
        .iter()
        .map(|(pod, admin)| target("ringside", pod, *admin));
    let controllers = ringside.controllers().into_iter();
    let controllers =
        controllers.map(|address| target("ringside-controller", "controller", address));
    let targets: Vec<Target> = sidecars.chain(controllers).collect();
    let rules = project().join("manifests/prometheus/rules.yaml");
    let rules = fs::read_to_string(rules).expect("the rules that are shipped");
    let prometheus = Prometheus::start(&targets, &rules);
    prometheus.await_scrapes(targets.len());
    prometheus
}

/// Whether the rules of the first node's kube-proxy lead to an endpoint, `ADDRESS . PORT`.
fn leads_to(cluster: &Cluster, endpoint: &str) -> bool {
    let mut rules = cluster.node_command(1, "nft");
    let rules = rules.args(["list", "table", "ip", "kube-proxy"]).output();
    let rules = rules.expect("nft can be started");
    assert!(
        rules.status.success() && !rules.stdout.is_empty(),
        "{rules:?}"
    );
    String::from_utf8_lossy(&rules.stdout).contains(endpoint)
}

fn metrics(web: &Application, admin: SocketAddr) -> Option<Metrics> {
    let scrape = web.ask(admin, "/metrics").ok()?;
    Some(Metrics::parse(&scrape.body))
}

fn count(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum(name, &[])
}

/// Whether the pod is a ready endpoint of a slice; `None` where the slice has none of it.
fn is_ready_endpoint(slice: &Value, pod: &str) -> Option<bool> {
    let endpoints = slice["endpoints"].as_array();
    let mut endpoints = endpoints.into_iter().flatten();
    let endpoint = endpoints.find(|endpoint| endpoint["targetRef"]["name"] == pod)?;
    endpoint["conditions"]["ready"].as_bool()
}

fn is_about(event: &Change, reason: &str, pod: &str) -> bool {
    event.object["reason"] == reason && event.object["involvedObject"]["name"] == pod
}

fn restarts(pod: &Change) -> u64 {
    let sidecars = pod.object["status"]["initContainerStatuses"].as_array();
    let restarts = sidecars.into_iter().flatten();
    restarts
        .filter_map(|status| status["restartCount"].as_u64())
        .sum()
}

fn reasons(failures: &[ringside_e2e::story::report::Failure]) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for failure in failures {
        *reasons.entry(failure.reason.as_str()).or_default() += 1;
    }
    reasons
}
