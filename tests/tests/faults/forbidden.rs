//! Answers after which a ring cannot go on: the relay gives it up, counts what it lost, and serves again.

use std::time::Duration;

use ringside::backend::inject::{Errno, Syscalls};
use ringside_tests::relay::{Kind, Relay, Setup, run_on};
use ringside_tests::traffic::{Pattern, Stream};
use ringside_tests::{PATIENCE, await_some};

use serde_json::json;

use crate::load::{Load, echoing};

ringside_tests::instances! {
    everywhere: [],
    ringside: [],
    io_uring: [
        eperm_for_good,
        eperm_once,
        lost_completions,
        a_ring_in_the_wrong_state,
    ],
}

/// The ring alone: tokio-uring hides these answers, and goes on.
#[test]
fn ten_rings_given_up() {
    run_on(Kind::Ring, "forbidden::ten_rings_given_up", rings_given_up);
}

/// Resident memory that rings which follow one another may leave behind, and all else that a process comes to hold: less
/// than the pool of one of them.
const LEFT_BYTES_MOST: f64 = 1.5 * 1024.0 * 1024.0;

/// Waits until a new connection is served.
#[track_caller]
fn await_served(relay: &Relay) {
    await_some("a connection to be served again", || {
        let stream = Stream::connect(relay.address()).ok()?;
        stream.set_patience(Duration::from_secs(2)).ok()?;
        stream.ping(Pattern::new(1), 0, 10_000).ok()
    });
}

/// Calls fail with `errno`, `count` of them, under load. What was open may be lost, but counted and told.
fn rebuilds(kind: Kind, errno: Errno, count: u64) -> Relay {
    let server = echoing();
    let relay = Setup::new(kind)
        .to(&server)
        .watched(Syscalls::Submissions)
        .start();
    let load = Load::start(&relay, 16);
    relay.injector().fail_next(count, errno);
    assert!(
        relay.injector().wait_failed(1, PATIENCE).failed >= 1,
        "the relay has stopped submitting"
    );
    await_served(&relay);
    let ended = load.finish();
    relay.settle();
    if kind == Kind::TokioUring && count == 1 {
        // It never learns what a call said, and makes it again.
        assert_eq!(ended, 0, "connections were ended early");
    }
    let lost = relay.metric("connections_closed_total", &[("reason", "backend_lost")]);
    assert!(
        lost >= ended as f64,
        "{ended} clients were ended, and {lost} are counted"
    );
    assert_eq!(relay.admin("GET", "/livez").unwrap().status, 200);
    relay
}

// Forbidden for good, as by a profile or a sysctl that changed: epoll takes over, and says why.
fn eperm_for_good(kind: Kind) {
    let relay = rebuilds(kind, Errno::EPERM, u64::MAX);
    assert_eq!(relay.metric("backend_info", &[("backend", "epoll")]), 1.0);
    let metrics = relay.metrics();
    let reason = metrics
        .matching("ringside_backend_info", &[("backend", "epoll")])
        .next()
        .unwrap();
    let reason = reason.labels["reason"].to_lowercase();
    assert!(
        reason.contains("not permitted") || reason.contains("eperm"),
        "the reason is told as {reason:?}"
    );
}

fn eperm_once(kind: Kind) {
    drop(rebuilds(kind, Errno::EPERM, 1));
}

fn lost_completions(kind: Kind) {
    drop(rebuilds(kind, Errno::EBADR, 1));
}

fn a_ring_in_the_wrong_state(kind: Kind) {
    drop(rebuilds(kind, Errno::EBADFD, 1));
}

// Their pools are not left behind: what was in flight on a ring has ended before the next one serves.
fn rings_given_up(kind: Kind) {
    let server = echoing();
    let relay = Setup::new(kind)
        .to(&server)
        .settings(json!({"buffers": {"pool": "2Mi"}}))
        .watched(Syscalls::Submissions)
        .start();
    let resident = |rebuilds: f64| {
        for number in 1..=rebuilds as u64 {
            let load = Load::start(&relay, 16);
            relay.injector().fail_next(1, Errno::EBADR);
            relay.injector().wait_failed(1, PATIENCE);
            await_served(&relay);
            load.finish();
            relay.settle();
            println!(
                "{number}: {}",
                relay.metrics().sum("process_resident_memory_bytes", &[])
            );
        }
        relay.metrics().sum("process_resident_memory_bytes", &[])
    };
    let first = resident(5.0);
    let last = resident(10.0);
    assert!(relay.metric("backend_rebuilds_total", &[]) >= 15.0);
    let grown = last - first;
    assert!(
        grown < LEFT_BYTES_MOST,
        "ten rings left {grown} bytes behind"
    );
}
