//! Every byte arrives once and in its place, in all sizes and numbers.

use ringside_tests::await_that;
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, Trouble, echo};

ringside_tests::instances! {
    everywhere: [
        both_ways_at_once,
        a_byte_at_a_time,
        a_thousand_connections_at_once,
        many_sizes_side_by_side,
        streams_and_quiet_in_turns,
        two_workers_serve_alike,
    ],
    ringside: [a_stream_is_spliced],
}

const UP: Pattern = Pattern::new(1);
const DOWN: Pattern = Pattern::new(2);

/// A server that exchanges `bytes` each way, and both ends.
fn exchanging(bytes: u64, piece: usize) -> Server {
    Server::local(move |stream, _| {
        stream.exchange(DOWN, UP, 0..bytes, piece)?;
        end(stream, bytes)
    })
}

fn end(stream: &Stream, bytes: u64) -> Result<(), Trouble> {
    stream.finish().map_err(|source| Trouble::Io {
        doing: "finishing",
        after: bytes,
        source,
    })?;
    stream.receive_end(bytes)
}

fn exchange(relay: &Relay, bytes: u64, piece: usize) {
    let stream = relay.connect();
    stream
        .exchange(UP, DOWN, 0..bytes, piece)
        .and_then(|()| end(&stream, bytes))
        .unwrap_or_else(|trouble| {
            panic!("at the client: {trouble}");
        });
}

fn both_ways_at_once(kind: Kind) {
    const BYTES: u64 = 64 << 20;
    let server = exchanging(BYTES, 64 << 10);
    let relay = Setup::new(kind).to(&server).start();
    exchange(&relay, BYTES, 64 << 10);
    server.settle();
    relay.expect_closed("finished", 1);
    relay.settle();
    if relay.tells() {
        assert_eq!(relay.metric("relayed_bytes_total", &[]), (2 * BYTES) as f64);
    }
}

/// Where bytes only stream, most of them never come to the relay's memory.
fn a_stream_is_spliced(kind: Kind) {
    const BYTES: u64 = 256 << 20;
    let server = Server::local(|stream, _| {
        stream.receive(UP, 0, BYTES)?;
        end(stream, BYTES)
    });
    let relay = Setup::new(kind).to(&server).start();
    let client = relay.connect();
    client.send(UP, 0, BYTES, 256 << 10).unwrap();
    end(&client, 0).unwrap();
    relay.expect_closed("finished", 1);
    let spliced = relay.metric("spliced_bytes_total", &[]);
    assert!(spliced > BYTES as f64 / 2.0, "{spliced} bytes were spliced");
}

fn a_byte_at_a_time(kind: Kind) {
    const BYTES: u64 = 20_000;
    let server = exchanging(BYTES, 1);
    let relay = Setup::new(kind).to(&server).start();
    exchange(&relay, BYTES, 1);
    server.settle();
    relay.expect_closed("finished", 1);
}

fn a_thousand_connections_at_once(kind: Kind) {
    const COUNT: u64 = 1000;
    const BYTES: u64 = 4096;
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).start();
    let streams: Vec<Stream> = (0..COUNT).map(|_| relay.connect()).collect();
    await_that("the server to have them all", || server.accepted() == COUNT);
    relay.await_metric("connections_open", &[], |open| open == COUNT as f64);
    for round in 0..3 {
        let (from, to) = (round * BYTES, (round + 1) * BYTES);
        for (seed, stream) in (0..).zip(&streams) {
            stream.send(Pattern::new(seed), from, to, 4096).unwrap();
        }
        for (seed, stream) in (0..).zip(&streams) {
            stream
                .receive(Pattern::new(seed), from, to)
                .unwrap_or_else(|trouble| panic!("client {seed}: {trouble}"));
        }
    }
    for stream in &streams {
        stream.finish().unwrap();
    }
    for stream in &streams {
        stream.receive_end(3 * BYTES).unwrap();
    }
    server.settle();
    relay.expect_closed("finished", COUNT as u32);
    relay.settle();
}

fn many_sizes_side_by_side(kind: Kind) {
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).start();
    std::thread::scope(|scope| {
        for seed in 0..16_u64 {
            let relay = &relay;
            scope.spawn(move || {
                let stream = relay.connect();
                let pattern = Pattern::new(seed);
                let mut at = 0;
                // Sizes around every boundary that a relay may have: 1, 2, 4 ... 512 Ki, less one, and one more.
                for power in 0..20 {
                    for size in [(1 << power) - 1, 1 << power, (1 << power) + 1] {
                        let piece = 700 + (seed as usize * 7919) % 70_000;
                        let result = stream.exchange(pattern, pattern, at..at + size, piece);
                        result.unwrap_or_else(|trouble| {
                            panic!("client {seed}, {size} bytes from {at}: {trouble}")
                        });
                        at += size;
                    }
                }
                end(&stream, at).unwrap();
            });
        }
    });
    server.settle();
    relay.expect_closed("finished", 16);
}

/// A relay that treats streams specially has to change its way, and back, without a byte lost.
fn streams_and_quiet_in_turns(kind: Kind) {
    const BULK: u64 = 12 << 20;
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).start();
    let stream = relay.connect();
    let mut at = 0;
    for turn in 0..3 {
        stream
            .exchange(UP, UP, at..at + BULK, 256 << 10)
            .unwrap_or_else(|trouble| panic!("bulk {turn}: {trouble}"));
        at += BULK;
        for ping in 0..200 {
            stream
                .ping(UP, at, at + 10)
                .unwrap_or_else(|trouble| panic!("ping {ping} of turn {turn}: {trouble}"));
            at += 10;
        }
    }
    end(&stream, at).unwrap();
    server.settle();
    relay.expect_closed("finished", 1);
}

fn two_workers_serve_alike(kind: Kind) {
    const COUNT: u64 = 64;
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).workers(2).start();
    let streams: Vec<Stream> = (0..COUNT).map(|_| relay.connect()).collect();
    for (seed, stream) in (0..).zip(&streams) {
        stream
            .ping(Pattern::new(seed), 0, 10_000)
            .unwrap_or_else(|trouble| panic!("client {seed}: {trouble}"));
        end(stream, 10_000).unwrap();
    }
    server.settle();
    relay.expect_closed("finished", COUNT as u32);
    relay.settle();
}
