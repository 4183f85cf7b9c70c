//! An honest port: while the application refuses connections, so does the relay's port, for whoever probes it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use ringside_tests::await_that;
use ringside_tests::processes::{Process, await_listening, free_port};
use ringside_tests::relay::{Kind, Relay, Route, Setup, program};
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use serde_json::{Value, json};

ringside_tests::instances! {
    everywhere: [],
    ringside: [
        an_application_that_starts_late_goes_away_and_comes_back,
        a_unix_application_comes_and_goes,
        the_application_sees_nothing_of_the_checks,
        open_connections_go_on_while_the_port_is_closed,
        several_relays_are_judged_each_for_itself,
        reloads_while_closed,
        a_drain_while_closed_opens_nothing,
        within_the_interval_a_refusal_is_a_reset_with_a_reason,
        a_target_that_does_not_answer_closes_nothing,
    ],
}

const UP: Pattern = Pattern::new(13);

fn checking(settings: Value) -> Value {
    json!({"targetCheck": settings, "timeouts": {"drainNotice": "0s"}})
}

fn often() -> Value {
    checking(json!({"interval": "50ms"}))
}

/// A process that listens at `address` and leads to `server`: an application that can be ended like any other.
fn application(address: SocketAddr, server: &Server) -> Process {
    let application = Process::start("the application", |_| {
        let mut command = Command::new(program());
        let way = format!("app={address}:{}", server.target());
        command.args(["relay", "--relay", &way, "--admin", "off"]);
        command
    });
    await_listening(address);
    application
}

#[track_caller]
fn await_closed(address: SocketAddr) {
    await_that("the relay's port to refuse", || {
        Stream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

/// The port takes connections again, and they lead somewhere. One that fell into the moment between may be reset.
#[track_caller]
fn await_open(address: SocketAddr) {
    await_that("the relay's port to take connections", || {
        Stream::connect(address).is_ok_and(|stream| stream.ping(UP, 0, 100).is_ok())
    });
}

fn told(relay: &Relay, name: &str) -> (f64, f64, bool) {
    let labels = [("relay", name)];
    let status = relay.status();
    let relays = status["relays"].as_array().unwrap();
    let mine = relays.iter().find(|relay| relay["name"] == name).unwrap();
    (
        relay.metric("target_reachable", &labels),
        relay.metric("relay_listening", &labels),
        mine["listening"].as_bool().unwrap(),
    )
}

const OPEN: (f64, f64, bool) = (1.0, 1.0, true);
const CLOSED: (f64, f64, bool) = (0.0, 0.0, false);

fn an_application_that_starts_late_goes_away_and_comes_back(kind: Kind) {
    let server = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // As a native sidecar it must count as started and ready before the application is started at all, and not one probe
    // of its port may succeed by then.
    let relay = Setup::new(kind)
        .route(Route::new("web", &address.to_string()))
        .workers(2)
        .settings(often())
        .start();
    let port = relay.address();
    let early = Stream::connect(port).map(|_| ()).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(relay.admin("GET", "/startupz").unwrap().status, 200);
    let ready = relay.admin("GET", "/readyz").unwrap();
    assert_eq!(ready.status, 200);
    assert!(ready.body.contains("web is closed"), "{}", ready.body);
    assert_eq!(told(&relay, "web"), CLOSED);

    for round in 1..=3 {
        let running = application(address, &server);
        await_open(port);
        assert_eq!(told(&relay, "web"), OPEN);
        assert_eq!(relay.admin("GET", "/readyz").unwrap().body, "ready\n");
        drop(running);
        await_closed(port);
        assert_eq!(told(&relay, "web"), CLOSED);
        let log = relay.process().log();
        assert_eq!(log.matches("\"listening again\"").count(), round, "{log}");
        assert_eq!(log.matches("\"closed: ").count(), 1 + round, "{log}");
    }
    relay.settle();
}

fn a_unix_application_comes_and_goes(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let relay = Setup::new(kind)
        .route(Route::new("web", &format!("unix:{}", path.display())))
        .settings(often())
        .start();
    await_closed(relay.address());
    let server = Server::unix(&path, echo);
    await_open(relay.address());
    server.settle();
    // What is left at the path is a socket that nobody has open.
    drop(server);
    await_closed(relay.address());
    assert_eq!(told(&relay, "web"), CLOSED);
    relay.settle();
}

fn the_application_sees_nothing_of_the_checks(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let servers = [
        Server::local(echo),
        Server::unix(&folder.path().join("app.sock"), echo),
    ];
    let mut setup = Setup::new(kind).settings(checking(json!({"interval": "10ms"})));
    for (number, server) in servers.iter().enumerate() {
        setup = setup.route(Route::new(&format!("r{number}"), &server.target()));
    }
    let relay = setup.start();
    for (number, server) in servers.iter().enumerate() {
        let name = format!("r{number}");
        let labels = [("relay", name.as_str()), ("outcome", "accepted")];
        relay.await_metric("target_checks_total", &labels, |checks| checks >= 30.0);
        assert_eq!(server.accepted(), 0, "{name}");
        await_open(relay.address_of(&name));
        server.settle();
        assert_eq!(server.accepted(), 1, "{name}");
    }
    assert_eq!(
        relay.metric("target_checks_total", &[("outcome", "refused")]),
        0.0
    );
}

fn open_connections_go_on_while_the_port_is_closed(kind: Kind) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Setup::new(kind)
        .route(Route::new(
            "web",
            &listener.local_addr().unwrap().to_string(),
        ))
        .settings(often())
        .start();
    let stream = relay.connect();
    let (mut served, _) = listener.accept().unwrap();
    drop(listener);
    await_closed(relay.address());
    assert_eq!(told(&relay, "web"), CLOSED);
    for _ in 0..100 {
        (&stream).write_all(b"ping").unwrap();
        let mut heard = [0; 4];
        served.read_exact(&mut heard).unwrap();
        served.write_all(&heard).unwrap();
        (&stream).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ping");
    }
    assert_eq!(relay.metric("connections_open", &[]), 1.0);
    drop((stream, served));
    relay.expect_closed("finished", 1);
    relay.settle();
}

fn several_relays_are_judged_each_for_itself(kind: Kind) {
    let servers: Vec<Server> = (0..3).map(|_| Server::local(echo)).collect();
    let mut setup = Setup::new(kind).workers(2).settings(often());
    for (number, server) in servers.iter().enumerate() {
        setup = setup.route(Route::new(&format!("r{number}"), &server.target()));
    }
    let relay = setup.start();
    let others: Vec<Stream> = ["r0", "r2"]
        .map(|name| relay.connect_to(relay.address_of(name)))
        .into();
    let mut servers = servers.into_iter();
    let (first, second, third) = (servers.next(), servers.next(), servers.next());
    drop(second);
    await_closed(relay.address_of("r1"));
    assert_eq!(told(&relay, "r1"), CLOSED);
    for (name, stream) in ["r0", "r2"].iter().zip(&others) {
        assert_eq!(told(&relay, name), OPEN);
        stream.ping(UP, 0, 1000).unwrap();
        await_open(relay.address_of(name));
    }
    drop(others);
    first.unwrap().settle();
    third.unwrap().settle();
    relay.settle();
}

fn reloads_while_closed(kind: Kind) {
    let server = Server::local(echo);
    let gone = format!("127.0.0.1:{}", free_port());
    let (to_gone, to_server) = (
        Route::new("web", &gone),
        Route::new("web", &server.target()),
    );
    // So rarely that only what a reload sets off is seen.
    let seldom = || checking(json!({"interval": "1h"}));
    let setup =
        |route: &Route, settings: Value| Setup::new(kind).route(route.clone()).settings(settings);
    let mut relay = setup(&to_gone, seldom()).start();
    let port = relay.address();
    await_closed(port);

    // Led to an application that is there, the port opens, and it is the same port.
    relay.reconfigure(|_| setup(&to_server, seldom()));
    await_open(port);
    relay.reconfigure(|_| setup(&to_gone, often()));
    await_closed(port);

    // A mode that closes nothing opens it, and the other way round.
    for mode in ["Report", "Off"] {
        relay.reconfigure(|_| setup(&to_gone, checking(json!({"mode": mode, "interval": "1h"}))));
        await_that("a connection to be taken and reset", || {
            Stream::connect(port).is_ok_and(|stream| stream.ping(UP, 0, 1).is_err())
        });
        relay.reconfigure(|_| setup(&to_gone, often()));
        await_closed(port);
    }

    // A port that moves while it is closed is closed where it goes, too, and the old one is given up.
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let moved = to_gone.clone().listening(&elsewhere.to_string());
    relay.reconfigure(|_| setup(&moved, often()));
    await_that("the old port to be free", || {
        TcpListener::bind(port).is_ok()
    });
    await_closed(elsewhere);
    assert_eq!(told(&relay, "web"), CLOSED);
    let server_there = Server::tcp(&gone, echo);
    await_open(elsewhere);
    server_there.settle();
    server.settle();
    relay.settle();
}

fn a_drain_while_closed_opens_nothing(kind: Kind) {
    let server = Server::local(echo);
    let gone = format!("127.0.0.1:{}", free_port());
    let mut relay = Setup::new(kind)
        .route(Route::new("busy", &server.target()))
        .route(Route::new("web", &gone))
        .settings(often())
        .start();
    let (busy, web) = (relay.address_of("busy"), relay.address_of("web"));
    let stream = relay.connect_to(busy);
    stream.ping(UP, 0, 100).unwrap();
    await_closed(web);
    relay.process().signal(libc::SIGTERM);
    await_closed(busy);
    // The application comes while the relay is leaving.
    let late = Server::tcp(&gone, echo);
    stream.exchange(UP, UP, 100..1 << 20, 1 << 16).unwrap();
    await_closed(web);
    stream.finish().unwrap();
    stream.receive_end(1 << 20).unwrap();
    assert_eq!(relay.process_mut().await_end().code(), Some(0));
    assert_eq!(late.accepted(), 0);
    server.settle();
}

fn within_the_interval_a_refusal_is_a_reset_with_a_reason(kind: Kind) {
    let server = Server::local(echo);
    let relay = Setup::new(kind)
        .to(&server)
        .settings(checking(json!({"interval": "1h"})))
        .start();
    await_open(relay.address());
    drop(server);
    for _ in 0..20 {
        relay.expect_turned_away();
    }
    relay.expect_closed("connect_refused", 20);
    assert_eq!(told(&relay, "web"), OPEN);
    relay.settle();
}

/// An application whose backlog is full is busy and not gone.
fn a_target_that_does_not_answer_closes_nothing(kind: Kind) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let filling: Vec<socket2::Socket> = (0..8)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let relay = Setup::new(kind)
        .route(Route::new("web", &address.to_string()))
        .settings(often())
        .start();
    relay.await_metric("target_checks_total", &[("outcome", "timeout")], |checks| {
        checks >= 5.0
    });
    assert_eq!(told(&relay, "web"), OPEN);
    drop(filling);
}
