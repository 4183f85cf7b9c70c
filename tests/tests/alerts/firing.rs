//! A kernel that refuses every submission, a relay that tells of it, and Prometheus: the alert is pending, fires, and is gone when the
//! fault is. Judged by Prometheus' own API.

use std::collections::BTreeMap;
use std::time::Duration;

use ringside::backend::inject::{Errno, Syscalls};
use ringside_monitoring::rules::Rules;
use ringside_tests::namespaced;
use ringside_tests::processes::installed;
use ringside_tests::prometheus::{PROGRAMS, Prometheus, Target};
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::traffic::{Pattern, Server, echo};
use serde_json::json;

/// The rules' waits are divided by this, so that a minute is two seconds: two scrapes.
const WAITS_SHORTENED_BY: u32 = 30;

/// Longer than the test may take: it ends the fault itself.
const FAULT: Duration = Duration::from_secs(900);

const MESSAGE: u64 = 100;

namespaced!(
    sustained_pushback_is_told_while_it_lasts_and_no_longer,
    told(
        "RingsideSustainedPushback",
        "firing::sustained_pushback_is_told_while_it_lasts_and_no_longer"
    )
);

fn told(alert: &str, test: &str) {
    if !installed(test, &PROGRAMS) {
        return;
    }
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Ring)
        .to(&server)
        .watched(Syscalls::Submissions)
        .settings(json!({"readiness": {"unreadyAfter": "500ms", "recoverAfter": "1s"}}))
        .start();
    let target = Target {
        job: "ringside",
        address: relay.admin_address(),
        labels: BTreeMap::from([("namespace", "shop"), ("pod", "web-1")])
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    };
    let rules = Rules::shipped().with_waits_shortened_by(WAITS_SHORTENED_BY);
    let prometheus = Prometheus::start(&[target], &rules.yaml());
    prometheus.await_scrapes(1);
    assert_eq!(prometheus.alerts(alert), [] as [serde_json::Value; 0]);

    let (stream, pattern) = (relay.connect(), Pattern::new(1));
    stream.ping(pattern, 0, MESSAGE).unwrap();
    relay.injector().fail_for(FAULT, Errno::EAGAIN);
    stream.send(pattern, MESSAGE, 2 * MESSAGE, 100).unwrap();
    prometheus.await_that("the alert to fire", || {
        prometheus
            .alerts(alert)
            .iter()
            .any(|alert| alert["state"] == "firing")
    });
    let firing = prometheus.alerts(alert);
    assert_eq!(firing.len(), 1, "one alert for one pod: {firing:?}");
    let labels = &firing[0]["labels"];
    assert_eq!(
        (&labels["namespace"], &labels["pod"], &labels["severity"]),
        (&json!("shop"), &json!("web-1"), &json!("warning"))
    );
    let summary = firing[0]["annotations"]["summary"].as_str().unwrap();
    assert_eq!(summary, "The kernel keeps pushing shop/web-1 back.");
    // It waited before it fired, by Prometheus' own account.
    let pending =
        format!("count_over_time(ALERTS{{alertname=\"{alert}\", alertstate=\"pending\"}}[10m])");
    assert!(!prometheus.ask(&pending).unwrap().is_empty());
    let await_ready = |what: &str, ready: f64| {
        prometheus.await_that(what, || {
            let found = prometheus.ask("ringside_ready").unwrap();
            found.first().map(|series| series.points[0].1) == Some(ready)
        });
    };
    await_ready("the pod to have left its Services", 0.0);

    relay.injector().stop();
    prometheus.await_that("the alert to be over", || {
        prometheus.alerts(alert).is_empty()
    });
    await_ready("the pod to be back", 1.0);
    stream.receive(pattern, MESSAGE, 2 * MESSAGE).unwrap();
    drop(stream);
    relay.settle();
}
