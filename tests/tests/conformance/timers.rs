//! Connections that take too long for something are ended, at the time that was set, for a counted reason.

use std::thread;
use std::time::{Duration, Instant};

use ringside_tests::relay::{Kind, Relay, Route, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, Trouble, echo};
use serde_json::json;

ringside_tests::instances! {
    everywhere: [],
    ringside: [
        an_idle_connection_ends,
        a_busy_connection_is_not_idle,
        traffic_one_way_is_not_idle,
        a_half_closed_connection_ends,
        a_slow_connect_ends,
    ],
}

const UP: Pattern = Pattern::new(5);
const SECOND: Duration = Duration::from_secs(1);

/// How late a timer may be on a machine that does other things too.
const LATE: Duration = Duration::from_secs(4);

/// Waits until the relay has ended the connection, which should be a second after `begin`.
#[track_caller]
fn assert_ends_in_a_second(stream: &Stream, begin: Instant) {
    stream.await_gone().unwrap();
    let took = begin.elapsed();
    // Timers may be as coarse as some tens of milliseconds, and the clock started a little before `begin`.
    assert!(
        took >= SECOND - Duration::from_millis(100),
        "it ended after {took:?} already"
    );
    assert!(took <= SECOND + LATE, "it ended after {took:?} only");
}

fn start(kind: Kind, server: &Server, field: &str) -> Relay {
    Setup::new(kind)
        .to(server)
        .settings(json!({"timeouts": {field: "1s"}}))
        .start()
}

fn an_idle_connection_ends(kind: Kind) {
    let server = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let relay = start(kind, &server, "idle");
    let stream = relay.connect();
    stream.ping(UP, 0, 100).unwrap();
    assert_ends_in_a_second(&stream, Instant::now());
    relay.expect_closed("idle_timeout", 1);
    server.settle();
    relay.settle();
}

fn a_busy_connection_is_not_idle(kind: Kind) {
    let server = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let relay = start(kind, &server, "idle");
    let stream = relay.connect();
    for ping in 0..12 {
        stream
            .ping(UP, ping * 10, ping * 10 + 10)
            .unwrap_or_else(|trouble| panic!("ping {ping}: {trouble}"));
        thread::sleep(SECOND / 4);
    }
    stream.ping(UP, 120, 130).unwrap();
    assert_ends_in_a_second(&stream, Instant::now());
    relay.expect_closed("idle_timeout", 1);
}

fn traffic_one_way_is_not_idle(kind: Kind) {
    let server = Server::local(|stream, _| {
        for piece in 0..12 {
            stream.send(UP, piece * 10, piece * 10 + 10, 10)?;
            thread::sleep(SECOND / 4);
        }
        Ok(())
    });
    let relay = start(kind, &server, "idle");
    let stream = relay.connect();
    stream.receive_to_end(UP, 0, 120).unwrap();
    stream.finish().unwrap();
    server.settle();
    relay.expect_closed("finished", 1);
}

fn a_half_closed_connection_ends(kind: Kind) {
    // It takes the end of what comes, and never ends its own side.
    let server = Server::local(|stream, _| {
        stream.receive_to_end(UP, 0, 100)?;
        let end = stream.send(UP, 0, 10, 10).and_then(|()| {
            thread::sleep(SECOND * 6);
            stream.send(UP, 10, 20, 10)?;
            stream.await_gone()
        });
        end.or_else(|trouble| {
            if trouble.is_reset() {
                Ok(())
            } else {
                Err(trouble)
            }
        })
    });
    let relay = start(kind, &server, "halfClose");
    let stream = relay.connect();
    stream.send(UP, 0, 100, 100).unwrap();
    stream.finish().unwrap();
    stream.receive(UP, 0, 10).unwrap();
    assert_ends_in_a_second(&stream, Instant::now());
    relay.expect_closed("half_close_timeout", 1);
    server.settle();
    relay.settle();
}

/// A listener whose backlog is full lets the next arrival wait for ever.
fn a_slow_connect_ends(kind: Kind) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, SECOND / 4) {
        filling.push(stream);
        assert!(filling.len() < 100, "the backlog never fills");
    }
    let setup = Setup::new(kind).route(Route::new("web", &address.to_string()));
    let relay = setup
        .settings(json!({"timeouts": {"connect": "1s"}}))
        .start();
    let begin = Instant::now();
    let stream = relay.connect();
    let ended: Result<(), Trouble> = stream.await_gone();
    ended.unwrap();
    let took = begin.elapsed();
    assert!(
        took >= SECOND - Duration::from_millis(100) && took <= SECOND + LATE,
        "it ended after {took:?}"
    );
    relay.expect_closed("connect_timeout", 1);
    relay.settle();
}
