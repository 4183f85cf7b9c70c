//! The backend on real sockets. Skipped, and said so, where there is no io_uring.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Backend, Event, Operation, Outcome, SocketId, Token, TokioUring};
use crate::backend::pool::ENTRY_BYTES;
use crate::backend::{Completion, OperationKind};

const PATIENCE: Duration = Duration::from_secs(10);
const BATCH: u32 = 64;

fn backend() -> Option<TokioUring> {
    match TokioUring::new(Instant::now(), 4 << 20, 64) {
        Ok(backend) => Some(backend),
        Err(error) => {
            // Aloud: cargo hides what a test that passes prints, and whoever runs the tests lists this file.
            let line = format!("backend::tokio_uring::tests: {error}\n");
            let _ = write!(std::io::stderr(), "SKIPPED {line}");
            if let Some(list) = std::env::var_os("RINGSIDE_SKIPPED") {
                let list = std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(list);
                list.unwrap().write_all(line.as_bytes()).unwrap();
            }
            None
        }
    }
}

fn token(kind: OperationKind) -> Token {
    Token::new(kind, 7)
}

/// Turns until the operation is over; what it told.
fn until_over(backend: &mut TokioUring, target: Token) -> Vec<Event> {
    let begin = Instant::now();
    let mut events = Vec::new();
    loop {
        let mut completions: Vec<Completion> = Vec::new();
        backend.reap(64, &mut completions);
        for completion in completions.into_iter().filter(|c| c.token == target) {
            events.push(completion.event);
            if !completion.more {
                return events;
            }
        }
        assert!(begin.elapsed() < PATIENCE, "not over: {events:?}");
        let entered = backend.enter(BATCH, Some(PATIENCE / 10));
        assert!(!entered.outcome.is_fatal(), "{entered:?}");
    }
}

#[test]
fn every_byte_comes_once_and_in_order() {
    let Some(mut backend) = backend() else { return };
    let (near, mut far) = UnixStream::pair().unwrap();
    let socket = SocketId(near.as_raw_fd());
    let sent: Vec<u8> = (0..1_000_000_u32)
        .map(|at| ((at * 31) >> 3) as u8)
        .collect();
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || {
        far.write_all(&bytes).unwrap();
    });
    let mut got = Vec::new();
    let receive = token(OperationKind::Receive);
    loop {
        let limit_bytes = 100_000;
        let before = got.len();
        backend.start(
            receive,
            Operation::Receive {
                socket,
                limit_bytes,
            },
        );
        let events = until_over(&mut backend, receive);
        for event in &events {
            if let Event::Received(chunk) = *event {
                got.extend_from_slice(backend.bytes(chunk));
                backend.release(chunk);
            }
        }
        if events.contains(&Event::EndOfStream) {
            break;
        }
        assert_eq!(got.len(), before + 100_000, "the limit is kept to the byte");
    }
    writer.join().unwrap();
    assert!(got == sent, "{} bytes of {} came", got.len(), sent.len());
    // At most what is filled of the entry that is being filled.
    assert!(backend.pool().pinned_bytes < ENTRY_BYTES as usize);
    assert_eq!(backend.in_flight(), 0);
}

#[test]
fn a_send_that_nobody_takes_can_be_ended() {
    let Some(mut backend) = backend() else { return };
    let (near, far) = UnixStream::pair().unwrap();
    let socket = SocketId(near.as_raw_fd());
    let send = token(OperationKind::Send);
    let chunk = backend.own(&vec![1; 4 << 20]);
    backend.start(
        send,
        Operation::Send {
            socket,
            chunks: &[chunk],
        },
    );
    // Taken, and as far as the socket lets it.
    assert_eq!(backend.enter(BATCH, None).outcome, Outcome::All);
    let cancel = Operation::Cancel {
        target: send,
        socket,
    };
    backend.start(Token::INTERNAL, cancel);
    let events = until_over(&mut backend, send);
    assert!(
        matches!(events[..], [Event::Sent(_) | Event::Cancelled]),
        "{events:?}"
    );
    backend.release(chunk);
    drop(far);
}

#[test]
fn a_socket_that_is_still_polled_ends_for_the_other_side_at_once() {
    let Some(mut backend) = backend() else { return };
    let (near, mut far) = UnixStream::pair().unwrap();
    let fd = near.into_raw_fd();
    let watch = token(OperationKind::Watch);
    backend.start(
        watch,
        Operation::Watch {
            socket: SocketId(fd),
        },
    );
    assert_eq!(backend.enter(BATCH, None).outcome, Outcome::All);
    let target = (watch, SocketId(fd));
    backend.cancel_now(target.0, target.1);
    assert_eq!(until_over(&mut backend, watch), [Event::Cancelled]);
    backend.close(SocketId(fd), false);
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
    // The descriptor goes once the ring has let go of it.
    let begin = Instant::now();
    while backend.sockets[fd as usize].closes {
        assert!(begin.elapsed() < PATIENCE, "the descriptor stays open");
        backend.enter(BATCH, Some(Duration::from_millis(10)));
    }
}

#[test]
fn a_wake_from_another_thread_ends_the_wait() {
    let Some(mut backend) = backend() else { return };
    let waker = backend.waker();
    let other = std::thread::spawn(move || waker.wake());
    let begin = Instant::now();
    let mut completions = Vec::new();
    while completions.is_empty() {
        assert!(begin.elapsed() < PATIENCE);
        backend.enter(BATCH, Some(PATIENCE));
        backend.reap(8, &mut completions);
    }
    assert_eq!(completions[0].event, Event::Woken);
    other.join().unwrap();
}

#[test]
fn a_task_that_panics_breaks_the_backend_and_not_the_process() {
    let Some(mut backend) = backend() else { return };
    backend.driven.panic_in_a_task();
    assert_eq!(backend.enter(BATCH, None).outcome, Outcome::Broken);
    // And it stays so, and can be given up.
    assert_eq!(backend.enter(BATCH, None).outcome, Outcome::Broken);
    backend.abandon();
    assert!(TokioUring::new(Instant::now(), 1 << 20, 64).is_ok());
}

#[test]
fn a_backend_with_operations_in_flight_ends() {
    let Some(mut backend) = backend() else { return };
    let (near, far) = UnixStream::pair().unwrap();
    let receive = token(OperationKind::Receive);
    let socket = SocketId(near.as_raw_fd());
    backend.start(
        receive,
        Operation::Receive {
            socket,
            limit_bytes: 100,
        },
    );
    assert_eq!(backend.enter(BATCH, None).outcome, Outcome::All);
    let begin = Instant::now();
    assert!(backend.driven.end(), "the ring was left behind");
    drop(backend);
    assert!(begin.elapsed() < PATIENCE);
    drop(far);
}
