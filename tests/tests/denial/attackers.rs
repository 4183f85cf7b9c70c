//! What attackers are made of: threads that stand for other machines, an application that does as it is told, crowds.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringside_tests::await_that;
use ringside_tests::relay::Relay;
use ringside_tests::traffic::{Server, Stream, Trouble, echo};

use crate::measuring;

/// Bytes that each side's kernel may hold of a stalled stream.
const KERNEL_BYTES: usize = 64 << 10;

/// Counts what of the attackers' the relay has passed on: bytes, or connections.
pub(crate) type Passed = Arc<AtomicU64>;

/// An application whose connections say by their first byte what they are for: `e` has the rest echoed, `s` is sent to for
/// as long as it takes, `d` has all thrown away. The bytes of the last two are counted.
pub(crate) fn application() -> (Server, Passed) {
    let passed = Passed::default();
    let counted = Arc::clone(&passed);
    let server = Server::local(move |stream, number| {
        let mut kind = [0];
        let mut io = stream;
        // Attackers come and go as they like.
        if !matches!(io.read(&mut kind), Ok(1)) {
            return Ok(());
        }
        // What an attacker costs the application is not the relay's.
        if kind[0] != b'e' {
            give_way();
        }
        match kind[0] {
            b'e' => match echo(stream, number) {
                Err(trouble) if trouble.is_reset() => Ok(()),
                other => other,
            },
            b's' => {
                let sized = stream.socket().set_send_buffer_size(KERNEL_BYTES);
                sized.map_err(|source| Trouble::Io {
                    doing: "sizing",
                    after: 0,
                    source,
                })?;
                while let Ok(wrote @ 1..) = io.write(&[0; 16 << 10]) {
                    counted.fetch_add(wrote as u64, Ordering::Relaxed);
                }
                Ok(())
            }
            _ => {
                let mut thrown = [0; 16 << 10];
                while let Ok(got @ 1..) = io.read(&mut thrown) {
                    counted.fetch_add(got as u64, Ordering::Relaxed);
                }
                Ok(())
            }
        }
    });
    (server, passed)
}

/// What may go on while victims are looked at; over when dropped.
pub(crate) trait Attackers {
    /// How often they have acted so far; `None` of those who only are there.
    fn acts(&self) -> Option<u64>;
}

impl Attackers for Busy {
    fn acts(&self) -> Option<u64> {
        Some(self.done.load(Ordering::Relaxed))
    }
}

impl<S> Attackers for Vec<S> {
    fn acts(&self) -> Option<u64> {
        None
    }
}

/// Threads that do something again and again until this is dropped. They stand for other machines, and so take only what
/// time nobody here wants.
pub(crate) struct Busy {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Starts so many threads, each of which begins with `make` and repeats `act`, and waits until every one has acted.
    pub(crate) fn start<S, M, F>(threads: u64, make: M, act: F) -> Self
    where
        M: Fn(u64) -> S + Clone + Send + 'static,
        F: Fn(&mut S) + Clone + Send + 'static,
    {
        let mut busy = Busy {
            stop: Arc::default(),
            done: Arc::default(),
            threads: Vec::new(),
        };
        for number in 0..threads {
            let (stop, done) = (Arc::clone(&busy.stop), Arc::clone(&busy.done));
            let (make, act) = (make.clone(), act.clone());
            busy.threads.push(thread::spawn(move || {
                give_way();
                let mut state = make(number);
                while !stop.load(Ordering::Relaxed) {
                    act(&mut state);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let done = Arc::clone(&busy.done);
        await_that("the attackers to begin", || {
            done.load(Ordering::Relaxed) >= threads
        });
        busy
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !thread::panicking() {
                panic!("an attacker panicked");
            }
        }
    }
}

/// An application that ends every connection at once, so that a flood costs it next to nothing, and what is measured is
/// the relay.
pub(crate) struct Turnstile {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    passed: Passed,
    thread: Option<JoinHandle<()>>,
}

impl Turnstile {
    /// Starts one on 127.0.0.1.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
        socket2::SockRef::from(&listener)
            .listen(4096)
            .expect("a longer backlog");
        let address = listener.local_addr().expect("a bound listener");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let passed = Passed::default();
        let counted = Arc::clone(&passed);
        let thread = thread::spawn(move || {
            give_way();
            while !stopped.load(Ordering::Relaxed) {
                drop(listener.accept());
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Turnstile {
            address,
            stop,
            passed,
            thread: Some(thread),
        }
    }

    /// As a relay's target is written.
    pub(crate) fn target(&self) -> String {
        self.address.to_string()
    }

    /// Counts the connections that came.
    pub(crate) fn passed(&self) -> Passed {
        Arc::clone(&self.passed)
    }
}

impl Drop for Turnstile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was already printed.
            let _ = thread.join();
        }
    }
}

/// Where times are measured, lets every other thread of the machine go first.
fn give_way() {
    if !measuring::is_wanted() {
        return;
    }
    // SAFETY: setpriority takes numbers, and 0 is the calling thread. It is never refused.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// So many connections that have said what they are for, all of them with the relay when this returns, and all that moves by
/// itself has moved.
pub(crate) fn crowd(relay: &Relay, connections: usize, says: &[u8]) -> Vec<Stream> {
    let crowd: Vec<Stream> = (0..connections)
        .map(|_| {
            let stream = relay.connect();
            stream
                .socket()
                .set_recv_buffer_size(KERNEL_BYTES)
                .expect("a small receive buffer");
            // They leave without a trace, so that the next round finds everything as it was.
            stream.reset_on_close().expect("an end by a reset");
            let mut io = &stream;
            io.write_all(says).expect("the relay takes a byte");
            stream
        })
        .collect();
    relay.await_metric("connections_open", &[], |open| open >= connections as f64);
    if says == b"s" {
        let moved = || relay.metric("relayed_bytes_total", &[("direction", "to_client")]);
        // The victims' pings go on.
        let pings = (20 << 10) as f64;
        let mut last = moved();
        await_that("the streams to come to a standstill", || {
            thread::sleep(Duration::from_millis(20));
            let now = moved();
            let moves = now - std::mem::replace(&mut last, now);
            moves < pings
        });
    }
    crowd
}
