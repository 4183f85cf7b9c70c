//! The admin port under a flood: relaying goes on as before, and what its clients can cost is bounded.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ringside_tests::await_that;
use ringside_tests::http;
use ringside_tests::relay::{Kind, Relay};

use crate::attackers::{Busy, application, relay};
use crate::victims::{alone, compare};

ringside_tests::instances! {
    everywhere: [],
    ringside: [requests_to_the_admin_port, idle_connections_to_the_admin_port, heads_without_an_end],
}

/// What the admin port keeps open at most, with some to spare for those that are just closing.
const CONNECTIONS_MOST: usize = 64 + 8;

/// What a flood may leave the process with, in KiB.
const GROWTH_MOST_KIB: u64 = 8 << 10;

fn admin_address(relay: &Relay) -> SocketAddr {
    let file = relay.process().folder().join("admin-port");
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Resident memory, in KiB.
fn resident(relay: &Relay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", relay.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    kib.unwrap().parse().unwrap()
}

/// After the flood the process is what it was, and before that it never had more connections than it may.
fn bounded(relay: &Relay, flood: impl FnOnce()) {
    relay.metrics();
    let (descriptors, memory) = (relay.process().descriptors(), resident(relay));
    flood();
    await_that("the admin port's connections to end", || {
        relay.process().descriptors() <= descriptors + 4
    });
    let grown = resident(relay).saturating_sub(memory);
    assert!(
        grown <= GROWTH_MOST_KIB,
        "the flood left {grown} KiB behind"
    );
}

fn requests_to_the_admin_port(kind: Kind) {
    alone(|| {
        let server = application();
        let relay = relay(kind).to(&server).start();
        let admin = admin_address(&relay);
        bounded(&relay, || {
            compare(kind, "requests to the admin port", &relay, || {
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
        });
    });
}

fn idle_connections_to_the_admin_port(kind: Kind) {
    alone(|| {
        let server = application();
        let relay = relay(kind).to(&server).start();
        let admin = admin_address(&relay);
        let descriptors = relay.process().descriptors();
        bounded(&relay, || {
            compare(kind, "idle connections to the admin port", &relay, || {
                let idle: Vec<TcpStream> = (0..500)
                    .map(|_| TcpStream::connect(admin).unwrap())
                    .collect();
                // A probe comes through them, and the oldest make room.
                assert!(relay.ready());
                assert_eq!(relay.admin("GET", "/livez").unwrap().status, 200);
                let open = relay.process().descriptors() - descriptors;
                assert!(
                    open <= CONNECTIONS_MOST + 16,
                    "{open} descriptors for idle connections"
                );
                idle
            });
        });
    });
}

/// Requests that never end: the head goes on until it is too long or too late.
fn heads_without_an_end(kind: Kind) {
    alone(|| {
        let server = application();
        let relay = relay(kind).to(&server).start();
        let admin = admin_address(&relay);
        bounded(&relay, || {
            let connect = move || {
                let stream = TcpStream::connect(admin).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_millis(1)))
                    .unwrap();
                stream
            };
            let connect = Arc::new(connect);
            compare(kind, "heads without an end", &relay, || {
                let connect = Arc::clone(&connect);
                let again = Arc::clone(&connect);
                Busy::start(
                    2,
                    move |_| connect(),
                    move |stream| {
                        let line = [b'a'; 1000];
                        let told = stream.write_all(&line).is_ok()
                            && match stream.read(&mut [0; 4096]) {
                                Ok(got) => got == 0,
                                Err(error) => error.kind() == ErrorKind::WouldBlock,
                            };
                        if !told {
                            *stream = again();
                        }
                    },
                )
            });
        });
    });
}
