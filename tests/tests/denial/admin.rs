//! The admin port under a flood: relaying goes on as before, and what its clients can cost is bounded.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringside_tests::await_that;
use ringside_tests::http;
use ringside_tests::relay::{Kind, Relay, Setup};

use crate::attackers::{Attackers, Busy, Passed, application};
use crate::trial::Attack;

ringside_tests::instances! {
    everywhere: [],
    ringside: [requests_to_the_admin_port, idle_connections_to_the_admin_port, heads_without_an_end],
}

/// What the admin port keeps open at most, with some to spare for those that are just closing.
const CONNECTIONS_MOST: usize = 64 + 8;

/// What a flood may leave the process with, in KiB.
const GROWTH_MOST_KIB: u64 = 8 << 10;

/// Resident memory, in KiB.
fn resident(relay: &Relay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", relay.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    kib.unwrap().parse().unwrap()
}

/// A trial by what `begin` makes of the admin port. After it the process is what it was.
fn withstood<A: Attackers>(
    kind: Kind,
    what: &'static str,
    begin: impl Fn(&Relay, SocketAddr) -> A,
) {
    let (server, _) = application();
    let relay = Setup::new(kind).to(&server).start();
    let attack = Attack {
        kind,
        what,
        relay: &relay,
        server: &server,
        passed: Passed::default(),
        fair: 0,
    };
    relay.metrics();
    let (descriptors, memory) = (relay.process().descriptors(), resident(&relay));
    attack.withstood(|| begin(&relay, relay.admin_address()));
    await_that("the admin port's connections to end", || {
        relay.process().descriptors() <= descriptors + 4
    });
    let grown = resident(&relay).saturating_sub(memory);
    assert!(
        grown <= GROWTH_MOST_KIB,
        "the flood left {grown} KiB behind"
    );
}

fn requests_to_the_admin_port(kind: Kind) {
    withstood(kind, "requests to the admin port", |_, admin| {
        Busy::start(
            4,
            |number| ["/metrics", "/statusz", "/", "/config"][number as usize],
            move |path| {
                // One that had to make room for others is answered by a reset.
                if let Ok(answer) = http::get(admin, path) {
                    assert_eq!(answer.status, 200);
                }
            },
        )
    });
}

fn idle_connections_to_the_admin_port(kind: Kind) {
    withstood(
        kind,
        "idle connections to the admin port",
        |relay, admin| {
            let descriptors = relay.process().descriptors();
            let idle: Vec<TcpStream> = (0..500)
                .map(|_| TcpStream::connect(admin).unwrap())
                .collect();
            // A probe comes through them, and the oldest make room.
            assert!(relay.ready());
            assert_eq!(relay.admin("GET", "/livez").unwrap().status, 200);
            let open = relay.process().descriptors().saturating_sub(descriptors);
            assert!(
                open <= CONNECTIONS_MOST + 16,
                "{open} descriptors for idle connections"
            );
            idle
        },
    );
}

/// Requests that never end: the head goes on until it is too long or too late.
fn heads_without_an_end(kind: Kind) {
    withstood(kind, "heads without an end", |_, admin| {
        let connect = move || {
            let stream = TcpStream::connect(admin).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            stream
        };
        Busy::start(
            2,
            move |_| connect(),
            move |stream| {
                let line = [b'a'; 1000];
                let goes_on = stream.write_all(&line).is_ok()
                    && match stream.read(&mut [0; 4096]) {
                        Ok(got) => got == 0,
                        Err(error) => error.kind() == ErrorKind::WouldBlock,
                    };
                if !goes_on {
                    *stream = connect();
                }
            },
        )
    });
}
