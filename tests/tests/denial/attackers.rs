//! What attackers are made of: threads that stand for other machines, an application that does as it is told, crowds.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringside_tests::await_that;
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::{Server, Stream, Trouble, echo};

/// Bytes that each side's kernel may hold of a stalled stream.
const KERNEL_BYTES: usize = 64 << 10;

/// What is measured goes before other work of the machine by so much.
const NICENESS: i32 = -15;

/// An application whose connections say by their first byte what they are for: `e` has the rest echoed, `s` is sent to for
/// as long as it takes, `d` has all thrown away.
pub(crate) fn application() -> Server {
    Server::local(|stream, number| {
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
                while io.write_all(&[0; 16 << 10]).is_ok() {}
                Ok(())
            }
            _ => {
                let mut thrown = [0; 16 << 10];
                while io.read(&mut thrown).is_ok_and(|got| got > 0) {}
                Ok(())
            }
        }
    })
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
        let thread = thread::spawn(move || {
            give_way();
            while !stopped.load(Ordering::Relaxed) {
                drop(listener.accept());
            }
        });
        Turnstile {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// As a relay's target is written.
    pub(crate) fn target(&self) -> String {
        self.address.to_string()
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

/// Lets every other thread of the machine go first.
fn give_way() {
    set_niceness(19);
}

/// Has this thread, and those that it starts, go before whatever else this machine is busy with, where that is allowed.
pub(crate) fn go_first() {
    set_niceness(NICENESS);
}

fn set_niceness(niceness: i32) {
    // SAFETY: setpriority takes numbers, and 0 is the calling thread. Where it is refused nothing changes.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
}

/// The relay of a measurement, which goes first as its victims do.
pub(crate) fn relay(kind: Kind) -> Setup {
    Setup::new(kind).under(["nice", "-n", &NICENESS.to_string()])
}

/// So many connections that have said what they are for, all of them with the application when this returns, and all that
/// moves by itself has moved.
pub(crate) fn crowd(
    relay: &Relay,
    server: &Server,
    connections: usize,
    says: &[u8],
) -> Vec<Stream> {
    let before = server.accepted();
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
    await_that("the application to have the crowd", || {
        server.accepted() == before + connections as u64
    });
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
