//! Things break: a node is lost with all that runs there, the controller that leads among it. Traffic goes to the other node, the other replica
//! leads, and when the node is back everything is as it was.

use std::time::{Duration, Instant};

use ringside_e2e::cluster::{Cluster, Program};
use ringside_e2e::story::report::unix_ms;
use ringside_e2e::story::{RELEASE, Ringside, Story, Timeline, await_within};
use serde_json::{Value, json};

use crate::served::{CLIENTS, PATIENCE, Served, await_leader_after, leader};

/// kube-proxy's rules follow the EndpointSlice.
const PROXY_LAG: Duration = Duration::from_secs(2);

/// The node that is lost; the first one's network is the cluster's.
const LOST: &str = "n2";

/// Replicas of the controller on different nodes for certain; as the chart has it, a scheduler only tries to.
const SPREAD: &str = r#"--set-json=topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "controller"}}, "matchLabelKeys": ["pod-template-hash"]}]"#;

#[test]
fn s07b_a_node_is_lost() {
    let Some(story) = Story::begin(7, "Things break: a node") else {
        return;
    };
    let cluster = story.cluster();
    story.step("a pod, and a controller, on each of two nodes; clients on the first");
    // On any node: the other stories keep it on the first.
    let anywhere = "--set=nodeSelector=null";
    Ringside::installed_with(cluster, &["--set=replicaCount=2", anywhere, SPREAD]);
    let served = Served::deploy(&story, 2, 5_000, |deployment| {
        let spread = &mut deployment["spec"]["template"]["spec"]["topologySpreadConstraints"][0];
        spread["whenUnsatisfiable"] = json!("DoNotSchedule");
    });
    let cordon = Cordon::of(cluster, LOST);
    let load = served.clients();
    drop(cordon);
    let (pods, slices) = (
        Timeline::pods(cluster, served.namespace.name()),
        Timeline::watch(
            cluster,
            served.namespace.name(),
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "endpointslices",
        ),
    );
    let there = served.web.pods();
    let there = there.iter().find(|pod| pod["spec"]["nodeName"] == LOST);
    let there = there.and_then(|pod| pod["metadata"]["name"].as_str());
    let there = there.expect("a pod on the node").to_owned();
    let leads = lead_from(cluster, LOST);
    load.await_more(50);
    load.assert_no_failures("before the node is lost");

    story.step(&format!("{LOST} is lost, and with it {leads}, which leads"));
    let lost_at = Instant::now();
    let lost = cluster.stop(Program::Node(2));
    let left = slices.first(
        lost_at,
        PATIENCE,
        "the pod to leave the EndpointSlice",
        |change| is_ready_endpoint(&change.object, &there) == Some(false),
    );
    let left_ms = unix_ms() + PROXY_LAG.as_millis() as u64;
    story.took(
        "node lost: its pod has left the EndpointSlice (the node may be silent for 10 s)",
        left.at - lost_at,
    );
    await_leader_after(cluster, &leads);
    story.took("the replica on the other node leads", lost_at.elapsed());
    let settings = json!({"accept": {"maxConnections": 6_000}});
    let changed = crate::policy::policy("web", "web", settings);
    served.namespace.apply(&changed.to_string());
    await_within(PATIENCE, "the policy in the sidecar that is left", || {
        let sidecars = served.web.sidecars().into_iter();
        let mut left = sidecars.filter(|(pod, _)| *pod != there);
        let (_, admin) = left.next()?;
        let answer = served.web.ask(admin, "/config?format=json").ok()?;
        let config: Value = serde_json::from_str(&answer.body).ok()?;
        (config["settings"]["accept"]["maxConnections"] == 6_000).then_some(())
    });
    story.took(
        "a policy that is applied then is in effect on the other node",
        lost_at.elapsed(),
    );
    await_within(PATIENCE, "requests that begin after all of that", || {
        (unix_ms() > left_ms).then_some(())
    });
    load.await_more(100);
    let total = load.report().total();
    let late = total.failures_since(left_ms);
    assert!(late.is_empty(), "after the pod had left: {late:?}");
    assert!(
        total.failed <= CLIENTS,
        "more than one for each client: {:?}",
        total.failures
    );
    let answers = total.answers_since(left_ms);
    assert!(!answers.contains_key(&there), "{answers:?}");
    story.shown(
        "requests and streams on the lost node that ended with it, of 11 clients; failed since",
        format_args!("{}; 0", total.failed),
    );
    story.shown(
        "longest answer, with connecting anew",
        format_args!("{:.1} s", total.slowest_ms as f64 / 1000.0),
    );

    story.step(&format!("{LOST} is back"));
    let back_at = Instant::now();
    drop(lost);
    let ready = pods.first(back_at, PATIENCE, "the pod to be Ready again", |change| {
        change.name() == there && change.condition("Ready") == "True"
    });
    story.took("node back: its pod is Ready again", ready.at - back_at);
    let ready_ms = unix_ms();
    await_within(PATIENCE, "answers of the pod", || {
        let answers = load.report().total().answers_since(ready_ms);
        answers.contains_key(&there).then_some(())
    });
    story.took("it answers clients again", back_at.elapsed());
    served.await_settings(6_000);
    story.took(
        "its sidecar runs the policy that was applied meanwhile",
        back_at.elapsed(),
    );
    let rollout = ["rollout", "status", "deployment/ringside-controller"];
    let wait = ["--namespace", RELEASE, "--timeout=180s"];
    cluster.kubectl(&[&rollout[..], &wait].concat());
    story.took(
        "both replicas of the controller are Ready",
        back_at.elapsed(),
    );
    load.await_more(100);
    let total = load.report().total();
    let late = total.failures_since(left_ms);
    assert!(late.is_empty(), "at the end: {late:?}");
}

/// Sees to it that the replica on `node` leads, and returns its name.
fn lead_from(cluster: &Cluster, node: &str) -> String {
    let of = |pod: &str| {
        let question = ["get", "pod", pod, "--output=jsonpath={.spec.nodeName}"];
        cluster.kubectl(&[&["--namespace", RELEASE], &question[..]].concat())
    };
    let mut leads = leader(cluster);
    if of(&leads) != node {
        // It gives the Lease back, and is made anew where it was, since the other one is there.
        cluster.kubectl(&["--namespace", RELEASE, "delete", "pod", &leads]);
        leads = await_leader_after(cluster, &leads);
        let rollout = ["rollout", "status", "deployment/ringside-controller"];
        let wait = ["--namespace", RELEASE, "--timeout=180s"];
        cluster.kubectl(&[&rollout[..], &wait].concat());
    }
    assert_eq!(of(&leads), node, "replicas are spread over nodes");
    leads
}

/// Whether the pod is a ready endpoint of a slice; `None` where the slice has none of it.
fn is_ready_endpoint(slice: &Value, pod: &str) -> Option<bool> {
    let endpoints = slice["endpoints"].as_array();
    let mut endpoints = endpoints.into_iter().flatten();
    let endpoint = endpoints.find(|endpoint| endpoint["targetRef"]["name"] == pod)?;
    endpoint["conditions"]["ready"].as_bool()
}

/// A node that gets no new pods, until this is dropped.
struct Cordon<'c>(&'c Cluster, &'static str);

impl<'c> Cordon<'c> {
    fn of(cluster: &'c Cluster, node: &'static str) -> Self {
        cluster.kubectl(&["cordon", node]);
        Self(cluster, node)
    }
}

impl Drop for Cordon<'_> {
    fn drop(&mut self) {
        let said = self.0.try_kubectl(&["uncordon", self.1]);
        if !said.status.success() {
            eprintln!("{} gets no pods still: {said}", self.1);
        }
    }
}
