//! Clients that take their time: connections that are held, and never quite used.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ringside_tests::relay::Kind;
use ringside_tests::traffic::Stream;

use crate::attackers::{Busy, application, crowd, relay};
use crate::victims::{alone, compare};

ringside_tests::instances! {
    everywhere: [],
    ringside: [slow_readers, slow_writers, silent_connections, tiny_segments],
}

const CROWD: usize = 200;

/// As many as a pool of 8 MiB has room for. Twice as many that still take a little now and then hold all of it on the ring,
/// and the others wait until one of them is shed.
const READERS: usize = 100;

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
    alone(|| {
        let server = application();
        let relay = relay(kind).to(&server).start();
        compare(kind, "slow readers", &relay, || {
            in_turn(
                crowd(&relay, &server, READERS, b"s"),
                Duration::from_micros(500),
                |stream| {
                    let mut io = stream;
                    let _ = io.read(&mut [0; 100]);
                },
            )
        });
    });
}

/// They send a byte every 100 ms.
fn slow_writers(kind: Kind) {
    alone(|| {
        let server = application();
        let relay = relay(kind).to(&server).start();
        compare(kind, "slow writers", &relay, || {
            in_turn(
                crowd(&relay, &server, CROWD, b"d"),
                Duration::from_micros(500),
                |stream| {
                    let mut io = stream;
                    let _ = io.write(&[0]);
                },
            )
        });
    });
}

/// They are accepted and say nothing at all.
fn silent_connections(kind: Kind) {
    alone(|| {
        let server = application();
        let relay = relay(kind).to(&server).start();
        compare(kind, "silent connections", &relay, || {
            crowd(&relay, &server, 2 * CROWD, b"")
        });
    });
}

/// They send bytes one by one, as fast as they can, without Nagle's delay.
fn tiny_segments(kind: Kind) {
    alone(|| {
        let server = application();
        let relay = relay(kind).to(&server).start();
        compare(kind, "tiny segments", &relay, || {
            let streams = Mutex::new(crowd(&relay, &server, 2, b"d"));
            let streams = Arc::new(streams);
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
    });
}
