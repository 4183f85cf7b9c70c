//! Clients that keep a relay busy and check every byte; what ended early is counted, what is wrong fails the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use ringside_tests::await_that;
use ringside_tests::relay::Relay;
use ringside_tests::traffic::{Pattern, Server, Stream, Trouble, echo};

/// How many bytes a client with a stream exchanges in a round.
const ROUND_BYTES: u64 = 2 << 20;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    rounds: AtomicU64,
    ended: AtomicU64,
}

/// Clients of a relay before an echoing server.
pub(crate) struct Load {
    shared: Arc<Shared>,
    address: SocketAddr,
    streams: bool,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

/// An echoing server that does not mind a reset.
pub(crate) fn echoing() -> Server {
    Server::local(|stream, number| match echo(stream, number) {
        Err(trouble) if trouble.is_reset() => Ok(()),
        other => other,
    })
}

impl Load {
    /// Starts `clients`, every fourth with streams and the others with pings, and waits until each has had answers.
    #[track_caller]
    pub(crate) fn start(relay: &Relay, clients: u64) -> Self {
        Self::with(relay, clients, true)
    }

    /// Starts `clients` with pings only. A stream may be spliced, and then goes on while nothing can be submitted.
    #[track_caller]
    pub(crate) fn pings(relay: &Relay, clients: u64) -> Self {
        Self::with(relay, clients, false)
    }

    #[track_caller]
    fn with(relay: &Relay, clients: u64, streams: bool) -> Self {
        let mut load = Self {
            shared: Arc::default(),
            address: relay.address(),
            streams,
            clients: Vec::new(),
        };
        load.add(clients);
        load.await_rounds(clients * 4);
        load
    }

    /// Starts more clients, without waiting for them.
    pub(crate) fn add(&mut self, clients: u64) {
        let first = self.clients.len() as u64;
        for seed in first..first + clients {
            let (shared, address, streams) = (Arc::clone(&self.shared), self.address, self.streams);
            self.clients.push(thread::spawn(move || {
                client(&shared, address, seed, streams)
            }));
        }
    }

    /// Rounds that were answered so far, of all clients.
    pub(crate) fn rounds(&self) -> u64 {
        self.shared.rounds.load(Ordering::Relaxed)
    }

    /// Waits for so many rounds more.
    #[track_caller]
    pub(crate) fn await_rounds(&self, more: u64) {
        let aim = self.rounds() + more;
        await_that("the clients to get answers", || {
            assert!(
                !self.clients.iter().all(JoinHandle::is_finished),
                "no client is left"
            );
            self.rounds() >= aim
        });
    }

    /// Lets the clients end, checks that no byte was lost or out of place, and returns how many were ended early.
    #[track_caller]
    pub(crate) fn finish(mut self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            match client.join() {
                Ok(Ok(())) => {}
                Ok(Err(trouble)) => panic!("{trouble}"),
                Err(_) => panic!("a client panicked"),
            }
        }
        self.shared.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After a failure the clients end when the relay does.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn client(shared: &Shared, address: SocketAddr, seed: u64, streams: bool) -> Result<(), String> {
    let stream = Stream::connect(address)
        .map_err(|error| format!("client {seed} cannot connect: {error}"))?;
    let pattern = Pattern::new(seed);
    let mut at = 0;
    let result = loop {
        if shared.stop.load(Ordering::Relaxed) {
            let finishing = |source| Trouble::Io {
                doing: "finishing",
                after: at,
                source,
            };
            break stream
                .finish()
                .map_err(finishing)
                .and_then(|()| stream.receive_end(at));
        }
        let size = if streams && seed.is_multiple_of(4) {
            ROUND_BYTES
        } else {
            1 + (at * 31 + seed) % 3000
        };
        if let Err(trouble) = stream.exchange(pattern, pattern, at..at + size, 64 << 10) {
            break Err(trouble);
        }
        at += size;
        shared.rounds.fetch_add(1, Ordering::Relaxed);
    };
    match result {
        Ok(()) => Ok(()),
        Err(Trouble::EndedEarly { .. }) => ended(shared),
        Err(trouble) if trouble.is_reset() => ended(shared),
        Err(trouble) => Err(format!("client {seed}, round from byte {at}: {trouble}")),
    }
}

fn ended(shared: &Shared) -> Result<(), String> {
    shared.ended.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
