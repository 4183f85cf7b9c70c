//! Clients that come in great numbers, or one client that wants every place.

use std::io::Read;
use std::net::IpAddr;

use ringside_tests::relay::{Kind, Route, Setup};
use ringside_tests::traffic::Stream;
use serde_json::json;

use crate::attackers::{Busy, Turnstile, application};
use crate::trial::Attack;

ringside_tests::instances! {
    everywhere: [],
    ringside: [a_flood_of_connections, one_client_that_wants_all_connections],
}

/// Connections that attackers may get through while a victim waits for one answer, which takes two turns of the relay at
/// least: each begins with sixteen.
const FAIR_CONNECTIONS: u64 = 64;

/// Connections that are opened and reset at once, as fast as it goes.
fn a_flood_of_connections(kind: Kind) {
    let ((server, _), flooded) = (application(), Turnstile::start());
    let relay = Setup::new(kind)
        .to(&server)
        .route(Route::new("flooded", &flooded.target()))
        .start();
    let address = relay.address_of("flooded");
    let attack = Attack {
        kind,
        what: "a flood of connections",
        relay: &relay,
        server: &server,
        passed: flooded.passed(),
        fair: FAIR_CONNECTIONS,
    };
    attack.withstood(|| {
        Busy::start(
            2,
            |_| (),
            move |()| {
                if let Ok(stream) = Stream::connect(address) {
                    let _ = stream.reset();
                }
            },
        )
    });
    let came = relay.metric("connections_opened_total", &[("relay", "flooded")]);
    assert!(came > 100.0, "a flood of {came} connections is none");
}

/// One address has as many connections as it may, and asks for more without end. Others come, go and have answers.
fn one_client_that_wants_all_connections(kind: Kind) {
    const ALLOWED: usize = 50;
    /// How many each of two threads asks for at a time.
    const AT_ONCE: usize = 40;
    let ((server, _), flooded) = (application(), Turnstile::start());
    let relay = Setup::new(kind)
        .to(&server)
        .route(Route::new("flooded", &flooded.target()))
        .settings(json!({"accept": {"maxConnections": 100, "perSource": ALLOWED}}))
        .start();
    let address = relay.address_of("flooded");
    let attacker = IpAddr::from([127, 0, 0, 66]);
    let attack = Attack {
        kind,
        what: "one client that wants all connections",
        relay: &relay,
        server: &server,
        passed: flooded.passed(),
        fair: FAIR_CONNECTIONS,
    };
    let refused = || relay.metric("connections_closed_total", &[("reason", "source_limit")]);
    attack.withstood(|| {
        let before = refused();
        let busy = Busy::start(
            2,
            |_| Vec::new(),
            move |held: &mut Vec<Stream>| {
                let asked: Vec<Stream> = (0..AT_ONCE)
                    .filter_map(|_| Stream::connect_from(attacker, address).ok())
                    .collect();
                for stream in asked {
                    // The end of the target's stream tells that it was let in, and a reset that it was not.
                    let is_in = (&stream).read(&mut [0]).is_ok();
                    if is_in && stream.reset_on_close().is_ok() {
                        held.push(stream);
                    }
                }
                // Some places are left for others to take, in vain.
                held.drain(..held.len().min(AT_ONCE / 4));
            },
        );
        let labels = [("reason", "source_limit")];
        relay.await_metric("connections_closed_total", &labels, |now| {
            now >= before + 20.0
        });
        let most = relay.metric("source_connections_most", &[]);
        assert!(most <= ALLOWED as f64, "one source has {most}");
        busy
    });
}
