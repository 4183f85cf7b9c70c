//! The fleet limit: the kernel refuses all relays at once. No more pods leave than the policy allows, with the controller and without it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use ringside_e2e::story::{
    Application, Change, INJECTED_SIDECAR_IMAGE, Load, Ringside, Story, Timeline, await_within,
    load_injected_sidecar,
};
use serde_json::json;

use crate::policy::policy;

const PODS: u32 = 4;
/// Half of the pods, as the policy says.
const LIMIT: usize = 2;
/// For how long nobody else may leave once all have asked: several times what leaving takes.
const HELD: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn s03_fleet_limit() {
    let Some(story) = Story::begin(3, "The fleet limit") else {
        return;
    };
    let (cluster, begin) = (story.cluster(), Instant::now());
    story.step("four pods whose relays run under the fault injector, of which half may be unready; and clients");
    let ringside = Ringside::installed(cluster);
    load_injected_sidecar(cluster);
    let shop = story.namespace("shop");
    let readiness = json!({"mode": "Leave", "pushbackPercent": 50, "unreadyAfter": "1s", "recoverAfter": "2s", "maxUnreadyPercent": 50});
    shop.apply(&policy("web", "web", json!({"readiness": readiness})).to_string());
    let web = Application::deploy(cluster, &shop, "web", PODS, |deployment| {
        let annotations = &mut deployment["spec"]["template"]["metadata"]["annotations"];
        annotations["ringside.dev/image"] = json!(INJECTED_SIDECAR_IMAGE);
    });
    Load::start(
        cluster,
        &shop,
        "clients",
        "web:80",
        &["each=each:12:30:1000"],
    );
    let policies = Timeline::watch(
        cluster,
        shop.name(),
        "ringside.dev/v1alpha1",
        "RelayPolicy",
        "relaypolicies",
    );
    let is_well = |change: &Change| {
        change.condition("Programmed") == "True"
            && change.object["status"]["pods"]["summary"] == "4/4"
    };
    policies.first(begin, PATIENCE, "the policy in effect", is_well);

    let all = Fleet {
        story: &story,
        web: &web,
        namespace: shop.name(),
    };
    await_permits(&web);
    all.refused("with the controller", "denied");
    await_permits(&web);
    story.step("the controller is scaled to zero");
    ringside.scale(0);
    all.refused("without the controller", "unanswered");
    story.step("the controller is back");
    let begin = Instant::now();
    ringside.scale(1);
    story.took("the controller is back and injects", begin.elapsed());
}

/// Permits lie with as many pods as may leave: of those that wait for none, nobody could leave without a controller.
fn await_permits(web: &Application) {
    await_within(PATIENCE, "permits to lie with half of the pods", || {
        let metrics = web.metrics();
        let permits: f64 = metrics
            .values()
            .map(|one| one.sum("ringside_leave_permit", &[]))
            .sum();
        (permits == LIMIT as f64).then_some(())
    });
}

struct Fleet<'s> {
    story: &'s Story,
    web: &'s Application,
    namespace: &'s str,
}

impl Fleet<'_> {
    /// EAGAIN to all relays, until the limit's worth of pods has left and all others have been told, or seen, that they may not.
    fn refused(&self, when: &str, outcome: &str) {
        let Self {
            story,
            web,
            namespace,
        } = *self;
        let pods = Timeline::pods(story.cluster(), namespace);
        let names: Vec<String> = web.sidecars().into_keys().collect();
        assert_eq!(names.len(), PODS as usize);
        let stayed = |before: &BTreeMap<String, f64>| {
            let now = stayed(web, outcome);
            now.iter()
                .filter(|(pod, count)| **count > before[*pod])
                .count()
        };
        let before = self::stayed(web, outcome);

        story.step(&format!("EAGAIN to all that all relays submit, {when}"));
        let fault = Instant::now();
        self.order_all(&names, "fail-for 10m EAGAIN");
        let is_unready = |change: &Change| change.condition("Ready") == "False";
        let is_ours = |change: &Change| names.iter().any(|name| name == change.name());
        let first = pods.first(fault, PATIENCE, "a pod to leave", |change| {
            is_ours(change) && is_unready(change)
        });
        story.took(
            &format!("{when}: the first pod is NotReady"),
            first.at - fault,
        );
        let last = pods.first(fault, PATIENCE, "as many to leave as may", |change| {
            is_ours(change) && is_unready(change) && change.name() != first.name()
        });
        story.took(
            &format!("{when}: the second pod is NotReady"),
            last.at - fault,
        );
        await_within(
            PATIENCE,
            "the others to learn that they may not leave",
            || (stayed(&before) >= PODS as usize - LIMIT).then_some(()),
        );
        story.took(
            &format!("{when}: the two others wanted to leave, and stayed ({outcome})"),
            fault.elapsed(),
        );
        // What must not happen has no event.
        thread::sleep(HELD);
        let most = most_unready(&pods.changes(), &names);
        assert_eq!(most, LIMIT, "{when}");

        let end = Instant::now();
        self.order_all(&names, "stop");
        await_within(PATIENCE, "all pods to be Ready again", || {
            let pods = web.pods();
            let ready = pods.iter().filter(|pod| ringside_e2e::story::is_ready(pod));
            (ready.count() == PODS as usize).then_some(())
        });
        story.took(
            &format!("{when}: all pods are Ready again after the fault"),
            end.elapsed(),
        );
        let most = most_unready(&pods.changes(), &names);
        assert_eq!(most, LIMIT, "{when}, to the end");
        let seconds = fault.elapsed().as_secs();
        story.shown(
            &format!("{when}: most pods that were NotReady at a time in {seconds} s (of 4, maxUnreadyPercent 50)"),
            most,
        );
    }

    fn order_all(&self, names: &[String], line: &str) {
        thread::scope(|scope| {
            for name in names {
                scope.spawn(|| self.web.order(name, line));
            }
        });
    }
}

/// How often each pod wanted to leave and stayed.
fn stayed(web: &Application, outcome: &str) -> BTreeMap<String, f64> {
    let metrics = web.metrics().into_iter();
    let count = metrics.map(|(pod, metrics)| {
        let count = metrics.sum("ringside_leaves_total", &[("outcome", outcome)]);
        (pod, count)
    });
    count.collect()
}

/// The most of these pods that were NotReady at the same time, by everything that became of them.
fn most_unready(changes: &[Change], names: &[String]) -> usize {
    let mut unready = BTreeMap::new();
    let mut most = 0;
    for change in changes {
        if names.iter().any(|name| name == change.name()) {
            unready.insert(change.name(), change.condition("Ready") != "True");
            most = most.max(unready.values().filter(|unready| **unready).count());
        }
    }
    most
}
