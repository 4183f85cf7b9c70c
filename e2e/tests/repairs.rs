//! What the controller notices by itself: a status that somebody else wrote over, pods that miss their relay; and what its metrics tell.

use std::time::{SystemTime, UNIX_EPOCH};

use ringside_e2e::PATIENCE;
use ringside_e2e::definitions::installed;
use ringside_e2e::installation::Installation;
use ringside_tests::await_that;

/// Waits for what may take the ten seconds between two writes.
#[track_caller]
fn in_the_end(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn pod(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{ringside.dev/inject: enabled}}}}, spec: {{serviceAccountName: default, containers: [{{name: app, image: app, ports: [{{containerPort: 8080}}]}}]{spec}}}}}"
    )
}

#[test]
fn what_others_spoil_is_put_right_and_what_is_missing_is_told() {
    let test = "what_others_spoil_is_put_right_and_what_is_missing_is_told";
    let Some(server) = installed(test) else {
        return;
    };
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    // Before anybody answers webhooks: these get no relay.
    shop.apply(&pod("missed", ""));
    shop.apply(&pod("host", ", hostNetwork: true"));
    let first = release.start("one");
    first.await_leading();
    let events = || {
        let path = "-o=jsonpath={range .items[*]}{.regarding.name} {.reason}{\"\\n\"}{end}";
        let listed = shop.kubectl(&["get", "events.events.k8s.io", path]);
        let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let expected = ["host InjectionSkipped", "missed NotInjected"];
    await_that("an Event on each pod without a relay", || {
        events() == expected
    });

    // A policy's status, written over by somebody, and taken away.
    shop.apply("{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {name: web}, spec: {podSelector: {}}}");
    let summary = || {
        let path =
            "-o=jsonpath={.status.pods.summary} {.status.conditions[?(@.type=='Accepted')].status}";
        shop.kubectl(&["get", "rlp", "web", path])
    };
    await_that("a status", || summary() == "0/0 True");
    let spoil = |status: &str| {
        let patch = format!("--patch={{\"status\": {status}}}");
        let arguments = [
            "patch",
            "rlp",
            "web",
            "--subresource=status",
            "--type=merge",
            &patch,
        ];
        shop.kubectl(&arguments);
    };
    spoil(r#"{"pods": {"matched": 9, "programmed": 9, "ready": 9, "summary": "9/9"}}"#);
    in_the_end("the counts are put right", || summary() == "0/0 True");
    spoil("null");
    in_the_end("the whole status is put right", || summary() == "0/0 True");

    // What is others' own stays, and is no reason to write.
    spoil(r#"{"backends": {"theirs": 1}}"#);
    let writes = || {
        let asked = release.asked().unwrap_or_default();
        let writes = asked
            .iter()
            .filter(|asked| asked.resource == "relaypolicies/status");
        writes.count()
    };
    let before = writes();
    spoil(r#"{"pods": {"matched": 9}}"#);
    let matched = || shop.kubectl(&["get", "rlp", "web", "-o=jsonpath={.status.pods.matched}"]);
    in_the_end("the count is put right", || matched() == "0");
    if release.asked().is_some() {
        assert_eq!(writes(), before + 1);
    }

    // Another replica, which knows nothing of what was told, tells it no second time.
    drop(first);
    let second = release.start("two");
    second.await_leading();
    if release.asked().is_some() {
        await_that("the other replica to try", || {
            let asked = release.asked().unwrap_or_default();
            let known = asked
                .iter()
                .filter(|asked| asked.resource == "events" && asked.code == 409);
            known.count() == 2
        });
    }
    assert_eq!(events(), expected);

    let metrics = second.metrics().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for certificate in ["leaf", "ca"] {
        let name = "ringside_controller_certificate_expiry_timestamp_seconds";
        let ends = metrics.sum(name, &[("certificate", certificate)]);
        assert!(ends > now.as_secs_f64(), "{certificate}: {ends}");
    }
    let webhooks = release.install_webhooks(shop.name(), second.tls);
    // The configuration takes effect after a moment.
    let mut count = 0;
    await_that("a pod to get its relay", || {
        count += 1;
        shop.apply(&pod(&format!("web-{count}"), ""));
        let metrics = second.metrics().unwrap();
        metrics.sum(
            "ringside_controller_injections_total",
            &[("outcome", "injected")],
        ) >= 1.0
    });
    let metrics = second.metrics().unwrap();
    for name in ["connections_total", "handshakes_total", "requests_total"] {
        let name = format!("ringside_controller_{name}");
        assert!(metrics.sum(&name, &[]) >= 1.0, "{name}");
    }
    drop(webhooks);
    drop(second);
    release.asked_nothing_else();
}
