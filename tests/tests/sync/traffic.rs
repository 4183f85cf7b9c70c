//! What the tests share: a sidecar of a pod, and clients whose every byte is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use ringside_tests::await_that;
use ringside_tests::controller::{Controller, Pod};
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, echo};

/// A server that echoes and does not mind a reset.
pub(crate) fn echoing() -> Server {
    Server::local(|stream, number| echo(stream, number).or(Ok(())))
}

/// A sidecar of `pod`, which is to call `controller`.
pub(crate) fn sidecar(server: &Server, pod: &Pod, controller: &Controller) -> Setup {
    Setup::new(Kind::Auto)
        .to(server)
        .flags(pod.flags(controller.address()))
}

/// Connections that are open for as long as this lives and exchange bytes all the time.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    pings: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    #[track_caller]
    pub(crate) fn start(relay: &Relay, count: u64) -> Self {
        let mut clients = Self {
            stop: Arc::default(),
            pings: Arc::default(),
            threads: Vec::new(),
        };
        let address = relay.address();
        for seed in 0..count {
            let (stop, pings) = (clients.stop.clone(), clients.pings.clone());
            clients.threads.push(thread::spawn(move || {
                let stream = Stream::connect(address).expect("a connection");
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) {
                    stream
                        .ping(Pattern::new(seed), at, at + 500)
                        .expect("an echo");
                    at += 500;
                    pings.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        clients.await_more(count);
        clients
    }

    /// Waits until so many more pings came back.
    #[track_caller]
    pub(crate) fn await_more(&self, pings: u64) {
        let goal = self.pings.load(Ordering::Relaxed) + pings;
        await_that("pings to come back", || {
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!ended, "a connection was ended");
            self.pings.load(Ordering::Relaxed) >= goal
        });
    }

    /// Ends them; each must still be there.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.await_more(self.threads.len() as u64);
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no byte was lost");
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
