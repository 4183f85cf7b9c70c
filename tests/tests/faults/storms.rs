//! Pushback that lasts: the relay sleeps through it, leaves its Service, comes back, and nothing is out of place.

use std::time::{Duration, Instant};

use ringside::backend::inject::{Errno, Syscalls};
use ringside_tests::await_that;
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::Pattern;
use serde_json::json;

use crate::load::{Load, echoing};

ringside_tests::instances! {
    everywhere: [],
    ringside: [],
    io_uring: [
        two_seconds_of_eagain,
        ten_seconds_of_eagain,
        streams_come_through_a_storm,
        clients_that_come_in_a_storm_are_served_after_it,
        many_short_storms,
        a_drain_in_a_storm_ends_at_its_limit,
        two_seconds_of_eagain_with_two_workers,
    ],
}

const CLIENTS: u64 = 24;

fn setup(kind: Kind) -> Setup {
    Setup::new(kind).watched(Syscalls::Enters).settings(json!({
        "readiness": {"unreadyAfter": "300ms", "recoverAfter": "1s"},
        "timeouts": {"drain": "2s", "drainNotice": "0s"},
    }))
}

/// All submissions fail for `time` under load, with `workers`.
fn storm(kind: Kind, time: Duration, workers: u32) {
    let server = echoing();
    let relay = setup(kind).to(&server).workers(workers).start();
    let load = Load::pings(&relay, CLIENTS);
    let log_before = relay.process().log().lines().count();

    relay.injector().fail_for(time, Errno::EAGAIN);
    let begin = Instant::now();
    await_that("the relay to be unready", || !relay.ready());
    assert!(
        begin.elapsed() < time,
        "it was unready only when the storm was over"
    );
    assert_eq!(
        relay.admin("GET", "/livez").unwrap().status,
        200,
        "pressure is not death"
    );
    assert_sleeps(kind, &relay, begin, time, workers);

    // Served again at once, ready again after a quiet time.
    let rounds = load.rounds();
    await_that("answers after the storm", || {
        load.rounds() > rounds + 2 * CLIENTS
    });
    let recovered = begin.elapsed().saturating_sub(time);
    assert!(
        recovered < Duration::from_secs(2),
        "answers came {recovered:?} after the storm only"
    );
    await_that("the relay to be ready again", || relay.ready());
    assert!(
        begin.elapsed() >= time + Duration::from_millis(900),
        "it was ready before it was quiet"
    );

    assert_eq!(load.finish(), 0, "connections were ended early");
    server.settle();
    relay.settle();
    let metric = |name, labels: &[(&str, &str)]| relay.metric(name, labels);
    let finished = metric("connections_closed_total", &[("reason", "finished")]);
    assert_eq!(finished, CLIENTS as f64);
    assert_eq!(metric("connections_closed_total", &[]), CLIENTS as f64);
    let (eagain, late) = (("outcome", "eagain"), ("outcome", "late"));
    let failed = relay.injector().counts().failed as f64;
    if kind == Kind::Ring {
        assert_eq!(metric("submissions_total", &[eagain]), failed);
    } else {
        let late = metric("submissions_total", &[late]);
        assert!(late > 0.0 && late <= failed, "{late} late, {failed} failed");
    }
    assert!(metric("stalls_total", &[]) >= 1.0);
    relay.await_metric("readiness_flips_total", &[], |flips| flips >= 2.0);
    assert_eq!(metric("accept_paused", &[]), 0.0);
    let lines = relay.process().log().lines().count() - log_before;
    assert!(lines < 40, "the storm made {lines} lines in the log");
}

/// In the middle of the storm nothing completes: the relay must wait, and try now and then.
#[track_caller]
fn assert_sleeps(kind: Kind, relay: &Relay, begin: Instant, time: Duration, workers: u32) {
    // What had been on the way has arrived by then.
    let middle = time / 4;
    await_that("the middle of the storm", || begin.elapsed() >= middle);
    let before = relay.injector().counts();
    let from = Instant::now();
    let end = || begin.elapsed() >= time * 9 / 10;
    let (cpu, ()) = relay.cpu_during(|| await_that("the storm's last moments", end));
    let (after, seconds) = (relay.injector().counts(), from.elapsed().as_secs_f64());
    let a_second = |count: u64| count as f64 / seconds / f64::from(workers);
    let tries = a_second(after.failed - before.failed);
    let enters = a_second(after.seen - before.seen);
    // tokio-uring submits whenever its thread parks, which is when it waits for its answer, and when it backs off.
    let (most_tries, most_enters) = if kind == Kind::Ring {
        (40.0, 80.0)
    } else {
        (200.0, 200.0)
    };
    assert!(
        (1.0..=most_tries).contains(&tries),
        "a worker tried {tries:.0} times a second"
    );
    // Each try is followed by a wait: about 60 in all, and by chance some more.
    assert!(
        enters <= most_enters,
        "a worker entered the kernel {enters:.0} times a second"
    );
    let share = cpu.as_secs_f64() / seconds;
    assert!(
        share < 0.1,
        "the relay used {:.0} % of a CPU while it could do nothing",
        share * 100.0
    );
}

fn two_seconds_of_eagain(kind: Kind) {
    storm(kind, Duration::from_secs(2), 1);
}

fn ten_seconds_of_eagain(kind: Kind) {
    storm(kind, Duration::from_secs(10), 1);
}

fn two_seconds_of_eagain_with_two_workers(kind: Kind) {
    storm(kind, Duration::from_secs(2), 2);
}

// Whether they are spliced and go on, or wait: streams come through whole.
fn streams_come_through_a_storm(kind: Kind) {
    let server = echoing();
    let relay = setup(kind).to(&server).start();
    let load = Load::start(&relay, 8);
    relay
        .injector()
        .fail_for(Duration::from_secs(2), Errno::EAGAIN);
    await_that("the relay to be unready", || !relay.ready());
    await_that("the relay to be ready again", || relay.ready());
    load.await_rounds(100);
    assert_eq!(load.finish(), 0, "connections were ended early");
    relay.settle();
}

// Arrivals wait in the listener's backlog, and are served when it is over.
fn clients_that_come_in_a_storm_are_served_after_it(kind: Kind) {
    let server = echoing();
    let relay = setup(kind).to(&server).start();
    let mut load = Load::start(&relay, 4);
    relay
        .injector()
        .fail_for(Duration::from_secs(2), Errno::EAGAIN);
    await_that("the relay to be unready", || !relay.ready());
    load.add(20);
    await_that("all of them at the server", || server.accepted() >= 24);
    load.await_rounds(100);
    assert_eq!(load.finish(), 0, "connections were ended early");
    relay.settle();
}

// Storm upon storm must not wear anything out.
fn many_short_storms(kind: Kind) {
    let server = echoing();
    let relay = setup(kind).to(&server).start();
    let load = Load::start(&relay, 8);
    let mut failed = 0;
    for _ in 0..20 {
        relay
            .injector()
            .fail_for(Duration::from_millis(100), Errno::EAGAIN);
        let counts = relay
            .injector()
            .wait_failed(failed + 1, Duration::from_secs(10));
        assert!(counts.failed > failed, "the relay has stopped submitting");
        load.await_rounds(16);
        failed = relay.injector().counts().failed;
    }
    assert_eq!(load.finish(), 0, "connections were ended early");
    relay.settle();
}

fn a_drain_in_a_storm_ends_at_its_limit(kind: Kind) {
    let server = echoing();
    let mut relay = setup(kind).to(&server).start();
    let (stream, pattern) = (relay.connect(), Pattern::new(1));
    stream.ping(pattern, 0, 100).unwrap();
    relay
        .injector()
        .fail_for(Duration::from_secs(60), Errno::EAGAIN);
    stream.send(pattern, 100, 200, 100).unwrap();
    await_that("a failed submission", || {
        relay.injector().counts().failed > 0
    });
    let begin = Instant::now();
    relay.process().signal(libc::SIGTERM);
    assert_eq!(relay.process_mut().await_end().code(), Some(0));
    let took = begin.elapsed();
    assert!(
        took < Duration::from_secs(8),
        "a drain with a limit of 2 s took {took:?}"
    );
    stream.await_gone().unwrap();
}
