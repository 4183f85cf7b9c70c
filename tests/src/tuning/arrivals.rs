//! Trials of who is let in, and of how long a connection may take for what it does.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use super::load::{SECONDS, Stage, number, rate};
use super::{Area, Side, Trial};
use crate::await_that;
use crate::relay::Relay;
use crate::traffic::{Pattern, Server, Stream, echo};

pub(super) const AREA: Area = Area {
    name: "Who is let in",
    trials: &[
        Trial {
            symptom: "new connections wait, and the pod has room",
            look: "RingsideAcceptPaused, `ringside_accept_pauses_total{reason=\"rate\"}`",
            before: "accept: {maxPerSecond: 1000}",
            after: "accept: {maxPerSecond: 5000}",
            figures: &["connections a second (32 at a time)"],
            measure: churn_rate,
        },
        Trial {
            symptom: "answers are slow while connections flood in",
            look: "`rate(ringside_connections_opened_total[1m])`",
            before: "accept: {maxPerSecond: 1000000}",
            after: "accept: {maxPerSecond: 1000}",
            figures: &["p50 of a ping beside the flood, us", "its p99, us"],
            measure: ping_beside_churn,
        },
        Trial {
            symptom: "connecting takes a second, or three, in bursts",
            look: "`nstat TcpExtListenDrops`, `dmesg`: `possible SYN flooding`",
            before: "accept: {backlog: 16}",
            after: "accept: {backlog: 4096}",
            figures: &["ms for the slowest of 100 connects in a burst"],
            measure: burst,
        },
        Trial {
            symptom: "the house is full of clients that say nothing",
            look: "RingsideConnectionsAtLimit, `ringside_connections_open`",
            before: "timeouts: {idle: 4s}",
            after: "timeouts: {idle: 1s}",
            figures: &["ms until a newcomer is answered"],
            measure: full_of_silence,
        },
        Trial {
            symptom: "the house is full, and one client has it",
            look: "RingsideConnectionsAtLimit, `ringside_source_connections_most`",
            before: "accept: {perSource: 0}",
            after: "accept: {perSource: 50}",
            figures: &["ms until another client is answered (the greedy one goes after 3 s)"],
            measure: one_wants_all,
        },
        Trial {
            symptom: "accepting goes on and off",
            look: "`rate(ringside_accept_pauses_total[1m])`",
            before: "accept: {pauseAbovePercent: 95, resumeBelowPercent: 94}",
            after: "accept: {pauseAbovePercent: 95, resumeBelowPercent: 50}",
            figures: &["pauses a second at the limit"],
            measure: flapping,
        },
        Trial {
            symptom: "clients wait for an application that does not answer",
            look: "RingsideConnectFailures, `ringside_connect_seconds`",
            before: "timeouts: {connect: 2s}",
            after: "timeouts: {connect: 200ms}",
            figures: &["ms until a client is told"],
            measure: no_answer,
        },
        Trial {
            symptom: "connections are reset after the application went away",
            look: "RingsideTargetDown, `ringside_target_checks_total`",
            before: "targetCheck: {interval: 1s}",
            after: "targetCheck: {interval: 100ms}",
            figures: &["ms until the port refuses as the application's does"],
            measure: target_gone,
        },
    ],
};

const UP: Pattern = Pattern::new(7);

/// An echo that does not mind how its clients end.
fn forgiving() -> Server {
    Server::local(|stream, number| echo(stream, number).or(Ok(())))
}

fn ms(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

fn churn_rate(side: &Side) -> anyhow::Result<Vec<f64>> {
    let stage = Stage::start(side)?;
    let record = stage.run(&["churn", "--concurrency", "32", "--seconds", SECONDS])?;
    Ok(vec![rate(&record)?])
}

fn ping_beside_churn(side: &Side) -> anyhow::Result<Vec<f64>> {
    let stage = Stage::start(side)?;
    let flood = stage.beside(&["churn", "--concurrency", "128", "--seconds", "60"])?;
    let opened = || stage.relay.metric("connections_opened_total", &[]);
    await_that("the flood", || opened() > 200.0);
    let record = stage.run(&["ping", "--connections", "4", "--seconds", SECONDS])?;
    drop(flood);
    let of = |name| number(&record, name);
    Ok(vec![of("/latency/p50_us")?, of("/latency/p99_us")?])
}

fn burst(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = forgiving();
    // Accepted more slowly than they come.
    let side = side.clone().over(json!({"accept": {"maxPerSecond": 400}}));
    let relay = side.setup(&server.target()).start();
    let mut slowest = 0.0_f64;
    let mut open = Vec::new();
    for _ in 0..100 {
        let begin = Instant::now();
        open.push(relay.connect());
        slowest = slowest.max(ms(begin));
    }
    Ok(vec![slowest])
}

/// A hundred connections are allowed, and this many are there.
const HELD: usize = 95;

fn small_house(side: &Side) -> Side {
    side.clone()
        .over(json!({"accept": {"maxConnections": 100}}))
}

/// Clients from `source` that have each been answered once; those that are not let in are left out.
fn held(relay: &Relay, source: [u8; 4], count: usize) -> Vec<Stream> {
    let streams = (0..count).map(|_| Stream::connect_from(IpAddr::from(source), relay.address()));
    streams
        .filter_map(Result::ok)
        .filter(|stream| stream.ping(UP, 0, 10).is_ok())
        .collect()
}

fn full_of_silence(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = forgiving();
    let relay = small_house(side).setup(&server.target()).start();
    let silent = held(&relay, [127, 0, 0, 1], HELD);
    ensure!(silent.len() == HELD, "{} were let in", silent.len());
    let begin = Instant::now();
    let newcomer = relay.connect();
    newcomer.ping(UP, 0, 10)?;
    Ok(vec![ms(begin)])
}

fn one_wants_all(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = forgiving();
    let relay = small_house(side).setup(&server.target()).start();
    let greedy = held(&relay, [127, 0, 0, 2], HELD);
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_secs(3));
            drop(greedy);
        });
        let other = relay.connect();
        other.ping(UP, 0, 10)?;
        Ok(vec![ms(begin)])
    })
}

fn flapping(side: &Side) -> anyhow::Result<Vec<f64>> {
    let side = small_house(side);
    let stage = Stage::start(&side.over(json!({"accept": {"maxPerSecond": 1_000_000}})))?;
    let pauses = || {
        let reason = [("reason", "connections")];
        stage.relay.metric("accept_pauses_total", &reason)
    };
    let before = pauses();
    let record = stage.run(&["churn", "--concurrency", "150", "--seconds", SECONDS])?;
    let seconds = number(&record, "/seconds")?;
    Ok(vec![(pauses() - before) / seconds])
}

fn no_answer(side: &Side) -> anyhow::Result<Vec<f64>> {
    // A listener whose backlog is full lets the next arrival wait for ever.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(0)?;
    let address = listener.local_addr()?.as_socket().context("an address")?;
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(250)) {
        filling.push(stream);
        ensure!(filling.len() < 100, "the backlog never fills");
    }
    let relay = side.setup(&address.to_string()).start();
    let begin = Instant::now();
    relay.connect().await_gone()?;
    Ok(vec![ms(begin)])
}

fn target_gone(side: &Side) -> anyhow::Result<Vec<f64>> {
    let application = TcpListener::bind("127.0.0.1:0")?;
    let target = application.local_addr()?.to_string();
    let relay = side.setup(&target).start();
    let address = relay.address();
    let begin = Instant::now();
    drop(application);
    await_that("the port to refuse", || {
        Stream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    Ok(vec![ms(begin)])
}
