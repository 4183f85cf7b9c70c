//! The fleet's limit: however many sidecars are under pressure at once, no more take themselves out of their Services than
//! `maxUnreadyPercent` allows, with a controller, without one, and while one follows another. Real sidecars with a kernel that refuses
//! every submission, and stubbed ones beside them, at a real API server; looked at every 10 ms (`ringside_e2e::fleet::sampling`).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::await_that;
use ringside_e2e::definitions::installed;
use ringside_e2e::fleet::{Fleet, Kind};
use ringside_e2e::forwarder::{Forwarder, Passage};
use ringside_e2e::installation::Controller;
use ringside_e2e::running::Running;

/// Held by each test: two installations in one cluster would both write the status of every policy.
static ALONE: Mutex<()> = Mutex::new(());

/// How long a state is watched in which nothing is to change: longer than the time (7.5 s) after which grants are renewed.
const WATCHED: Duration = Duration::from_secs(9);

/// The same for a state that a later one begins with.
const BRIEFLY: Duration = Duration::from_secs(2);

/// The same where nobody can renew them: longer than a grant (15 s).
const WATCHED_LONG: Duration = Duration::from_secs(17);

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most that may be away of so many.
fn limit(pods: usize, percent: usize) -> usize {
    (pods * percent).div_ceil(100)
}

fn apply(namespace: &Namespace<'_>, name: &str, app: &str, percent: usize) {
    let policy = format!(
        "{{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {{name: {name}}}, spec: {{podSelector: {{matchLabels: \
         {{app: {app}}}}}, readiness: {{unreadyAfter: 300ms, recoverAfter: 1s, maxUnreadyPercent: {percent}}}}}}}"
    );
    let answer = namespace.try_kubectl_with(&["apply", "-f", "-"], &policy);
    assert!(answer.status.success(), "{answer}");
}

fn kinds(real: usize, stubbed: usize) -> Vec<Kind> {
    let mut kinds = vec![Kind::Real; real];
    kinds.resize(real + stubbed, Kind::Stubbed);
    kinds
}

/// Waits until all permits that the limit allows lie with sidecars, which needs every one of them to have called.
fn await_permits(fleet: &Fleet, prefix: &str, count: usize) {
    await_that("the permits that the limit allows", || {
        fleet.permits(prefix).len() == count
    });
}

/// Kills the controller; returns who holds a permit then. One may just have been on its way from a sidecar to another, and is
/// nobody's for good.
fn kill(fleet: &Fleet, controller: &Controller) -> Vec<String> {
    controller.process.signal(libc::SIGKILL);
    let mut holders = fleet.permits("");
    await_that("the last answers to be taken", || {
        thread::sleep(Duration::from_secs(1));
        let before = std::mem::replace(&mut holders, fleet.permits(""));
        before == holders
    });
    println!(
        "{} hold a permit as the controller is killed",
        holders.len()
    );
    holders
}

/// How many of them have a name that begins so.
fn of(holders: &[String], prefix: &str) -> usize {
    let some = holders.iter().filter(|name| name.starts_with(prefix));
    some.count()
}

/// Waits until so many are away as the limit allows, watches them for a while, and checks that there were never more since `since`.
#[track_caller]
fn watch(fleet: &Fleet, what: &str, prefix: &str, limit: usize, since: Duration) {
    watch_for(WATCHED, fleet, what, prefix, limit, since);
}

#[track_caller]
fn watch_for(
    time: Duration,
    fleet: &Fleet,
    what: &str,
    prefix: &str,
    limit: usize,
    since: Duration,
) {
    await_that(&format!("{limit} of {prefix}* to be away ({what})"), || {
        fleet.away(prefix) == limit
    });
    thread::sleep(time);
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

#[test]
fn with_a_controller_all_along_no_more_leave_than_the_policy_allows() {
    let Some(server) =
        installed("with_a_controller_all_along_no_more_leave_than_the_policy_allows")
    else {
        return;
    };
    let _alone = alone();
    let here = Running::start(server);
    apply(&here.shop, "web", "web", 20);
    let mut fleet = Fleet::new(server, &here.shop, &here.ca);
    fleet.add("web", &kinds(10, 40), here.controller.tls);
    await_permits(&fleet, "web", limit(50, 20));

    let since = fleet.sampler.now();
    fleet.press(true);
    watch(&fleet, "20 % of 50", "web", limit(50, 20), since);

    // The policy changes under pressure: more may go, and then only as many as before.
    apply(&here.shop, "web", "web", 30);
    watch_for(BRIEFLY, &fleet, "30 % of 50", "web", limit(50, 30), since);
    apply(&here.shop, "web", "web", 10);
    await_that("those to be back that are too many", || {
        fleet.away("web") <= limit(50, 10)
    });
    let since = fleet.sampler.now();
    watch_for(BRIEFLY, &fleet, "10 % of 50", "web", limit(50, 10), since);

    // Pods come, and are under pressure at once; pods go, those that are away among them.
    apply(&here.shop, "web", "web", 20);
    watch_for(
        BRIEFLY,
        &fleet,
        "20 % of 50 again",
        "web",
        limit(50, 20),
        since,
    );
    fleet.add("web", &kinds(0, 5), here.controller.tls);
    fleet.press(true);
    watch_for(BRIEFLY, &fleet, "20 % of 55", "web", limit(55, 20), since);
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
    let here = Running::start(server);
    let second = here.installation.start("two");
    apply(&here.shop, "web", "web", 20);
    let mut fleet = Fleet::new(server, &here.shop, &here.ca);
    // They are told the second one's address, which names the leader.
    fleet.add("web", &kinds(10, 40), second.tls);
    await_permits(&fleet, "web", limit(50, 20));

    // In the middle of the pushback the leader is killed, and the second one takes over: who is away stays away.
    let since = fleet.sampler.now();
    fleet.press(true);
    watch_for(
        BRIEFLY,
        &fleet,
        "before the takeover",
        "web",
        limit(50, 20),
        since,
    );
    let before = fleet.sampler.away();
    here.controller.process.signal(libc::SIGKILL);
    let killed = fleet.sampler.now();
    await_that("the second replica to lead", || second.leads());
    await_that("all sidecars to call it", || {
        let known = [
            ("policy_namespace", here.shop.name()),
            ("state", "programmed"),
        ];
        let metrics = second.metrics();
        metrics
            .is_some_and(|metrics| metrics.sum("ringside_controller_policy_pods", &known) == 50.0)
    });
    watch(&fleet, "after the takeover", "web", limit(50, 20), since);
    assert_eq!(
        fleet.sampler.away(),
        before,
        "a change of leader brought pods back that were away"
    );
    assert_eq!(
        fleet.sampler.departures(killed),
        0,
        "a pod that was away came back and left again"
    );

    // The pressure ends, and so does the last controller; then it begins again: permits alone say who may go.
    fleet.press(false);
    await_that("all to be back", || fleet.away("web") == 0);
    await_permits(&fleet, "web", limit(50, 20));
    let holders = kill(&fleet, &second);
    fleet.press(true);
    let what = "without a controller";
    await_that("those with permits to be away", || {
        fleet.sampler.away() == holders
    });
    thread::sleep(WATCHED_LONG);
    check(&fleet, what, "web", limit(50, 20), since);
    assert_eq!(fleet.sampler.away(), holders, "who is away, and who may be");
    assert!(holders.len() <= limit(50, 20) && !holders.is_empty());
    fleet.press(false);
    await_that("all to be back", || fleet.away("web") == 0);
}

#[test]
fn small_fleets_and_pods_without_a_policy_have_their_limits() {
    let Some(server) = installed("small_fleets_and_pods_without_a_policy_have_their_limits") else {
        return;
    };
    let _alone = alone();
    let here = Running::start(server);
    let mut fleet = Fleet::new(server, &here.shop, &here.ca);
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
        fleet.add(app, &kinds(0, pods), here.controller.tls);
    }
    // These obey no policy, and share the built-in half of their namespace.
    fleet.add("free", &kinds(2, 9), here.controller.tls);
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
        let mut awaited = limits.clone();
        for (app, limit) in &limits {
            await_permits(&fleet, app, *limit);
        }
        if with == "without a controller" {
            let holders = kill(&fleet, &here.controller);
            for (app, count) in &mut awaited {
                *count = of(&holders, app);
            }
        }
        fleet.press(true);
        for (app, count) in &awaited {
            await_that("as many to be away as may", || fleet.away(app) == *count);
        }
        thread::sleep(WATCHED_LONG);
        for ((app, limit), (_, count)) in limits.iter().zip(&awaited) {
            check(&fleet, with, app, *limit, since);
            assert_eq!(fleet.away(app), *count, "{with}: who is away of {app}*");
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
    let here = Running::start(server);
    apply(&here.shop, "web", "web", 30);
    let mut fleet = Fleet::new(server, &here.shop, &here.ca);
    let way = Forwarder::start(here.controller.tls);
    fleet.add("web-far", &kinds(2, 18), way.address());
    fleet.add("web-near", &kinds(2, 28), here.controller.tls);
    // One policy for both kinds: by name, as they differ in their labels.
    for app in ["web-far", "web-near"] {
        here.shop.kubectl(&[
            "label",
            "pods",
            "-l",
            &format!("app={app}"),
            "app=web",
            "--overwrite",
        ]);
    }
    await_permits(&fleet, "web", limit(50, 30));
    let since = fleet.sampler.now();

    // Silence first, then no connection at all; the pressure begins in between.
    way.set(Passage::Stalled);
    fleet.press(true);
    await_that("some to be away", || fleet.away("web") > 0);
    thread::sleep(WATCHED);
    way.set(Passage::Closed);
    thread::sleep(WATCHED_LONG);
    check(&fleet, "with a cut network", "web", limit(50, 30), since);

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
    let here = Running::start(server);
    apply(&here.shop, "web", "web", 20);
    let mut fleet = Fleet::new(server, &here.shop, &here.ca);
    fleet.add("web", &kinds(0, 10), here.controller.tls);
    await_permits(&fleet, "web", 2);
    // More than the limit by themselves: beside one alone, the controller calls another one back.
    let lawless = fleet
        .members
        .values()
        .filter(|member| !member.has_permit())
        .take(3);
    lawless.for_each(|member| member.stub().expect("a stub").process().break_the_law());
    let since = fleet.sampler.now();
    fleet.press(true);
    await_that("more to be away than are allowed", || {
        fleet.sampler.peak("web", since).certain > 2
    });
}
