//! The kernel really has no memory for the relay, and nothing is injected: a limit just above what it uses, and then a
//! crowd. Those who are there lose nothing, and all is well once the limit is lifted.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use ringside_tests::await_that;
use ringside_tests::cgroup::MemoryGroup;
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::skip::skip;
use ringside_tests::traffic::{Pattern, Stream};

use crate::load::{Load, echoing};

ringside_tests::instances! {
    everywhere: [],
    ringside: [a_crowd_while_the_kernel_has_no_memory],
}

/// What the limit leaves above what is in use.
const SPARE_BYTES: u64 = 200 << 10;

/// How long the limit holds once memory was refused.
const SHORTAGE: Duration = Duration::from_secs(2);

/// Clients that are there before, and keep transferring.
const RESIDENTS: u64 = 20;

const CROWD: usize = 300;

fn a_crowd_while_the_kernel_has_no_memory(kind: Kind) {
    let test = "a_crowd_while_the_kernel_has_no_memory";
    let group = match MemoryGroup::new(&format!("memory-{kind:?}")) {
        Ok(group) => group,
        Err(reason) => return skip(test, &reason),
    };
    let server = echoing();
    let relay = Setup::new(kind)
        .to(&server)
        .under(group.start_inside())
        .start();
    let residents = Load::start(&relay, RESIDENTS);

    group.limit(Some(group.usage() + SPARE_BYTES));
    let crowd: Vec<Stream> = (0..CROWD).map(|_| relay.connect()).collect();
    // Some may have been turned away by now, and are told of it only once.
    let asked: Vec<bool> = (0..)
        .zip(&crowd)
        .map(|(seed, stream)| stream.send(Pattern::new(seed), 0, 64, 64).is_ok())
        .collect();
    await_that("the kernel to refuse memory", || group.refusals() > 0);
    // What goes on under the shortage has no event of its own.
    let before = residents.rounds();
    thread::sleep(SHORTAGE);
    let rounds = residents.rounds() - before;
    let refusals = group.refusals();
    group.limit(None);

    // Nobody who was there was ended, or lost a byte; they go on at once.
    residents.await_rounds(RESIDENTS * 10);
    let served = crowd
        .iter()
        .enumerate()
        .filter(|(seed, stream)| asked[*seed] && was_served(*seed as u64, stream))
        .count();
    // Whoever comes now has answers.
    for seed in 0..50 {
        let (stream, pattern) = (relay.connect(), Pattern::new(seed));
        stream
            .exchange(pattern, pattern, 0..1 << 20, 1 << 16)
            .unwrap();
    }

    tell(kind, &relay, (refusals, rounds), served);
    drop(crowd);
    assert_eq!(residents.finish(), 0, "residents were ended early");
    server.settle();
    relay.settle();
    assert_eq!(relay.metric("backend_rebuilds_total", &[]), 0.0);
}

/// An answer or a reset, and nothing in between.
fn was_served(seed: u64, mut stream: &Stream) -> bool {
    let mut came = [0; 64];
    match stream.read_exact(&mut came) {
        Ok(()) => {
            let right = Pattern::new(seed).check(0, &came);
            right.unwrap_or_else(|mismatch| panic!("one of the crowd, {seed}: {mismatch}"));
            true
        }
        Err(error) => {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "one of the crowd, {seed}: {error}"
            );
            false
        }
    }
}

/// Prints what the shortage looked like to the relay. How much of it met io_uring differs from run to run: where a page of
/// the program's own is refused the whole worker waits, and submissions have their memory from the start.
fn tell(kind: Kind, relay: &Relay, (refusals, rounds): (u64, u64), served: usize) {
    let metrics = relay.metrics();
    let mut said = format!(
        "{kind:?}: memory refused {refusals} times, {rounds} rounds of the residents meanwhile, {served} of {CROWD} served;"
    );
    for name in [
        "submissions_total",
        "kernel_retries_total",
        "accept_pauses_total",
        "connections_closed_total",
    ] {
        for sample in metrics.matching(&format!("ringside_{name}"), &[]) {
            let label = ["outcome", "reason"]
                .iter()
                .find_map(|key| sample.labels.get(*key));
            let label = label.map_or("", String::as_str);
            if sample.value > 0.0 && !["all", "nothing", "finished"].contains(&label) {
                said += &format!(" {name} {label} {},", sample.value);
            }
        }
    }
    let _ = std::io::stderr().write_all(format!("{said}\n").as_bytes());
}
