//! Answers after which a ring cannot go on: the relay gives it up, counts what it lost, and serves again.

use std::time::Duration;

use ringside::backend::inject::{Errno, Syscalls};
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::{Pattern, Stream};
use ringside_tests::{PATIENCE, await_some, namespaced};

use crate::load::{Load, echoing};

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
fn rebuilds(errno: Errno, count: u64) -> Relay {
    let server = echoing();
    let relay = Setup::new(Kind::Ring)
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
    let lost = relay.metric("connections_closed_total", &[("reason", "backend_lost")]);
    assert!(
        lost >= ended as f64,
        "{ended} clients were ended, and {lost} are counted"
    );
    assert_eq!(relay.admin("GET", "/livez").unwrap().status, 200);
    relay
}

// Forbidden for good, as by a profile or a sysctl that changed: epoll takes over, and says why.
namespaced!(eperm_for_good, {
    let relay = rebuilds(Errno::EPERM, u64::MAX);
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
});

namespaced!(eperm_once, drop(rebuilds(Errno::EPERM, 1)));

namespaced!(lost_completions, drop(rebuilds(Errno::EBADR, 1)));

namespaced!(a_ring_in_the_wrong_state, drop(rebuilds(Errno::EBADFD, 1)));
