//! Rollout and drain: pods come and go in every way that operators know, and no client notices who tries again to connect. What runs to its end
//! ends, with a sidecar beside it.

use std::time::{Duration, Instant};

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::{
    APP_IMAGE, Application, Change, Load, Ringside, Story, Timeline, load_image,
};
use serde_json::{Value, json};

const PODS: u32 = 3;
/// A CronJob's minute comes within one, and its pod takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);
/// For how long an application goes on after SIGTERM: until kubelet, EndpointSlice and kube-proxy have followed, also where they share two cores
/// with everything else.
const LINGER_MS: &str = "8000";
/// Answers to each group of clients after each change, so that what it did was met.
const ANSWERS: u64 = 60;

/// Puts the node back into service.
struct Drained(&'static Cluster);

impl Drop for Drained {
    fn drop(&mut self) {
        let answer = self.0.try_kubectl(&["uncordon", "n2"]);
        if !answer.status.success() {
            eprintln!("n2 stays cordoned: {answer}");
        }
    }
}

#[test]
fn s05_rollout_drain() {
    let Some(story) = Story::begin(5, "Rollout and drain") else {
        return;
    };
    let cluster = story.cluster();
    story.step("a CronJob whose minute will come, and a Job, with sidecars");
    Ringside::installed(cluster);
    let shop = story.namespace("shop");
    let jobs = Timeline::watch(cluster, shop.name(), "batch/v1", "Job", "jobs");
    let pods = Timeline::pods(cluster, shop.name());
    load_image(cluster);
    shop.apply(&cron_job().to_string());
    let begin = Instant::now();
    shop.apply(&job().to_string());

    let web = Application::deploy(cluster, &shop, "web", PODS, |deployment| {
        // It goes out of its Service as soon as it is told to end, as applications should: the last pod of all has nobody that Services would rather
        // lead to. The kubelet asks the application itself, which therefore listens outside as well.
        let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
        container["args"] = json!(["serve", "0.0.0.0:8080", LINGER_MS]);
        container["readinessProbe"] = json!({
            "httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1,
        });
    });
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    shop.apply(&budget.to_string());
    completes(&story, &jobs, &pods, begin, "a Job", |name| name == "once");
    let groups = [
        "keep=keep:6:20:10000",
        "each=each:6:30:10000",
        "held=held:6:0:10000",
    ];
    let load = Load::start(cluster, &shop, "clients", "web:80", &groups);
    let quiet = |what: &str| {
        load.await_more(ANSWERS);
        load.assert_no_failures(what);
    };
    quiet("before anything");

    story.step("kubectl rollout restart");
    let before = web.addresses();
    story.timed("`kubectl rollout restart` of three pods", || {
        shop.kubectl(&["rollout", "restart", "deployment/web"]);
        web.await_rollout();
        await_gone(&shop, before.keys());
    });
    quiet("rollout restart");
    let stopped = stop_order(&pods, before.keys());
    story.shown(
        "stop order: the application before its sidecar, both with exit code 0",
        format_args!("{stopped} of {stopped} pods"),
    );

    story.step("kubectl drain");
    let on_n2 = |web: &Application| -> Vec<String> {
        let pods = web.pods();
        let there = pods.iter().filter(|pod| pod["spec"]["nodeName"] == "n2");
        there
            .map(|pod| {
                pod["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    };
    let moved = on_n2(&web);
    assert!(!moved.is_empty(), "no pod is on n2");
    let drained = Drained(cluster);
    story.timed(
        &format!("`kubectl drain` of a node with {} of the pods", moved.len()),
        || {
            let only = format!("--pod-selector=app={}", web.name());
            let drain = [
                "drain",
                "n2",
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                &only,
                "--timeout=120s",
            ];
            cluster.kubectl(&drain);
            web.await_rollout();
        },
    );
    assert!(on_n2(&web).is_empty());
    drop(drained);
    quiet("drain");

    story.step("to zero and back");
    let before = web.addresses();
    let retries = load.report().total().connect_retries;
    story.timed("scale to zero: all pods gone", || {
        shop.kubectl(&["scale", "deployment/web", "--replicas=0"]);
        await_gone(&shop, before.keys());
    });
    story.timed("back to three Ready pods", || {
        shop.kubectl(&["scale", "deployment/web", &format!("--replicas={PODS}")]);
        web.await_rollout();
    });
    quiet("scale to zero and back");
    stop_order(&pods, before.keys());
    let total = load.assert_no_failures("at the end").total();
    assert!(total.connect_retries > retries, "nobody had to try again");
    story.shown(
        "requests, pieces of streams and streams of clients that retry on connect only: failed",
        format_args!("0 of {}", total.answered + total.streams_ended),
    );
    story.shown(
        "their connections; attempts that were made again; streams that ended as they should",
        format_args!(
            "{}; {}; {}",
            total.connections, total.connect_retries, total.streams_ended
        ),
    );
    let restarts = pods.changes().iter().map(restarts).max();
    assert_eq!(restarts, Some(0), "no container was restarted");

    story.step("the CronJob's minute");
    completes(
        &story,
        &jobs,
        &pods,
        begin,
        "a CronJob's Job (its minute awaited)",
        |name| name.starts_with("each-minute-"),
    );
}

/// Waits until the Job of that name is Complete; its pod had a sidecar, which ended after the work.
fn completes(
    story: &Story,
    jobs: &Timeline,
    pods: &Timeline,
    begin: Instant,
    what: &str,
    is: impl Fn(&str) -> bool,
) {
    let complete = jobs.first(begin, PATIENCE, what, |job| {
        assert_ne!(job.condition("Failed"), "True", "{}", job.object);
        is(job.name()) && job.condition("Complete") == "True"
    });
    story.took(
        &format!("{what} with a sidecar is Complete"),
        complete.at - begin,
    );
    let job = complete.name();
    let pod = pods.first(begin, PATIENCE, "the Job's pod at its end", |pod| {
        pod.object["metadata"]["labels"]["job-name"] == job
            && pod.object["status"]["phase"] == "Succeeded"
    });
    assert_eq!(ended(&pod.object, "ringside").1, 0, "{}", pod.object);
}

/// Waits until these pods are gone.
fn await_gone<'p>(shop: &Namespace<'static>, pods: impl Iterator<Item = &'p String>) {
    for pod in pods {
        shop.kubectl(&["wait", "pod", pod, "--for=delete", "--timeout=120s"]);
    }
}

/// That in each of these pods, which are gone, the application ended before its sidecar, and both well. How many they are.
fn stop_order<'p>(pods: &Timeline, names: impl Iterator<Item = &'p String>) -> usize {
    let changes = pods.changes();
    let mut count = 0;
    for name in names {
        let of_pod: Vec<&Change> = changes
            .iter()
            .filter(|change| change.name() == name)
            .collect();
        let running = |change: &Change, container: &str| {
            !state(&change.object, container)["running"].is_null()
        };
        let sidecar_first = of_pod.iter().find(|change| {
            running(change, "app") && !state(&change.object, "ringside")["terminated"].is_null()
        });
        assert!(sidecar_first.is_none(), "{sidecar_first:?}");
        let last = of_pod.last().expect("the pod was seen");
        let (app, sidecar) = (ended(&last.object, "app"), ended(&last.object, "ringside"));
        assert!(app.0 <= sidecar.0, "{name}: {app:?} {sidecar:?}");
        assert_eq!((app.1, sidecar.1), (0, 0), "{name}: {}", last.object);
        count += 1;
    }
    count
}

fn state<'p>(pod: &'p Value, container: &str) -> &'p Value {
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let statuses = statuses
        .iter()
        .filter_map(|kind| pod["status"][kind].as_array());
    let mut statuses = statuses.flatten();
    let status = statuses.find(|status| status["name"] == container);
    status.map_or(&Value::Null, |status| &status["state"])
}

/// When a container ended, to the second, and its exit code.
fn ended(pod: &Value, container: &str) -> (String, i64) {
    let end = &state(pod, container)["terminated"];
    assert!(
        end.is_object(),
        "{container} is not known to have ended: {pod}"
    );
    let at = end["finishedAt"].as_str().unwrap_or_default();
    (at.to_owned(), end["exitCode"].as_i64().unwrap_or(-1))
}

fn restarts(pod: &Change) -> u64 {
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let statuses = statuses
        .iter()
        .filter_map(|kind| pod.object["status"][kind].as_array());
    let restarts = statuses
        .flatten()
        .filter_map(|status| status["restartCount"].as_u64());
    restarts.sum()
}

/// Work that ends: requests to the Service, beside a relay of its own.
fn work() -> Value {
    json!({"backoffLimit": 0, "template": {
        "metadata": {
            "labels": {"ringside.dev/inject": "enabled"},
            "annotations": {"ringside.dev/relay": "work=15080:8080", "ringside.dev/workers": "1"},
        },
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "app", "image": APP_IMAGE, "imagePullPolicy": "Never", "args": ["ask", "web:80", "20", "20"],
        }]},
    }})
}

fn job() -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": work()})
}

fn cron_job() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "each-minute"},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": work()}},
    })
}
