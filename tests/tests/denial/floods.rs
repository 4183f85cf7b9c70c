//! Clients that come in great numbers, or one client that wants every place.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringside_tests::relay::{Kind, Route};
use ringside_tests::traffic::{Pattern, Stream};
use serde_json::json;

use crate::attackers::{Busy, Turnstile, application, relay};
use crate::victims::{alone, compare};

ringside_tests::instances! {
    everywhere: [],
    ringside: [a_flood_of_connections, one_client_that_wants_all_connections],
}

/// Connections that are opened and reset at once, as fast as it goes.
fn a_flood_of_connections(kind: Kind) {
    alone(|| {
        let (server, flooded) = (application(), Turnstile::start());
        let relay = relay(kind)
            .to(&server)
            .route(Route::new("flooded", &flooded.target()))
            .start();
        let address = relay.address_of("flooded");
        let came = Arc::new(AtomicU64::new(0));
        compare(kind, "a flood of connections", &relay, || {
            let came = Arc::clone(&came);
            Busy::start(
                2,
                |_| (),
                move |()| {
                    if let Ok(stream) = Stream::connect(address) {
                        let _ = stream.reset();
                        came.fetch_add(1, Ordering::Relaxed);
                    }
                },
            )
        });
        let came = came.load(Ordering::Relaxed);
        assert!(came > 1000, "a flood of {came} connections is none");
    });
}

/// One address has as many connections as it may, and asks for more without end. Others come, go and have answers.
fn one_client_that_wants_all_connections(kind: Kind) {
    const ALLOWED: usize = 50;
    alone(|| {
        let (server, flooded) = (application(), Turnstile::start());
        let relay = relay(kind)
            .to(&server)
            .route(Route::new("flooded", &flooded.target()))
            .settings(json!({"accept": {"maxConnections": 100, "perSource": ALLOWED}}))
            .start();
        let address = relay.address_of("flooded");
        let attacker = IpAddr::from([127, 0, 0, 66]);
        compare(
            kind,
            "one client that wants all connections",
            &relay,
            || {
                let busy = Busy::start(
                    2,
                    |_| Vec::new(),
                    move |held: &mut Vec<Stream>| {
                        if let Ok(stream) = Stream::connect_from(attacker, address) {
                            stream.reset_on_close().unwrap();
                            held.push(stream);
                        }
                        // More than it may have, some of which were turned away by now.
                        if held.len() > 2 * ALLOWED {
                            held.drain(..ALLOWED / 10);
                        }
                    },
                );
                relay.await_metric(
                    "connections_closed_total",
                    &[("reason", "source_limit")],
                    |refused| refused >= 1.0,
                );
                let most = relay.metric("source_connections_most", &[]);
                assert!(most <= ALLOWED as f64, "one source has {most}");
                // A newcomer is let in at once.
                let newcomer = relay.connect();
                let mut io = &newcomer;
                std::io::Write::write_all(&mut io, b"e").unwrap();
                newcomer.ping(Pattern::new(3), 0, 64).unwrap();
                busy
            },
        );
        let refused = relay.metric("connections_closed_total", &[("reason", "source_limit")]);
        assert!(refused > 100.0, "{refused} refusals are no trial");
    });
}
