//! From start to the end of a drain: ready when it is, unready at once when it leaves, and nothing cut short before the
//! limit.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use ringside_tests::await_that;
use ringside_tests::relay::{Kind, Relay, Setup, program};
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use serde_json::{Value, json};

ringside_tests::instances! {
    everywhere: [],
    ringside: [
        a_drain_by_signal_lets_connections_finish,
        a_drain_by_request_lets_connections_finish,
        a_drain_ends_at_its_limit,
        an_idle_relay_drains_at_once,
        two_interrupts_end_it_at_once,
        the_backend_in_use_is_told,
        a_restart_takes_the_same_port,
        a_taken_port_is_named,
        live_while_it_turns,
    ],
}

const UP: Pattern = Pattern::new(8);

fn start(kind: Kind, server: &Server, timeouts: Value) -> (Relay, Stream) {
    let relay = Setup::new(kind)
        .to(server)
        .settings(json!({"timeouts": timeouts}))
        .start();
    let stream = relay.connect();
    stream.ping(UP, 0, 1000).unwrap();
    (relay, stream)
}

/// A drain has begun: unready with a reason, then no more arrivals, while `stream` goes on and ends in its own time.
fn assert_drains(mut relay: Relay, stream: Stream, server: &Server) {
    await_that("the relay to be unready", || {
        let answer = relay.admin("GET", "/readyz").unwrap();
        assert!(
            answer.status == 200 || answer.body.contains("drain"),
            "{answer:?}"
        );
        answer.status == 503
    });
    assert_eq!(
        relay.admin("GET", "/livez").unwrap().status,
        200,
        "draining is not dying"
    );
    let address = relay.address();
    await_that("new connections to be refused", || {
        Stream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    stream.exchange(UP, UP, 1000..4 << 20, 100_000).unwrap();
    stream.finish().unwrap();
    stream.receive_end(4 << 20).unwrap();
    assert_eq!(relay.process_mut().await_end().code(), Some(0));
    server.settle();
}

fn a_drain_by_signal_lets_connections_finish(kind: Kind) {
    let server = Server::local(echo);
    let (relay, stream) = start(
        kind,
        &server,
        json!({"drain": "30s", "drainNotice": "200ms"}),
    );
    relay.process().signal(libc::SIGTERM);
    assert_drains(relay, stream, &server);
}

fn a_drain_by_request_lets_connections_finish(kind: Kind) {
    let server = Server::local(echo);
    let (relay, stream) = start(
        kind,
        &server,
        json!({"drain": "30s", "drainNotice": "200ms"}),
    );
    let answer = relay.admin("POST", "/drain").unwrap();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    assert_drains(relay, stream, &server);
}

fn a_drain_ends_at_its_limit(kind: Kind) {
    let server = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let (mut relay, stream) = start(kind, &server, json!({"drain": "1s", "drainNotice": "0s"}));
    let begin = Instant::now();
    relay.process().signal(libc::SIGTERM);
    stream.await_gone().unwrap();
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_secs(6),
        "the limit of 1 s took {took:?}"
    );
    assert_eq!(relay.process_mut().await_end().code(), Some(0));
    assert!(
        relay.process().log().contains("drain_limit"),
        "the connection that was closed is not told of"
    );
}

fn an_idle_relay_drains_at_once(kind: Kind) {
    let server = Server::local(echo);
    let setup = Setup::new(kind)
        .to(&server)
        .settings(json!({"timeouts": {"drain": "30s", "drainNotice": "0s"}}));
    let mut relay = setup.start();
    let begin = Instant::now();
    relay.process().signal(libc::SIGTERM);
    assert_eq!(relay.process_mut().await_end().code(), Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        begin.elapsed()
    );
}

fn two_interrupts_end_it_at_once(kind: Kind) {
    let server = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let (mut relay, stream) = start(kind, &server, json!({"drain": "10m", "drainNotice": "10m"}));
    let begin = Instant::now();
    relay.process().signal(libc::SIGINT);
    await_that("the first interrupt to drain", || !relay.ready());
    relay.process().signal(libc::SIGINT);
    relay.process_mut().await_end();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        begin.elapsed()
    );
    stream.await_gone().unwrap();
}

fn the_backend_in_use_is_told(kind: Kind) {
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).start();
    let name = kind.backend();
    assert_eq!(relay.metric("backend_info", &[("backend", name)]), 1.0);
    assert!(
        relay.status().to_string().contains(&format!("\"{name}\"")),
        "{}",
        relay.status()
    );
}

/// A killed ring lets go of its port a little later than its process goes.
fn a_restart_takes_the_same_port(kind: Kind) {
    let server = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let mut listen = "127.0.0.1:0".to_owned();
    for _ in 0..5 {
        let route = ringside_tests::relay::Route::new("web", &server.target()).listening(&listen);
        let relay = Setup::new(kind).route(route).start();
        listen = relay.address().to_string();
        let streams: Vec<Stream> = (0..20).map(|_| relay.connect()).collect();
        for stream in &streams {
            stream.ping(UP, 0, 100).unwrap();
        }
        // Killed by its drop, with all of them open.
        drop(relay);
    }
}

fn a_taken_port_is_named(kind: Kind) {
    let server = Server::local(echo);
    let taken = server.target();
    let route = ringside_tests::relay::Route::new("web", "127.0.0.1:9").listening(&taken);
    let (status, said) = Setup::new(kind).route(route).start_in_vain();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains(&taken),
        "the message does not name {taken}: {said}"
    );
}

fn live_while_it_turns(kind: Kind) {
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).start();
    assert_eq!(relay.admin("GET", "/livez").unwrap().status, 200);
    assert_eq!(relay.admin("GET", "/startupz").unwrap().status, 200);
    // An idle relay sleeps.
    let (cpu, ()) = relay.cpu_during(|| thread::sleep(Duration::from_secs(1)));
    assert!(
        cpu < Duration::from_millis(50),
        "an idle second cost {cpu:?} of CPU"
    );
    assert_eq!(relay.admin("GET", "/livez").unwrap().status, 200);
    assert!(program().is_file());
}
