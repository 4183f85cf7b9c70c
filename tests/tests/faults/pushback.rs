//! Pushback that passes: a few calls fail, and nobody notices but the counters.

use std::time::{Duration, Instant};

use ringside::backend::inject::{Denial, Errno, Syscalls};
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::Pattern;
use ringside_tests::{PATIENCE, namespaced};
use serde_json::json;

use crate::load::{Load, echoing};

/// The value of `submissions_total`'s label `outcome` for EAGAIN.
const EAGAIN: [(&str, &str); 1] = [("outcome", "eagain")];

/// `times` orders, each of `count` failing calls, under load; nothing may be lost, ended or left uncounted.
fn passes(errno: Errno, count: u64, times: u64) -> Relay {
    let server = echoing();
    let relay = Setup::new(Kind::Ring)
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

namespaced!(one_eagain_many_times, {
    let relay = passes(Errno::EAGAIN, 1, 50);
    assert_eq!(relay.metric("submissions_total", &EAGAIN), 50.0);
    assert_eq!(relay.metric("stalls_total", &[]), 0.0);
});

namespaced!(twenty_eagain_in_a_row, {
    let relay = passes(Errno::EAGAIN, 20, 3);
    assert_eq!(relay.metric("submissions_total", &EAGAIN), 60.0);
    assert!(relay.metric("submission_backoff_seconds_count", &[]) > 0.0);
});

namespaced!(twenty_ebusy_in_a_row, drop(passes(Errno::EBUSY, 20, 3)));

namespaced!(some_enomem, drop(passes(Errno::ENOMEM, 3, 3)));

namespaced!(a_hundred_eintr_in_a_row, drop(passes(Errno::EINTR, 100, 5)));

// With nothing else going on no other event repairs a submission that was forgotten.
namespaced!(one_eagain_with_one_quiet_client, {
    let server = echoing();
    let relay = Setup::new(Kind::Ring)
        .to(&server)
        .watched(Syscalls::Submissions)
        .start();
    let (stream, pattern) = (relay.connect(), Pattern::new(1));
    stream.ping(pattern, 0, 100).unwrap();
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
    }
    // The first failing call of a connection that is only just coming.
    relay.injector().fail_next(1, Errno::EAGAIN);
    relay.connect().ping(pattern, 0, 100).unwrap();
});

// A kernel that never takes more than a few at once: the batch has to shrink to that, and all goes on.
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
