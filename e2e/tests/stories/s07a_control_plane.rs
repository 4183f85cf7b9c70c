//! Things break: the controller is killed, then the API server, then there is no controller at all. Relays go on as they are; what is killed comes
//! back, and what was missed is told.

use std::time::{Duration, Instant};

use ringside_e2e::cluster::Program;
use ringside_e2e::story::report::unix_ms;
use ringside_e2e::story::{
    APP_IMAGE, Change, RELEASE, Ringside, Story, Timeline, await_within, is_ready,
};
use serde_json::{Value, json};

use crate::served::{CLIENTS, PATIENCE, Served, await_leader_after, leader};

/// The Lease is anybody's after 10 s, and looked at every 2 s; the rest is a busy machine's.
const TAKEOVER_MOST: Duration = Duration::from_secs(30);

#[test]
fn s07a_controller_api_server_webhook_and_sidecar_fail() {
    let title = "Things break: controller, API server, webhook, sidecar";
    let Some(story) = Story::begin(7, title) else {
        return;
    };
    let cluster = story.cluster();
    story.step("two replicas of the controller, three pods, clients");
    let ringside = Ringside::installed_with(cluster, &["--set=replicaCount=2"]);
    let served = Served::deploy(&story, 3, 5_000, |_| {});
    let load = served.clients();
    let watch = |kind: &str, plural: &str| {
        Timeline::watch(cluster, served.namespace.name(), "v1", kind, plural)
    };
    let (pods, events) = (watch("Pod", "pods"), watch("Event", "events"));

    let first = leader(cluster);
    story.step("the controller that leads is killed, and its pod is gone for good");
    let killed = Instant::now();
    cluster.kill_container(RELEASE, &first, "controller");
    // Else its container would be back within a second, under the name that holds the Lease.
    let gone = ["delete", "pod", &first, "--force", "--grace-period=0"];
    cluster.kubectl(&[&["--namespace", RELEASE], &gone[..]].concat());
    await_leader_after(cluster, &first);
    let took = killed.elapsed();
    story.took("controller killed: the other replica leads", took);
    assert!(took < TAKEOVER_MOST, "{took:?}");
    served.await_connected(killed);
    story.took("every sidecar is connected to it", killed.elapsed());
    for (pod, sidecar) in served.sidecars() {
        assert_eq!(sidecar.max_connections, 5_000, "{pod}: {sidecar:?}");
    }
    let took = served.change_settings(6_000);
    story.took("a policy is in effect in every sidecar after `apply`", took);
    load.await_more(100);
    load.assert_no_failures("while a controller was killed");

    story.step("the API server is killed");
    let killed = Instant::now();
    cluster.kill(Program::ApiServer);
    load.await_more(50);
    await_within(PATIENCE, "the API server to answer", || {
        let ready = cluster.try_kubectl(&["get", "--raw", "/readyz"]);
        ready.status.success().then_some(())
    });
    story.took("API server killed: it answers again", killed.elapsed());
    served.change_settings(7_000);
    story.took(
        "a policy that is applied then is in effect in every sidecar",
        killed.elapsed(),
    );
    ringside.await_injection();
    story.took("pods get their relay", killed.elapsed());
    load.await_more(100);
    load.assert_no_failures("while the API server was killed");

    story.step("no controller, and so no webhook: a pod that asks for a relay is made");
    ringside.scale(0);
    let begin = Instant::now();
    served.namespace.apply(&asks_for_a_relay().to_string());
    let bare = pods.first(begin, PATIENCE, "the pod to be Ready", |change| {
        change.name() == "bare" && is_ready(&change.object)
    });
    story.took(
        "webhook down: a new pod is Ready, without a relay",
        bare.at - begin,
    );
    assert!(sidecar_of(&bare.object).is_null(), "{}", bare.object);
    load.await_more(100);
    let before = load.assert_no_failures("without a controller").total();
    story.shown(
        "requests and pieces of streams until then; failed",
        format_args!("{}; 0", before.answered),
    );

    let victim = served.sidecars().into_keys().next().expect("a pod");
    story.step(&format!(
        "the sidecar of {victim} is killed, without a controller"
    ));
    let killed = Instant::now();
    cluster.kill_container(served.namespace.name(), &victim, "ringside");
    let back = pods.first(killed, PATIENCE, "the sidecar's return", |change| {
        change.name() == victim && restarts(change) == 1 && is_ready(&change.object)
    });
    let back_ms = unix_ms();
    story.took("sidecar killed: its pod is Ready again", back.at - killed);
    let sidecar = &served.sidecars()[&victim];
    assert_eq!(sidecar.max_connections, 7_000, "{sidecar:?}");
    assert_eq!(sidecar.found_in, "state folder", "{sidecar:?}");
    story.shown(
        "its settings are the last that it had; found in",
        &sidecar.found_in,
    );
    await_within(PATIENCE, "answers through it", || {
        let answers = load.report().total().answers_since(back_ms);
        answers.contains_key(&victim).then_some(())
    });
    story.took("it answers clients again", killed.elapsed());

    story.step("the controller is back");
    let begin = Instant::now();
    ringside.scale(2);
    served.await_connected(begin);
    story.took("every sidecar is connected to it", begin.elapsed());
    let event = events.first(begin, PATIENCE, "the Event NotInjected", |change| {
        change.object["reason"] == "NotInjected"
            && change.object["involvedObject"]["name"] == "bare"
    });
    story.took(
        "the Event NotInjected on the pod without a relay",
        event.at - begin,
    );
    let told = served.namespace.kubectl(&["events", "--for=pod/bare"]);
    assert!(told.contains("webhook was not reached"), "{told}");
    let note = event.object["message"].as_str().unwrap_or_default();
    story.shown("what `kubectl events` says of it", note);
    served
        .namespace
        .kubectl(&["delete", "pod", "bare", "--now"]);
    served.namespace.apply(&asks_for_a_relay().to_string());
    let made = served
        .namespace
        .kubectl(&["get", "pod", "bare", "--output=json"]);
    let made: Value = serde_json::from_str(&made).expect("kubectl prints JSON");
    assert_eq!(sidecar_of(&made), "ringside", "{made}");
    served.change_settings(8_000);

    load.await_more(100);
    let total = load.report().total();
    let late = total.failures_since(back_ms);
    assert!(late.is_empty(), "once the sidecar was back: {late:?}");
    assert!(
        total.failed <= CLIENTS,
        "more than one for each client: {:?}",
        total.failures
    );
    story.shown(
        "requests and streams in the killed sidecar that ended with it, of 11 clients; failed before and after",
        format_args!("{}; 0", total.failed),
    );
}

/// A pod of the application that asks for a relay by its label.
fn asks_for_a_relay() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "bare", "labels": {"ringside.dev/inject": "enabled"},
            "annotations": {"ringside.dev/relay": "web=15080:8080"},
        },
        "spec": {"containers": [{
            "name": "app", "image": APP_IMAGE, "imagePullPolicy": "Never", "args": ["serve", "127.0.0.1:8080", "0"],
        }]},
    })
}

/// The name of a pod's first init container, which is where a sidecar is.
fn sidecar_of(pod: &Value) -> &Value {
    &pod["spec"]["initContainers"][0]["name"]
}

fn restarts(pod: &Change) -> u64 {
    let status = &pod.object["status"]["initContainerStatuses"][0];
    status["restartCount"].as_u64().unwrap_or_default()
}
