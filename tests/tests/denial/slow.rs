//! Clients that take their time: connections that are held, and never quite used.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::Stream;

use crate::attackers::{Attackers, Busy, application, crowd};
use crate::trial::Attack;

ringside_tests::instances! {
    everywhere: [],
    ringside: [slow_readers, slow_writers, silent_connections, tiny_segments],
}

const CROWD: usize = 200;

/// Bytes that two attackers who send them one by one may get through while a victim waits for one answer: a receive of the
/// relay each.
const FAIR_BYTES: u64 = 64 << 10;

/// For attackers who want little through, and hold what is there.
const ANY: u64 = u64::MAX;

/// A trial by what `begin` makes of a relay with the built-in settings.
fn withstood<A: Attackers>(kind: Kind, what: &'static str, fair: u64, begin: impl Fn(&Relay) -> A) {
    let (server, passed) = application();
    let relay = Setup::new(kind).to(&server).start();
    let attack = Attack {
        kind,
        what,
        relay: &relay,
        server: &server,
        passed,
        fair,
    };
    attack.withstood(|| begin(&relay));
}

/// Has each connection in turn do something, `pause` after the one before.
fn in_turn(crowd: Vec<Stream>, pause: Duration, act: fn(&Stream)) -> Busy {
    let crowd = Arc::new(crowd);
    Busy::start(
        1,
        move |_| (Arc::clone(&crowd), 0),
        move |(crowd, next)| {
            act(&crowd[*next % crowd.len()]);
            *next += 1;
            thread::sleep(pause);
        },
    )
}

/// They ask for an endless stream and take a hundred bytes of it every 100 ms.
fn slow_readers(kind: Kind) {
    withstood(kind, "slow readers", ANY, |relay| {
        in_turn(
            crowd(relay, CROWD, b"s"),
            Duration::from_micros(500),
            |stream| {
                let mut io = stream;
                let _ = io.read(&mut [0; 100]);
            },
        )
    });
}

/// They send a byte every 100 ms.
fn slow_writers(kind: Kind) {
    withstood(kind, "slow writers", ANY, |relay| {
        in_turn(
            crowd(relay, CROWD, b"d"),
            Duration::from_micros(500),
            |stream| {
                let mut io = stream;
                let _ = io.write(&[0]);
            },
        )
    });
}

/// They are accepted and say nothing at all.
fn silent_connections(kind: Kind) {
    withstood(kind, "silent connections", ANY, |relay| {
        crowd(relay, 2 * CROWD, b"")
    });
}

/// They send bytes one by one, as fast as they can, without Nagle's delay.
fn tiny_segments(kind: Kind) {
    withstood(kind, "tiny segments", FAIR_BYTES, |relay| {
        let streams = Arc::new(Mutex::new(crowd(relay, 2, b"d")));
        Busy::start(
            2,
            move |_| {
                let taken = streams.lock().unwrap().pop();
                taken.expect("a connection for each")
            },
            |stream| {
                let mut io = &*stream;
                let _ = io.write(&[0]);
            },
        )
    });
}
