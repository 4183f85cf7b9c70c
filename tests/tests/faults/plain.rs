//! One EAGAIN, to tokio-uring as it comes and to the backend that is built on it: the one never answers again of its
//! own, the other within the longest backoff.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use ringside::backend::inject::{Errno, Injector, Syscalls};
use ringside_tests::processes::Process;
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::{PATIENCE, await_some, namespaced};

use crate::load::echoing;

/// The default of `backoff.max`.
const BACKOFF_MOST: Duration = Duration::from_millis(50);

/// Forty times as long as the backend may take.
const LONG: Duration = Duration::from_secs(2);

const PING: [u8; 64] = [7; 64];

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Waits so long for the answer to a ping that was sent.
fn answer(mut stream: &TcpStream, patience: Duration) -> io::Result<Duration> {
    stream.set_read_timeout(Some(patience))?;
    let (begin, mut answer) = (Instant::now(), [0; PING.len()]);
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, PING);
    Ok(begin.elapsed())
}

fn ping(mut stream: &TcpStream, patience: Duration) -> io::Result<Duration> {
    stream.write_all(&PING)?;
    answer(stream, patience)
}

/// Has the next submission fail, which a ping then brings about.
fn ping_through_eagain(
    stream: &TcpStream,
    injector: &Injector,
    patience: Duration,
) -> io::Result<Duration> {
    let failed = injector.counts().failed;
    injector.fail_next(1, Errno::EAGAIN);
    let took = ping(stream, patience);
    assert_eq!(injector.counts().failed, failed + 1);
    took
}

namespaced!(plain_tokio_uring_never_answers_again, {
    let server = Process::start_watched("plain tokio-uring", Some(Syscalls::Submissions), |_| {
        Command::new(env!("CARGO_BIN_EXE_plain-tokio-uring"))
    });
    let address = await_some("its address", || {
        server.log().lines().next()?.parse::<SocketAddr>().ok()
    });
    let stream = connect(address);
    for _ in 0..5 {
        ping(&stream, PATIENCE).unwrap();
    }
    let took = ping_through_eagain(&stream, server.injector(), LONG);
    assert!(took.is_err(), "it was answered after {took:?}");
    // Nothing of it is lost: whatever wakes the thread brings it.
    let other = connect(address);
    answer(&stream, PATIENCE).unwrap();
    ping(&other, PATIENCE).unwrap();
});

namespaced!(the_backend_on_it_answers_within_the_backoff, {
    let server = echoing();
    let setup = Setup::new(Kind::TokioUring).to(&server);
    let relay = setup.watched(Syscalls::Submissions).start();
    let stream = connect(relay.address());
    ping(&stream, PATIENCE).unwrap();
    let mut times: Vec<_> = (0..25)
        .map(|_| ping_through_eagain(&stream, relay.injector(), LONG).unwrap())
        .collect();
    times.sort();
    println!("answered after {times:?}");
    // The median, as a busy machine adds to some.
    assert!(times[12] < BACKOFF_MOST, "{times:?}");
});
