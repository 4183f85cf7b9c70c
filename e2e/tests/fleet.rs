//! The fleet's limit: however many sidecars are under pressure at once, no more take themselves out of their Services than
//! `maxUnreadyPercent` allows, with a controller, without one, and while one follows another. Real sidecars with a kernel that refuses
//! every submission, and stubbed ones beside them, at a real API server; looked at every 10 ms (`ringside_e2e::fleet::sampling`).

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringside_e2e::PATIENCE;
use ringside_e2e::apiserver::{ApiServer, Namespace};
use ringside_e2e::controller::Controller;
use ringside_e2e::definitions::installed;
use ringside_e2e::fleet::{Fleet, Kind};
use ringside_e2e::forwarder::{Forwarder, Passage};
use ringside_tests::processes::free_port;

/// Held by each test: two installations in one cluster would both write the status of every policy.
static ALONE: Mutex<()> = Mutex::new(());

/// How long a state is watched in which nothing is to change: longer than a grant (15 s), so that each is renewed or ends.
const WATCHED: Duration = Duration::from_secs(18);

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most that may be away of so many.
fn limit(pods: usize, percent: usize) -> usize {
    (pods * percent).div_ceil(100)
}

#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn apply(namespace: &Namespace<'_>, name: &str, app: &str, percent: usize) {
    let policy = format!(
        "{{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {{name: {name}}}, spec: {{podSelector: {{matchLabels: \
         {{app: {app}}}}}, readiness: {{unreadyAfter: 300ms, recoverAfter: 1s, maxUnreadyPercent: {percent}}}}}}}"
    );
    let answer = namespace.try_kubectl_with(&["apply", "-f", "-"], &policy);
    assert!(answer.status.success(), "{answer}");
}

/// The certificates that sidecars trust the controller by, as the webhook would stamp them.
fn ca(server: &ApiServer, release: &Namespace<'_>) -> String {
    let mut found = String::new();
    await_that("the controller's certificates", || {
        let path = "-o=go-template={{index .data \"ca.crt\" | base64decode}}";
        let arguments = ["-n", release.name(), "get", "secret", "ringside-controller-tls", path];
        let answer = server.try_kubectl(&arguments);
        found = answer.out;
        answer.status.success() && found.contains("BEGIN CERTIFICATE")
    });
    found
}

fn kinds(real: usize, stubbed: usize) -> Vec<Kind> {
    let mut kinds = vec![Kind::Real; real];
    kinds.resize(real + stubbed, Kind::Stubbed);
    kinds
}

/// Waits until all permits that the limit allows lie with sidecars, which needs every one of them to have called.
fn await_permits(fleet: &Fleet, prefix: &str, count: usize) {
    await_that("the permits that the limit allows", || {
        fleet.permits(prefix) == count
    });
}

/// Waits until so many are away as the limit allows, watches them for a while, and checks that there were never more since `since`.
#[track_caller]
fn watch(fleet: &Fleet, what: &str, prefix: &str, limit: usize, since: Duration) {
    await_that(&format!("{limit} of {prefix}* to be away ({what})"), || {
        fleet.away(prefix) == limit
    });
    thread::sleep(WATCHED);
    check(fleet, what, prefix, limit, since);
    assert_eq!(
        fleet.away(prefix),
        limit,
        "{what}: who is away of {prefix}* at the end"
    );
}

#[track_caller]
fn check(fleet: &Fleet, what: &str, prefix: &str, limit: usize, since: Duration) {
    let peak = fleet.sampler.peak(prefix, since);
    let (steps, gap) = fleet.sampler.steps();
    println!(
        "{what}: at most {} of {prefix}* away at once (perhaps {}), {limit} allowed; {steps} steps, at most {gap:?} apart",
        peak.certain, peak.perhaps
    );
    assert!(
        peak.certain <= limit,
        "{what}: {} were away at once, and {limit} are allowed",
        peak.certain
    );
}

/// An installation with one replica that leads, and what sidecars trust it by.
struct Installation<'a> {
    release: Namespace<'a>,
    shop: Namespace<'a>,
    controller: Controller,
    ca: String,
}

impl<'a> Installation<'a> {
    fn start(server: &'a ApiServer) -> Self {
        let (release, shop) = (server.namespace("release"), server.namespace("shop"));
        let controller = Controller::start(server, release.name(), free_port(), "one");
        await_that("the controller to lead", || controller.leads());
        let ca = ca(server, &release);
        Self {
            release,
            shop,
            controller,
            ca,
        }
    }

    fn fleet(&self, server: &ApiServer) -> Fleet {
        Fleet::new(server, &self.shop, &self.ca)
    }

    fn address(&self) -> SocketAddr {
        self.controller.tls
    }
}

#[test]
fn with_a_controller_all_along_no_more_leave_than_the_policy_allows() {
    let Some(server) = installed("with_a_controller_all_along_no_more_leave_than_the_policy_allows")
    else {
        return;
    };
    let _alone = alone();
    let here = Installation::start(server);
    apply(&here.shop, "web", "web", 20);
    let mut fleet = here.fleet(server);
    fleet.add("web", &kinds(10, 40), here.address());
    await_permits(&fleet, "web", limit(50, 20));

    let since = fleet.sampler.now();
    fleet.press(true);
    watch(&fleet, "20 % of 50", "web", limit(50, 20), since);

    // The policy changes under pressure: more may go, and then only as many as before.
    apply(&here.shop, "web", "web", 30);
    watch(&fleet, "30 % of 50", "web", limit(50, 30), since);
    apply(&here.shop, "web", "web", 10);
    await_that("those to be back that are too many", || {
        fleet.away("web") <= limit(50, 10)
    });
    let since = fleet.sampler.now();
    watch(&fleet, "10 % of 50", "web", limit(50, 10), since);

    // Pods come, and are under pressure at once; pods go, those that are away among them.
    apply(&here.shop, "web", "web", 20);
    watch(&fleet, "20 % of 50 again", "web", limit(50, 20), since);
    fleet.add("web", &kinds(0, 5), here.address());
    fleet.press(true);
    watch(&fleet, "20 % of 55", "web", limit(55, 20), since);
    let away = fleet.sampler.away();
    for name in away.iter().take(5) {
        fleet.delete(name);
    }
    let calm: Vec<String> = fleet.members.keys().cloned().collect();
    let gone = calm.iter().filter(|name| !away.contains(name)).take(10);
    gone.for_each(|name| fleet.delete(name));
    await_that("those to be back that are too many for 40", || {
        fleet.away("web") <= limit(40, 20)
    });
    check(&fleet, "pods that go", "web", limit(55, 20), since);
    let since = fleet.sampler.now();
    watch(&fleet, "20 % of 40", "web", limit(40, 20), since);

    fleet.press(false);
    await_that("all to be back", || fleet.away("web") == 0);
}

#[test]
fn without_a_controller_only_those_leave_that_hold_permits_and_another_takes_over() {
    let Some(server) =
        installed("without_a_controller_only_those_leave_that_hold_permits_and_another_takes_over")
    else {
        return;
    };
    let _alone = alone();
    let here = Installation::start(server);
    let second = Controller::start(server, here.release.name(), free_port(), "two");
    apply(&here.shop, "web", "web", 20);
    let mut fleet = here.fleet(server);
    // They are told the second one's address, which names the leader.
    fleet.add("web", &kinds(10, 40), second.tls);
    await_permits(&fleet, "web", limit(50, 20));

    // In the middle of the pushback the leader is killed, and the second one takes over: who is away stays away.
    let since = fleet.sampler.now();
    fleet.press(true);
    watch(&fleet, "before the takeover", "web", limit(50, 20), since);
    let before = fleet.sampler.away();
    here.controller.process.signal(libc::SIGKILL);
    let killed = fleet.sampler.now();
    await_that("the second replica to lead", || second.leads());
    await_that("all sidecars to call it", || {
        second
            .metric("ringside_controller_calls_open")
            .is_some_and(|open| open >= 50.0)
    });
    watch(&fleet, "after the takeover", "web", limit(50, 20), since);
    assert_eq!(
        fleet.sampler.away(),
        before,
        "a change of leader brought pods back that were away"
    );
    assert_eq!(
        fleet.sampler.departures(killed),
        before.len(),
        "a pod that was away came back and left again"
    );

    // The pressure ends, and so does the last controller; then it begins again: permits alone say who may go.
    fleet.press(false);
    await_that("all to be back", || fleet.away("web") == 0);
    await_permits(&fleet, "web", limit(50, 20));
    second.process.signal(libc::SIGKILL);
    fleet.press(true);
    watch(&fleet, "without a controller", "web", limit(50, 20), since);
    fleet.press(false);
    await_that("all to be back", || fleet.away("web") == 0);
}

#[test]
fn small_fleets_and_pods_without_a_policy_have_their_limits() {
    let Some(server) = installed("small_fleets_and_pods_without_a_policy_have_their_limits") else {
        return;
    };
    let _alone = alone();
    let here = Installation::start(server);
    let mut fleet = here.fleet(server);
    let fleets = [
        ("one", 1, 20),
        ("two", 2, 20),
        ("three", 3, 30),
        ("four", 3, 34),
        ("none", 3, 0),
        ("all", 3, 100),
    ];
    for (app, pods, percent) in fleets {
        apply(&here.shop, app, app, percent);
        fleet.add(app, &kinds(0, pods), here.address());
    }
    // These obey no policy, and share the built-in half of their namespace.
    fleet.add("free", &kinds(2, 9), here.address());
    let limits: Vec<(&str, usize)> = fleets
        .iter()
        .map(|&(app, pods, percent)| (app, limit(pods, percent)))
        .chain([("free", limit(11, 50))])
        .collect();
    assert_eq!(
        limits.iter().map(|&(_, limit)| limit).collect::<Vec<_>>(),
        [1, 1, 1, 2, 0, 3, 6]
    );
    let since = fleet.sampler.now();
    for with in ["with a controller", "without a controller"] {
        for (app, limit) in &limits {
            await_permits(&fleet, app, *limit);
        }
        if with == "without a controller" {
            here.controller.process.signal(libc::SIGKILL);
        }
        fleet.press(true);
        for (app, limit) in &limits {
            await_that("as many to be away as are allowed", || {
                fleet.away(app) == *limit
            });
        }
        thread::sleep(WATCHED);
        for (app, limit) in &limits {
            check(&fleet, with, app, *limit, since);
            assert_eq!(fleet.away(app), *limit, "{with}: who is away of {app}*");
        }
        fleet.press(false);
        await_that("all to be back", || fleet.away("") == 0);
    }
}

#[test]
fn a_network_that_is_cut_for_some_lets_nobody_else_have_their_permits() {
    let Some(server) =
        installed("a_network_that_is_cut_for_some_lets_nobody_else_have_their_permits")
    else {
        return;
    };
    let _alone = alone();
    let here = Installation::start(server);
    apply(&here.shop, "web", "web", 30);
    let mut fleet = here.fleet(server);
    let way = Forwarder::start(here.address());
    fleet.add("web-far", &kinds(2, 18), way.address());
    fleet.add("web-near", &kinds(2, 28), here.address());
    // One policy for both kinds: by name, as they differ in their labels.
    for app in ["web-far", "web-near"] {
        here.shop
            .kubectl(&["label", "pods", "-l", &format!("app={app}"), "app=web", "--overwrite"]);
    }
    await_permits(&fleet, "web", limit(50, 30));
    let since = fleet.sampler.now();

    // Silence first, then no connection at all; the pressure begins in between.
    way.set(Passage::Stalled);
    fleet.press(true);
    await_that("some to be away", || fleet.away("web") > 0);
    thread::sleep(WATCHED);
    way.set(Passage::Closed);
    thread::sleep(WATCHED);
    check(&fleet, "with a cut network", "web", limit(50, 30), since);
    assert!(fleet.away("web-near") > 0, "nobody may leave any more");

    // The way is open again: nobody has more than before, and all places are used.
    way.set(Passage::Open);
    watch(&fleet, "with all connected", "web", limit(50, 30), since);
}

#[test]
fn a_sidecar_that_leaves_without_leave_is_seen() {
    let Some(server) = installed("a_sidecar_that_leaves_without_leave_is_seen") else {
        return;
    };
    let _alone = alone();
    let here = Installation::start(server);
    apply(&here.shop, "web", "web", 20);
    let mut fleet = here.fleet(server);
    fleet.add("web", &kinds(0, 10), here.address());
    await_permits(&fleet, "web", 2);
    let lawless = fleet.members.values().find(|member| !member.has_permit());
    let lawless = lawless.and_then(|member| member.stub());
    lawless.expect("a stub without a permit").process().break_the_law();
    let since = fleet.sampler.now();
    fleet.press(true);
    await_that("the lawless one to be away beside the two", || {
        fleet.sampler.peak("web", since).certain == 3
    });
}
