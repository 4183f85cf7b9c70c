//! Return values that are not true, by `strace`: the head of the queue is believed, never the count alone.

use ringside_tests::namespaced;
use ringside_tests::processes::{command, installed};
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::skip::skip;

use crate::load::{Load, echoing};

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

/// Runs the relay under strace with one rule, and loads it well beyond the calls that the rule touches.
fn under(rule: &str) {
    if !can_trace(&format!("lying ({rule})")) {
        return;
    }
    let rule = format!("inject=io_uring_enter:{rule}");
    // -D: strace stays beside the relay, which keeps the process id.
    let words = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=io_uring_enter",
        "-e",
        rule.as_str(),
    ];
    let server = echoing();
    let relay = Setup::new(Kind::Ring).to(&server).under(words).start();
    let load = Load::start(&relay, 8);
    load.await_rounds(400);
    assert_eq!(load.finish(), 0, "connections were ended early");
    server.settle();
    relay.expect_closed("finished", 8);
    relay.settle();
}

// Nothing was taken, and two are said to be.
namespaced!(two_that_were_never_taken, under("retval=2:when=20..60"));

namespaced!(none_said_to_be_taken, under("retval=0:when=20..60"));

namespaced!(now_and_then_a_lie, under("retval=1:when=20+7"));

namespaced!(now_and_then_eagain, under("error=EAGAIN:when=20+5"));

namespaced!(a_few_eagain_in_a_row, under("error=EAGAIN:when=20..25"));
