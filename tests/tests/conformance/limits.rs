//! Limits reached: never a crash, a spin, a leak, or one connection's trouble becoming another's.

use std::io::Read;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use ringside_tests::await_that;
use ringside_tests::namespace::set_send_buffers;
use ringside_tests::processes::can_listen;
use ringside_tests::relay::{Kind, Relay, Route, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, Trouble, echo};
use serde_json::{Value, json};

ringside_tests::instances! {
    everywhere: [
        stalled_consumers_beside_a_fast_one,
        stalled_servers_beside_a_fast_one,
    ],
    ringside: [
        few_descriptors,
        a_pool_far_too_small,
        a_pool_of_two_buffers,
        a_pool_of_two_buffers_and_nobody_takes,
        as_many_connections_as_allowed,
        as_many_a_second_as_allowed,
        as_many_of_one_source_as_allowed,
        one_source_at_its_limit_uses_up_nothing_of_the_rate,
    ],
}

const FAST: Pattern = Pattern::new(7);
const STALLED: usize = 150;

/// Bytes that each side's kernel may hold of a stalled stream, so that 150 of them do not fill the machine.
const KERNEL_BYTES: usize = 64 << 10;

/// The first byte of a connection says what it is for.
fn choosing(
    moved: Arc<AtomicU64>,
    hold: Arc<RwLock<()>>,
) -> impl Fn(&Stream, u64) -> Result<(), Trouble> {
    move |stream, number| {
        let mut kind = [0];
        let mut io = stream;
        let trouble = |source| Trouble::Io {
            doing: "being told what to do",
            after: 0,
            source,
        };
        io.read_exact(&mut kind).map_err(trouble)?;
        stream
            .socket()
            .set_send_buffer_size(KERNEL_BYTES)
            .map_err(trouble)?;
        match kind[0] {
            // Sends for as long as anyone takes it.
            b's' => {
                for piece in 0.. {
                    if stream
                        .send(FAST, piece << 14, (piece + 1) << 14, 1 << 14)
                        .is_err()
                    {
                        break;
                    }
                    moved.fetch_add(1 << 14, Ordering::Relaxed);
                }
                Ok(())
            }
            // Takes nothing until the test lets it, and then whatever there is.
            b'n' => {
                drop(hold.read());
                stream.await_gone()
            }
            _ => echo(stream, number),
        }
    }
}

/// A connection that echoes.
fn fast(relay: &Relay) -> Stream {
    let stream = relay.connect();
    say(&stream, b'e');
    stream
}

fn say(stream: &Stream, what: u8) {
    let mut io = stream;
    std::io::Write::write_all(&mut io, &[what]).unwrap();
}

/// A connection beside others must be as quick as if it were alone, within what a small machine can do.
#[track_caller]
fn assert_fast(who: &str, stream: &Stream) {
    assert_quick_pings(who, stream);
    let begin = Instant::now();
    stream
        .exchange(FAST, FAST, PINGED_BYTES..8 << 20, 64 << 10)
        .unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{who}: 8 MiB took {:?}",
        begin.elapsed()
    );
}

const PINGS: u64 = 300;
const PINGED_BYTES: u64 = PINGS * 64;

#[track_caller]
fn assert_quick_pings(who: &str, stream: &Stream) {
    let mut times: Vec<Duration> = (0..PINGS)
        .map(|ping| {
            let begin = Instant::now();
            stream
                .ping(FAST, ping * 64, ping * 64 + 64)
                .unwrap_or_else(|trouble| panic!("{who}, ping {ping}: {trouble}"));
            begin.elapsed()
        })
        .collect();
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{who}: the median ping took {median:?}, the slowest {slowest:?}");
    assert!(
        median < Duration::from_millis(20),
        "{who}: the median ping took {median:?}"
    );
    assert!(
        slowest < Duration::from_secs(1),
        "{who}: the slowest ping took {slowest:?}"
    );
}

/// Connections that are sent to for as long as the relay takes it, and never read; beside one that was there before.
fn stall(relay: &Relay, server: &Server, moved: &AtomicU64) -> Vec<Stream> {
    let stalled: Vec<Stream> = (0..STALLED)
        .map(|_| {
            let stream = relay.connect();
            stream.socket().set_recv_buffer_size(KERNEL_BYTES).unwrap();
            say(&stream, b's');
            stream
        })
        .collect();
    await_that("the server to have them all", || {
        server.accepted() == 1 + STALLED as u64
    });
    relay.await_still(|| moved.load(Ordering::Relaxed));
    stalled
}

/// With everything stalled there is next to nothing to do.
#[track_caller]
fn assert_no_spin(relay: &Relay) {
    let (cpu, ()) = relay.cpu_during(|| thread::sleep(Duration::from_secs(1)));
    assert!(
        cpu < Duration::from_millis(200),
        "with everything stalled a second cost {cpu:?} of CPU"
    );
}

fn stalled_consumers_beside_a_fast_one(kind: Kind) {
    let moved = Arc::new(AtomicU64::new(0));
    let server = Server::local(choosing(Arc::clone(&moved), Arc::default()));
    let relay = Setup::new(kind).to(&server).start();
    let early = fast(&relay);
    let stalled = stall(&relay, &server, &moved);
    assert!(moved.load(Ordering::Relaxed) > 0);

    assert_no_spin(&relay);
    assert_fast("one from before", &early);
    assert_fast("a new one", &fast(&relay));

    // Nothing of what waited was lost.
    for (number, stream) in stalled.iter().enumerate().step_by(10) {
        stream
            .receive(FAST, 0, 1 << 20)
            .unwrap_or_else(|trouble| panic!("stalled {number}: {trouble}"));
    }
    drop(early);
    for stream in stalled {
        stream.reset().unwrap();
    }
    relay.settle();
}

fn stalled_servers_beside_a_fast_one(kind: Kind) {
    let hold = Arc::new(RwLock::new(()));
    let server = Server::local(choosing(Arc::default(), Arc::clone(&hold)));
    let relay = Setup::new(kind).to(&server).start();
    // Taken after the server is made, so that it is let go before the server waits for its connections.
    let held = hold.write();
    let early = fast(&relay);
    let stalled: Vec<Stream> = (0..STALLED)
        .map(|_| {
            let stream = relay.connect();
            stream.socket().set_send_buffer_size(KERNEL_BYTES).unwrap();
            say(&stream, b'n');
            stream
        })
        .collect();
    await_that("the server to have them all", || {
        server.accepted() == 1 + STALLED as u64
    });
    for stream in &stalled {
        stream.set_patience(Duration::from_millis(20)).unwrap();
        // It takes some, and then no more.
        let stall = stream.send(FAST, 0, 1 << 40, 1 << 14);
        assert!(
            stall.is_err(),
            "a server that takes nothing took everything"
        );
    }
    assert_fast("one from before", &early);
    assert_fast("a new one", &fast(&relay));
    drop(early);
    for stream in stalled {
        stream.reset().unwrap();
    }
    drop(held);
    server.settle();
    relay.settle();
}

fn few_descriptors(kind: Kind) {
    const CLIENTS: u64 = 100;
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).descriptors(64).start();
    let streams: Vec<Stream> = (0..CLIENTS).map(|_| relay.connect()).collect();
    for (seed, stream) in (0..).zip(&streams) {
        stream.send(Pattern::new(seed), 0, 64, 64).unwrap();
    }
    relay.await_still(|| server.accepted());
    let served = server.accepted();
    assert!(
        (2..=32).contains(&served),
        "64 descriptors served {served} connections at once"
    );
    assert!(relay.process().descriptors() <= 64);
    relay.await_metric(
        "accept_pauses_total",
        &[("reason", "descriptors")],
        |pauses| pauses >= 1.0,
    );
    let (cpu, ()) = relay.cpu_during(|| thread::sleep(Duration::from_secs(1)));
    assert!(
        cpu < Duration::from_millis(200),
        "a second at the limit cost {cpu:?} of CPU"
    );

    // As some leave, others come in; nobody who waited is turned away.
    thread::scope(|scope| {
        for (seed, stream) in (0..).zip(streams) {
            scope.spawn(move || {
                let came = stream.receive(Pattern::new(seed), 0, 64);
                came.unwrap_or_else(|trouble| panic!("client {seed}: {trouble}"));
            });
        }
    });
    relay.expect_closed("finished", CLIENTS as u32);
    relay.settle();
    server.settle();
}

fn crowd(kind: Kind, settings: Value) {
    const CLIENTS: u64 = 64;
    const BYTES: u64 = 1 << 20;
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).settings(settings).start();
    thread::scope(|scope| {
        for seed in 0..CLIENTS {
            let relay = &relay;
            scope.spawn(move || {
                let (stream, pattern) = (relay.connect(), Pattern::new(seed));
                let result = stream.exchange(pattern, pattern, 0..BYTES, 100_000);
                result.unwrap_or_else(|trouble| panic!("client {seed}: {trouble}"));
            });
        }
    });
    relay.expect_closed("finished", CLIENTS as u32);
    relay.settle();
    server.settle();
}

fn a_pool_far_too_small(kind: Kind) {
    crowd(
        kind,
        json!({"buffers": {"pool": "128Ki", "perDirection": "4Ki"}}),
    );
}

fn a_pool_of_two_buffers(kind: Kind) {
    crowd(
        kind,
        json!({"buffers": {"pool": "128Ki", "perDirection": "64Ki", "pipes": 0}}),
    );
}

/// Shortages that come one after the other are the way of a small pool; as many as a loop can make are a spin.
fn a_pool_of_two_buffers_and_nobody_takes(kind: Kind) {
    const SHORTAGES_A_SECOND: f64 = 1000.0;
    set_send_buffers(KERNEL_BYTES).expect("in a namespace of its own");
    let moved = Arc::new(AtomicU64::new(0));
    let server = Server::local(choosing(Arc::clone(&moved), Arc::default()));
    let settings = json!({"buffers": {"pool": "128Ki", "perDirection": "4Ki"}});
    let relay = Setup::new(kind).to(&server).settings(settings).start();
    let early = fast(&relay);
    let stalled = stall(&relay, &server, &moved);
    let shortages = || relay.metric("buffer_shortages_total", &[]);
    let before = shortages();
    assert_no_spin(&relay);
    let met = shortages() - before;
    assert!(met < SHORTAGES_A_SECOND, "{met} shortages in a second");
    assert_quick_pings("one from before", &early);
    drop(early);
    for stream in stalled {
        let _ = stream.reset();
    }
    relay.settle();
}

fn as_many_connections_as_allowed(kind: Kind) {
    let server = Server::local(echo);
    let relay = Setup::new(kind)
        .to(&server)
        .settings(json!({"accept": {"maxConnections": 10}}))
        .start();
    let streams: Vec<Stream> = (0..40).map(|_| relay.connect()).collect();
    for stream in &streams {
        stream.send(FAST, 0, 64, 64).unwrap();
    }
    relay.await_still(|| server.accepted());
    let served = server.accepted();
    assert!(
        (8..=10).contains(&served),
        "{served} connections were let in, of 10 that may be"
    );
    assert_eq!(relay.metric("connections_open", &[]), served as f64);
    relay.await_metric("accept_paused", &[], |paused| paused > 0.0);
    assert!(relay.metric("accept_pauses_total", &[("reason", "connections")]) >= 1.0);
    for (number, stream) in streams.into_iter().enumerate() {
        stream
            .receive(FAST, 0, 64)
            .unwrap_or_else(|trouble| panic!("client {number}: {trouble}"));
    }
    relay.expect_closed("finished", 40);
    relay.await_metric("accept_paused", &[], |paused| paused == 0.0);
    relay.settle();
}

fn as_many_a_second_as_allowed(kind: Kind) {
    let server = Server::local(echo);
    let relay = Setup::new(kind)
        .to(&server)
        .settings(json!({"accept": {"maxPerSecond": 20}}))
        .start();
    let begin = Instant::now();
    // One second's worth may come at once; the rest takes two more.
    let streams: Vec<Stream> = (0..60).map(|_| relay.connect()).collect();
    for stream in &streams {
        stream.ping(FAST, 0, 64).unwrap();
    }
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(1_800),
        "60 connections at 20 a second took {took:?}"
    );
    assert!(
        took <= Duration::from_secs(10),
        "60 connections at 20 a second took {took:?}"
    );
    assert!(relay.metric("accept_pauses_total", &[("reason", "rate")]) >= 1.0);
    drop(streams);
    relay.expect_closed("finished", 60);
    relay.settle();
}

fn per_source(limit: u32) -> Value {
    json!({"accept": {"perSource": limit}})
}

#[track_caller]
fn connect_from(relay: &Relay, source: [u8; 4]) -> Stream {
    let stream = Stream::connect_from(IpAddr::from(source), relay.address());
    stream.unwrap_or_else(|error| panic!("no connection from {source:?}: {error}"))
}

/// The source is turned away, which may show before the connecting is over.
#[track_caller]
fn assert_refused(relay: &Relay, source: [u8; 4]) {
    match Stream::connect_from(IpAddr::from(source), relay.address()) {
        Ok(stream) => stream.expect_reset(),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

fn as_many_of_one_source_as_allowed(kind: Kind) {
    const ONE: [u8; 4] = [127, 0, 0, 1];
    const OTHER: [u8; 4] = [127, 0, 0, 2];
    let server = Server::local(echo);
    // Through a listener for both families clients of IPv4 come as IPv6 addresses.
    let listen = if can_listen("[::]:0").is_ok() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let mut relay = Setup::new(kind)
        .route(Route::new("web", &server.target()).listening(listen))
        .workers(2)
        .settings(per_source(0))
        .start();
    let v4 = std::net::SocketAddr::from((ONE, relay.address().port()));
    let connect = |relay: &Relay, source| {
        let stream = Stream::connect_from(IpAddr::from(source), v4).unwrap();
        stream.ping(FAST, 0, 64).unwrap();
        assert!(relay.tells());
        stream
    };
    let refused = |source| match Stream::connect_from(IpAddr::from(source), v4) {
        Ok(stream) => stream.expect_reset(),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    };

    // Without a limit nobody is counted; with one everybody is who is there already.
    let mut ones: Vec<Stream> = (0..7).map(|_| connect(&relay, ONE)).collect();
    assert_eq!(relay.metric("sources_open", &[]), 0.0);
    relay.reconfigure(|setup| setup.settings(per_source(10)));
    relay.await_metric("source_connections_most", &[], |most| most == 7.0);
    ones.extend((0..3).map(|_| connect(&relay, ONE)));
    for _ in 0..20 {
        refused(ONE);
    }
    let others: Vec<Stream> = (0..10).map(|_| connect(&relay, OTHER)).collect();
    refused(OTHER);
    relay.expect_closed("source_limit", 21);
    assert_eq!(relay.metric("connections_open", &[]), 20.0);
    assert_eq!(relay.metric("source_connections_limit", &[]), 10.0);
    assert_eq!(relay.metric("source_connections_most", &[]), 10.0);
    assert_eq!(relay.metric("sources_open", &[]), 2.0);

    // A place that is left is free; a limit that is lowered ends nobody.
    drop(ones.pop());
    relay.expect_closed("finished", 1);
    ones.push(connect(&relay, ONE));
    relay.reconfigure(|setup| setup.settings(per_source(2)));
    relay.await_metric("source_connections_limit", &[], |limit| limit == 2.0);
    for stream in ones.iter().chain(&others) {
        stream.ping(FAST, 64, 128).unwrap();
    }
    refused(ONE);

    // The log tells that it began, and of no single connection.
    await_that("the log to tell of it", || {
        relay.process().log().contains("accept.perSource")
    });
    let log = relay.process().log();
    assert_eq!(log.matches("accept.perSource").count(), 1, "{log}");
    assert_eq!(log.matches("source_limit").count(), 0, "{log}");
    drop((ones, others));
    relay.settle();
    relay.await_metric("sources_open", &[], |sources| sources == 0.0);
    server.settle();
}

/// What is refused for its source must not wait for, or take from, what others may do.
fn one_source_at_its_limit_uses_up_nothing_of_the_rate(kind: Kind) {
    let server = Server::local(echo);
    let relay = Setup::new(kind)
        .to(&server)
        .settings(json!({"accept": {"perSource": 1, "maxPerSecond": 1}}))
        .start();
    let only = connect_from(&relay, [127, 0, 0, 1]);
    only.ping(FAST, 0, 64).unwrap();
    // The bucket holds one connection, and is empty for a second.
    relay.await_metric("accept_paused", &[], |paused| paused == 0.0);
    let begin = Instant::now();
    for _ in 0..100 {
        assert_refused(&relay, [127, 0, 0, 1]);
    }
    let other = connect_from(&relay, [127, 0, 0, 2]);
    other.ping(FAST, 0, 64).unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "at one a second 100 refusals took {:?}",
        begin.elapsed()
    );
    relay.expect_closed("source_limit", 100);
    drop((only, other));
    relay.settle();
}
