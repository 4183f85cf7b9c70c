//! Return values that are not true, by `strace`: the head of the queue is believed, never the count alone.

use std::time::Duration;

use ringside_tests::processes::{command, installed};
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::skip::skip;
use ringside_tests::traffic::Pattern;

use crate::load::{Load, echoing};

ringside_tests::instances! {
    everywhere: [],
    ringside: [],
    io_uring: [
        two_that_were_never_taken,
        none_said_to_be_taken,
        now_and_then_a_lie,
        now_and_then_eagain,
        a_few_eagain_in_a_row,
        a_wait_that_is_forbidden,
    ],
}

/// Whether strace is there and may trace.
fn can_trace(test: &str) -> bool {
    if !installed(test, &["strace"]) {
        return false;
    }
    let tried = command("strace").args(["-o", "/dev/null", "true"]).status();
    let may = tried.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !may {
        skip(test, &format!("strace may not trace here: {tried:?}"));
    }
    may
}

/// The words that run a relay under strace with one rule for `io_uring_enter`, waits included.
fn strace(rule: &str) -> Vec<String> {
    // -D: strace stays beside the relay, which keeps the process id.
    let words = "strace -D -f -qq -o /dev/null -e trace=io_uring_enter -e";
    let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    words.push(format!("inject=io_uring_enter:{rule}"));
    words
}

/// Runs the relay under strace with one rule, and loads it well beyond the calls that the rule touches.
fn under(kind: Kind, rule: &str) {
    if !can_trace(&format!("lying ({rule})")) {
        return;
    }
    let server = echoing();
    let setup = Setup::new(kind).to(&server);
    let relay = setup.under(strace(rule)).start();
    let load = Load::start(&relay, 8);
    load.await_rounds(400);
    assert_eq!(load.finish(), 0, "connections were ended early");
    server.settle();
    relay.expect_closed("finished", 8);
    relay.settle();
}

// Nothing was taken, and two are said to be.
fn two_that_were_never_taken(kind: Kind) {
    under(kind, "retval=2:when=20..60");
}

fn none_said_to_be_taken(kind: Kind) {
    under(kind, "retval=0:when=20..60");
}

fn now_and_then_a_lie(kind: Kind) {
    under(kind, "retval=1:when=20+7");
}

fn now_and_then_eagain(kind: Kind) {
    under(kind, "error=EAGAIN:when=20+5");
}

fn a_few_eagain_in_a_row(kind: Kind) {
    under(kind, "error=EAGAIN:when=20..25");
}

// Not even waiting is allowed any more, and nothing is queued: no spin, and epoll takes over.
fn a_wait_that_is_forbidden(kind: Kind) {
    let rule = "error=EPERM:when=200+";
    if !can_trace("a_wait_that_is_forbidden") {
        return;
    }
    let server = echoing();
    let setup = Setup::new(kind).to(&server);
    let relay = setup.under(strace(rule)).start();
    // Pings bring it to its 200th call; who is on it then is lost.
    for round in 0..100 {
        if let Ok(stream) = ringside_tests::traffic::Stream::connect(relay.address()) {
            let _ = stream.ping(Pattern::new(round), 0, 64);
        }
    }
    relay.await_metric("backend_info", &[("backend", "epoll")], |value| {
        value == 1.0
    });
    relay.connect().ping(Pattern::new(1), 0, 64).unwrap();
    // Nothing happens in this second, which is what is looked at.
    let idle = || std::thread::sleep(Duration::from_secs(1));
    let (cpu, ()) = relay.cpu_during(idle);
    assert!(
        cpu < Duration::from_millis(300),
        "{cpu:?} of a second, idle"
    );
}
