//! How connections end: a half-close stays a half-close, a reset stays a reset, and each is counted once.

use std::net::Shutdown;
use std::sync::mpsc;

use ringside_tests::PATIENCE;
use ringside_tests::await_that;
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, Trouble, echo};

ringside_tests::instances! {
    everywhere: [
        the_client_ends_first_and_gets_its_answer,
        the_server_ends_first_and_still_listens,
        an_answer_and_an_end_at_once,
        clients_gone_before_they_were_accepted,
    ],
    ringside: [
        nothing_at_all_is_a_connection_too,
        a_reset_by_the_client_reaches_the_server,
        a_reset_by_the_server_reaches_the_client,
        a_reset_after_a_half_close_is_passed_on,
        resets_amid_streams_both_ways,
    ],
}

const UP: Pattern = Pattern::new(3);
const DOWN: Pattern = Pattern::new(4);
const BYTES: u64 = 3 << 20;

fn finish(stream: &Stream) -> Result<(), Trouble> {
    stream.finish().map_err(|source| Trouble::Io {
        doing: "finishing",
        after: 0,
        source,
    })
}

/// The next connection is relayed as if nothing had been.
fn still_works(relay: &Relay) {
    let stream = relay.connect();
    finish(&stream).and_then(|()| stream.await_gone()).unwrap();
}

fn the_client_ends_first_and_gets_its_answer(kind: Kind) {
    let server = Server::local(|stream, _| {
        stream.receive_to_end(UP, 0, BYTES)?;
        stream.send(DOWN, 0, BYTES, 10_000)
    });
    let relay = Setup::new(kind).to(&server).start();
    let stream = relay.connect();
    stream.send(UP, 0, BYTES, 10_000).unwrap();
    stream.finish().unwrap();
    stream.receive_to_end(DOWN, 0, BYTES).unwrap();
    server.settle();
    relay.expect_closed("finished", 1);
}

fn the_server_ends_first_and_still_listens(kind: Kind) {
    let server = Server::local(|stream, _| {
        stream.send(DOWN, 0, BYTES, 10_000)?;
        finish(stream)?;
        stream.receive_to_end(UP, 0, BYTES)
    });
    let relay = Setup::new(kind).to(&server).start();
    let stream = relay.connect();
    stream.receive_to_end(DOWN, 0, BYTES).unwrap();
    stream.send(UP, 0, BYTES, 10_000).unwrap();
    stream.finish().unwrap();
    server.settle();
    relay.expect_closed("finished", 1);
}

/// A server that answers and closes at once, many times: the answer must never be cut off by the end behind it.
fn an_answer_and_an_end_at_once(kind: Kind) {
    let server = Server::local(|stream, number| stream.send(DOWN, 0, 1 + number * 997, 1 << 20));
    let relay = Setup::new(kind).to(&server).start();
    for number in 0..200 {
        let stream = relay.connect();
        let came = stream.receive_to_end(DOWN, 0, 1 + number * 997);
        came.unwrap_or_else(|trouble| panic!("answer {number}: {trouble}"));
    }
    server.settle();
    relay.expect_closed("finished", 200);
    relay.settle();
}

fn nothing_at_all_is_a_connection_too(kind: Kind) {
    let server = Server::local(echo);
    let relay = Setup::new(kind).to(&server).start();
    for _ in 0..100 {
        let stream = relay.connect();
        finish(&stream)
            .and_then(|()| stream.receive_end(0))
            .unwrap();
    }
    server.settle();
    relay.expect_closed("finished", 100);
    relay.settle();
}

fn clients_gone_before_they_were_accepted(kind: Kind) {
    let server = Server::local(|stream, number| echo(stream, number).or_else(ignore_resets));
    let relay = Setup::new(kind).to(&server).start();
    still_works(&relay);
    relay.process().signal(libc::SIGSTOP);
    for number in 0..50 {
        let stream = relay.connect();
        if number % 2 == 0 {
            stream.send(UP, 0, 100, 100).unwrap();
            stream.reset().unwrap();
        } else {
            stream.shutdown(Shutdown::Both).unwrap();
        }
    }
    relay.process().signal(libc::SIGCONT);
    still_works(&relay);
    relay.settle();
    server.settle();
}

fn ignore_resets(trouble: Trouble) -> Result<(), Trouble> {
    if trouble.is_reset() {
        Ok(())
    } else {
        Err(trouble)
    }
}

/// A server that hands its connection's end over to the test: what it met.
fn watching() -> (Server, mpsc::Receiver<Result<u64, Trouble>>) {
    let (sender, receiver) = mpsc::channel();
    let server = Server::local(move |stream, _| {
        // A reset overtakes what was sent just before it, so it may come in the middle of the first hundred bytes.
        let met = stream
            .ping(UP, 0, 100)
            .and_then(|()| stream.receive_some(UP, 100, u64::MAX));
        // The test may have failed and gone.
        let _ = sender.send(met);
        Ok(())
    });
    (server, receiver)
}

/// The client's half of [`watching`]'s beginning.
fn begin(stream: &Stream) {
    stream
        .receive(UP, 0, 100)
        .and_then(|()| stream.send(UP, 0, 100, 100))
        .unwrap();
}

#[track_caller]
fn assert_reset(met: &mpsc::Receiver<Result<u64, Trouble>>) {
    let met = met
        .recv_timeout(PATIENCE)
        .expect("the server's connection ends");
    assert!(
        matches!(&met, Err(trouble) if trouble.is_reset()),
        "the server met {met:?}, and a reset was due"
    );
}

fn a_reset_by_the_client_reaches_the_server(kind: Kind) {
    let (server, met) = watching();
    let relay = Setup::new(kind).to(&server).start();
    let stream = relay.connect();
    begin(&stream);
    stream.reset().unwrap();
    assert_reset(&met);
    relay.expect_closed("client_reset", 1);
    relay.settle();
}

fn a_reset_by_the_server_reaches_the_client(kind: Kind) {
    let server = Server::local(|stream, _| {
        stream.receive(UP, 0, 100)?;
        stream.reset_on_close().map_err(|source| Trouble::Io {
            doing: "resetting",
            after: 100,
            source,
        })
    });
    let relay = Setup::new(kind).to(&server).start();
    let stream = relay.connect();
    stream.send(UP, 0, 100, 100).unwrap();
    stream.expect_reset();
    server.settle();
    relay.expect_closed("upstream_reset", 1);
    relay.settle();
}

fn a_reset_after_a_half_close_is_passed_on(kind: Kind) {
    let (ended, has_ended) = mpsc::channel();
    let (sender, met) = mpsc::channel();
    let server = Server::local(move |stream, _| {
        stream.receive_to_end(UP, 0, 100)?;
        // The test may have failed and gone.
        let _ = ended.send(());
        // Nothing more is to come on a stream that has ended, so the reset shows when something is sent.
        let _ = sender.send(stream.send(DOWN, 0, u64::MAX, 1 << 16).map(|()| 0));
        Ok(())
    });
    let relay = Setup::new(kind).to(&server).start();
    let stream = relay.connect();
    stream.send(UP, 0, 100, 100).unwrap();
    stream.finish().unwrap();
    has_ended
        .recv_timeout(PATIENCE)
        .expect("the half-close arrives");
    stream.reset().unwrap();
    assert_reset(&met);
    relay.expect_closed("client_reset", 1);
}

fn resets_amid_streams_both_ways(kind: Kind) {
    let server = Server::local(|stream, number| {
        let result = stream.exchange(DOWN, UP, 0..1 << 40, 64 << 10);
        match result {
            Err(Trouble::Mismatch(mismatch)) => Err(Trouble::Mismatch(mismatch)),
            other => {
                let other = other.err().map(|trouble| trouble.to_string());
                assert!(other.is_some(), "connection {number} had an end");
                Ok(())
            }
        }
    });
    let relay = Setup::new(kind).to(&server).start();
    for number in 0..20_u64 {
        let stream = relay.connect();
        // So much comes first that the relay is in the middle of whatever it does with streams.
        stream.send(UP, 0, 1 << 16, 1 << 16).unwrap();
        stream
            .receive(DOWN, 0, (1 + number) << 19)
            .unwrap_or_else(|trouble| panic!("stream {number}: {trouble}"));
        stream.reset().unwrap();
    }
    await_that("all of them at the server", || server.accepted() == 20);
    server.settle();
    relay.expect_closed("client_reset", 20);
    relay.settle();
}
