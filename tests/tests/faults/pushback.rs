//! Pushback that passes: a few calls fail, and nobody notices but the counters.

use std::time::{Duration, Instant};

use ringside::backend::inject::{Denial, Errno, Syscalls};
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::Pattern;
use ringside_tests::{PATIENCE, namespaced};
use serde_json::json;

use crate::load::{Load, echoing};

ringside_tests::instances! {
    everywhere: [],
    ringside: [],
    io_uring: [
        one_eagain_many_times,
        twenty_eagain_in_a_row,
        twenty_ebusy_in_a_row,
        some_enomem,
        a_hundred_eintr_in_a_row,
        one_eagain_with_one_quiet_client,
    ],
}

/// The value of `submissions_total`'s label `outcome` for EAGAIN.
const EAGAIN: [(&str, &str); 1] = [("outcome", "eagain")];

/// The same for what a backend cannot see the reason of.
const LATE: [(&str, &str); 1] = [("outcome", "late")];

/// `times` orders, each of `count` failing calls, under load; nothing may be lost, ended or left uncounted.
fn passes(kind: Kind, errno: Errno, count: u64, times: u64) -> Relay {
    let server = echoing();
    let relay = Setup::new(kind)
        .to(&server)
        .watched(Syscalls::Submissions)
        .start();
    let load = Load::start(&relay, 16);
    for order in 1..=times {
        relay.injector().fail_next(count, errno);
        let counts = relay.injector().wait_failed(order * count, PATIENCE);
        assert_eq!(
            counts.failed,
            order * count,
            "the relay has stopped submitting"
        );
        load.await_rounds(20);
    }
    assert_eq!(load.finish(), 0, "connections were ended early");
    server.settle();
    relay.expect_closed("finished", 16);
    relay.settle();
    relay
}

fn one_eagain_many_times(kind: Kind) {
    let relay = passes(kind, Errno::EAGAIN, 1, 50);
    if kind == Kind::Ring {
        // tokio-uring does not see one: it submits again when its thread is next woken, mostly before it counts as late.
        assert_eq!(relay.metric("submissions_total", &EAGAIN), 50.0);
    }
    assert_eq!(relay.metric("stalls_total", &[]), 0.0);
}

fn twenty_eagain_in_a_row(kind: Kind) {
    let relay = passes(kind, Errno::EAGAIN, 20, 3);
    if kind == Kind::Ring {
        assert_eq!(relay.metric("submissions_total", &EAGAIN), 60.0);
    } else {
        assert!(relay.metric("submissions_total", &LATE) > 0.0);
    }
    assert!(relay.metric("submission_backoff_seconds_count", &[]) > 0.0);
}

fn twenty_ebusy_in_a_row(kind: Kind) {
    drop(passes(kind, Errno::EBUSY, 20, 3));
}

fn some_enomem(kind: Kind) {
    drop(passes(kind, Errno::ENOMEM, 3, 3));
}

fn a_hundred_eintr_in_a_row(kind: Kind) {
    drop(passes(kind, Errno::EINTR, 100, 5));
}

// With nothing else going on no other event repairs a submission that was forgotten.
fn one_eagain_with_one_quiet_client(kind: Kind) {
    let server = echoing();
    let relay = Setup::new(kind)
        .to(&server)
        .watched(Syscalls::Submissions)
        .start();
    let (stream, pattern) = (relay.connect(), Pattern::new(1));
    stream.ping(pattern, 0, 100).unwrap();
    let mut times = Vec::new();
    for round in 1..=50_u64 {
        relay.injector().fail_next(1, Errno::EAGAIN);
        let begin = Instant::now();
        stream
            .ping(pattern, round * 100, round * 100 + 100)
            .unwrap();
        let took = begin.elapsed();
        assert!(
            took < Duration::from_millis(500),
            "ping {round} took {took:?}"
        );
        times.push(took);
    }
    // Within the longest backoff, which is 50 ms by default; the median, as a busy machine adds to some.
    times.sort();
    assert!(times[25] < Duration::from_millis(50), "{times:?}");
    // The first failing call of a connection that is only just coming.
    relay.injector().fail_next(1, Errno::EAGAIN);
    relay.connect().ping(pattern, 0, 100).unwrap();
}

// A kernel that never takes more than a few at once: the batch has to shrink to that, and all goes on. Not asked of
// tokio-uring, which offers all that is queued in each call; a kernel that is short of memory takes what it can of it.
namespaced!(small_batches_only, {
    const MOST: u32 = 16;
    let server = echoing();
    let relay = Setup::new(Kind::Ring)
        .to(&server)
        .settings(json!({"batch": {"min": 4}}))
        .denied(Denial::SubmitsAbove(MOST, Errno::EAGAIN))
        .start();
    let load = Load::start(&relay, 100);
    load.await_rounds(2000);
    assert_eq!(load.finish(), 0, "connections were ended early");
    assert!(
        relay.metric("submissions_total", &EAGAIN) > 0.0,
        "a hundred clients never made a batch above {MOST}"
    );
    relay.expect_closed("finished", 100);
    relay.settle();
});
