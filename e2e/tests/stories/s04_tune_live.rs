//! Tune live: settings change under traffic, and nobody's connection does. What is wrong changes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::story::{Application, Change, Load, Ringside, Story, Timeline, await_within};
use serde_json::{Value, json};

use crate::policy::{condition, policy};

/// How soon a change has to be live, once the API server has it.
const LIVE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// The ClusterRelayPolicy of this story, which holds for every relay of the cluster: it must not stay.
struct ClusterPolicy<'s>(&'s Story);

impl Drop for ClusterPolicy<'_> {
    fn drop(&mut self) {
        let delete = [
            "delete",
            "clusterrelaypolicy",
            "default",
            "--ignore-not-found",
        ];
        self.0.cluster().try_kubectl(&delete);
    }
}

#[test]
fn s04_tune_live() {
    let Some(story) = Story::begin(4, "Tune live") else {
        return;
    };
    let (cluster, start) = (story.cluster(), Instant::now());
    story.step("three pods, and clients that keep connections and hold streams");
    Ringside::installed(cluster);
    let shop = story.namespace("shop");
    let web = Application::deploy(cluster, &shop, "web", 3, |_| {});
    let groups = ["keep=keep:6:20:10000", "held=held:6:0:10000"];
    let load = Load::start(cluster, &shop, "clients", "web:80", &groups);
    // Each client has its one connection.
    await_within(PATIENCE, "a connection of each client", || {
        (load.report().total().connections == 12).then_some(())
    });
    let policies = Timeline::watch(
        cluster,
        shop.name(),
        "ringside.dev/v1alpha1",
        "RelayPolicy",
        "relaypolicies",
    );
    let defaults = configs(&web);
    let tune = Tune {
        story: &story,
        shop: &shop,
        web: &web,
        policies: &policies,
    };

    story.step("a policy changes batch, then backoff, then the accept rate");
    let mut settings = json!({"batch": {"max": 128}});
    let mut times = vec![tune.apply(&settings, "batch.max", "/settings/batch/max", &json!(128))];
    settings["backoff"] = json!({"max": "40ms"});
    times.push(tune.apply(
        &settings,
        "backoff.max",
        "/settings/backoff/max",
        &json!("40ms"),
    ));
    settings["accept"] = json!({"maxPerSecond": 4000});
    times.push(tune.apply(
        &settings,
        "accept.maxPerSecond",
        "/settings/accept/maxPerSecond",
        &json!(4000),
    ));
    // The machine may be busy with others once, but not each time.
    let fastest = times.iter().min().expect("three changes");
    assert!(*fastest < LIVE, "{times:?}");
    let is_programmed = |change: &Change| {
        change.condition("Programmed") == "True"
            && change.object["status"]["pods"]["programmed"] == 3
            && change.object["status"]["observedGeneration"]
                == change.object["metadata"]["generation"]
    };
    let programmed = policies.first(start, PATIENCE, "Programmed", is_programmed);
    story.shown("Programmed", condition(&programmed.object, "Programmed"));
    let tuned = configs(&web);

    story.step("policies that are wrong");
    let refused = |settings: Value| {
        let policy = policy("tune", "web", settings).to_string();
        let answer = shop.try_kubectl_with(&["apply", "-f", "-"], &policy);
        assert!(!answer.status.success(), "it was taken: {answer}");
        let lines = answer.err.lines();
        let mut lines = lines.filter(|line| line.contains("Invalid value"));
        lines.next().unwrap_or(&answer.err).trim().to_owned()
    };
    let said = refused(json!({"backoff": {"initial": "60ms", "max": "40ms"}}));
    story.shown(
        "backoff.initial above backoff.max: the API server refuses",
        said,
    );
    let said = refused(json!({"batch": {"max": "many"}}));
    story.shown("a word for a number: the API server refuses", said);
    assert_eq!(
        configs(&web),
        tuned,
        "what was refused has changed something"
    );
    // One that is wrong only beside another is taken, and judged by the controller.
    let begin = Instant::now();
    let default = ClusterPolicy(&story);
    let cluster_policy = json!({
        "apiVersion": "ringside.dev/v1alpha1", "kind": "ClusterRelayPolicy", "metadata": {"name": "default"},
        "spec": {"batch": {"min": 200}},
    });
    cluster.apply(&cluster_policy.to_string());
    let invalid = policies.first(begin, PATIENCE, "Accepted=False", |change| {
        change.condition("Accepted") == "False"
    });
    story.took(
        "wrong beside the ClusterRelayPolicy: Accepted=False",
        invalid.at - begin,
    );
    let said = condition(&invalid.object, "Accepted");
    assert!(said.contains("batch"), "{said}");
    story.shown("Accepted", said);
    assert_eq!(configs(&web), tuned, "running sidecars are left alone");
    story.shown(
        "running sidecars after all of these",
        "untouched (/config of all three is the same)",
    );
    drop(default);
    policies.first(invalid.at, PATIENCE, "Accepted=True again", |change| {
        change.condition("Accepted") == "True"
    });

    story.step("the policy is deleted");
    let begin = Instant::now();
    shop.kubectl(&["delete", "relaypolicy", "tune"]);
    await_within(PATIENCE, "the defaults again", || {
        let now = configs(&web);
        let same = |pod: &String| now[pod]["settings"] == defaults[pod]["settings"];
        defaults.keys().all(same).then_some(())
    });
    story.took(
        "defaults in every sidecar again after `kubectl delete`",
        begin.elapsed(),
    );

    load.await_more(50);
    let report = load.assert_no_failures("through all changes");
    let total = report.total();
    assert_eq!(
        (total.connections, total.streams_ended),
        (12, 0),
        "connections were made anew"
    );
    let open: u64 = total.streams_open.values().sum();
    assert_eq!(open, 6);
    story.shown(
        "connections dropped by all of these changes (6 kept, 6 with a stream)",
        format_args!(
            "0 ({} answers and pieces on the 12 that were there at first)",
            total.answered
        ),
    );
}

struct Tune<'s> {
    story: &'s Story,
    shop: &'s Namespace<'static>,
    web: &'s Application,
    policies: &'s Timeline,
}

impl Tune<'_> {
    /// Applies the policy, and waits until `/config` of every sidecar has the value and says where it came from. From the moment at which the API
    /// server had it to the last sidecar.
    fn apply(&self, settings: &Value, field: &str, path: &str, value: &Value) -> Duration {
        let Self {
            story,
            shop,
            web,
            policies,
        } = *self;
        let policy = policy("tune", "web", settings.clone()).to_string();
        let sidecars = web.sidecars();
        let begin = Instant::now();
        shop.apply(&policy);
        let heard = policies.first(begin, PATIENCE, "the change", |change| {
            let spec = &change.object["spec"];
            spec.pointer(path.trim_start_matches("/settings")) == Some(value)
        });
        let mut last = Duration::ZERO;
        for (pod, admin) in &sidecars {
            let live = await_within(PATIENCE, &format!("{field} in {pod}"), || {
                let config = config(web, *admin)?;
                (config.pointer(path) == Some(value)).then_some(config)
            });
            assert_eq!(live["sources"][field], "RelayPolicy tune", "{live}");
            last = last.max(heard.at.elapsed());
        }
        story.took(
            &format!("{field} live in every sidecar (/config), once the API server has it"),
            last,
        );
        story.took(
            &format!("{field}: the same with all of `kubectl apply`"),
            begin.elapsed(),
        );
        last
    }
}

fn config(web: &Application, admin: std::net::SocketAddr) -> Option<Value> {
    let answer = web.ask(admin, "/config?format=json").ok()?;
    serde_json::from_str(&answer.body).ok()
}

/// What every sidecar runs, by pod.
fn configs(web: &Application) -> BTreeMap<String, Value> {
    let sidecars = web.sidecars().into_iter();
    let all = sidecars.map(|(pod, admin)| {
        let mut config = config(web, admin).expect("/config in JSON");
        // What was refused is remembered there, and is no setting.
        config["lastError"].take();
        (pod, config)
    });
    all.collect()
}
