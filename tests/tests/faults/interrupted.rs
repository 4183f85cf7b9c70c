//! Signals: every wait may end early, and it means nothing.

use std::time::Duration;

use ringside::backend::inject::{Errno, Syscalls};
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::traffic::Pattern;

use crate::load::{Load, echoing};

ringside_tests::instances! {
    everywhere: [stopped_and_continued_all_the_time],
    ringside: [signals_without_a_meaning],
    io_uring: [two_seconds_of_eintr],
}

/// Stopping and going on interrupts every system call that waits, without a handler.
fn stopped_and_continued_all_the_time(kind: Kind) {
    let server = echoing();
    let relay = Setup::new(kind).to(&server).workers(2).start();
    let load = Load::start(&relay, 12);
    for round in 0..300 {
        relay.process().signal(libc::SIGSTOP);
        relay.process().signal(libc::SIGCONT);
        if round % 10 == 0 {
            load.await_rounds(1);
        }
    }
    load.await_rounds(50);
    assert_eq!(load.finish(), 0, "connections were ended early");
    server.settle();
    relay.expect_closed("finished", 12);
    relay.settle();
}

/// A window's size and a child's end are nothing to a relay. Others, whose default is to end a process, are.
fn signals_without_a_meaning(kind: Kind) {
    let server = echoing();
    let relay = Setup::new(kind).to(&server).start();
    let load = Load::start(&relay, 8);
    for _ in 0..2000 {
        for signal in [libc::SIGWINCH, libc::SIGCHLD, libc::SIGURG, libc::SIGCONT] {
            relay.process().signal(signal);
        }
    }
    load.await_rounds(50);
    assert_eq!(load.finish(), 0, "connections were ended early");
    relay.settle();
}

// Calls that are interrupted again and again are waited out, not repeated as fast as they fail.
fn two_seconds_of_eintr(kind: Kind) {
    let server = echoing();
    let setup = Setup::new(kind).to(&server);
    let relay = setup.watched(Syscalls::Submissions).start();
    let stream = relay.connect();
    stream.ping(Pattern::new(1), 0, 64).unwrap();
    relay
        .injector()
        .fail_for(Duration::from_secs(2), Errno::EINTR);
    // Answered once the storm is over.
    stream.ping(Pattern::new(1), 64, 128).unwrap();
    let failed = relay.injector().counts().failed;
    // Several for each try with tokio-uring, which submits whenever its thread parks.
    let most = if kind == Kind::Ring { 200 } else { 500 };
    assert!(
        (10..most).contains(&failed),
        "{failed} calls in two seconds"
    );
    relay.await_metric("readiness_flips_total", &[], |flips| flips >= 1.0);
}
