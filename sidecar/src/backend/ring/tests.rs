//! A real ring on real sockets, with each kind of buffer ring. Skipped, and said so, where there is no io_uring.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::super::pool::ENTRY_BYTES;
use super::{Allowed, Backend, Event, Operation, OperationKind, Ring, SocketId, Token};

const POOL_BYTES: usize = 4 << 20;
const STREAM_BYTES: usize = 3 << 20;
const STREAMS: usize = 3;

fn pattern(stream: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ stream.wrapping_mul(97)) as u8
}

pub(super) fn ring(want_incremental: bool) -> Option<Ring> {
    let allowed = Allowed::in_use();
    match Ring::with(Instant::now(), POOL_BYTES, 64, want_incremental, &allowed) {
        Ok(ring) => Some(ring),
        Err(error) => {
            // Aloud: cargo hides what a test that passes prints, and whoever runs the tests lists this file.
            let line = format!("backend::ring::tests: {error}\n");
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

/// Several streams at once, each with its own bytes, in receives of a limited size that are started again.
fn every_byte_comes_once_and_in_order(mut ring: Ring) {
    let pairs: Vec<_> = (0..STREAMS).map(|_| UnixStream::pair().unwrap()).collect();
    let writers: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(stream, (_, far))| {
            let mut far = far.try_clone().unwrap();
            std::thread::spawn(move || {
                let bytes: Vec<u8> = (0..STREAM_BYTES).map(|at| pattern(stream, at)).collect();
                // Pieces of many sizes, so that entries are filled in part, whole, and across their end.
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let size = (1 + rest.len() * 7919 % 150_000).min(rest.len());
                    far.write_all(&rest[..size]).unwrap();
                    rest = &rest[size..];
                }
                far.shutdown(std::net::Shutdown::Write).unwrap();
            })
        })
        .collect();
    let mut got = [0_usize; STREAMS];
    let mut ended = [false; STREAMS];
    let mut armed = [false; STREAMS];
    let began = Instant::now();
    while ended != [true; STREAMS] {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "only {got:?} bytes came"
        );
        for stream in 0..STREAMS {
            if !armed[stream] && !ended[stream] {
                armed[stream] = true;
                let socket = SocketId(pairs[stream].0.as_raw_fd());
                let token = Token::new(OperationKind::Receive, stream as u64);
                ring.start(
                    token,
                    Operation::Receive {
                        socket,
                        limit_bytes: 200_000,
                    },
                );
            }
        }
        ring.enter(64, Some(Duration::from_millis(100)));
        let mut completions = Vec::new();
        ring.reap(1024, &mut completions);
        for completion in completions {
            let stream = completion.token.key() as usize;
            armed[stream] &= completion.more;
            match completion.event {
                Event::Received(chunk) => {
                    let bytes = ring.bytes(chunk);
                    for (index, &byte) in bytes.iter().enumerate() {
                        let at = got[stream] + index;
                        assert_eq!(byte, pattern(stream, at), "byte {at} of stream {stream}");
                    }
                    got[stream] += bytes.len();
                    ring.release(chunk);
                }
                Event::EndOfStream => ended[stream] = true,
                Event::NoBuffers | Event::Cancelled => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(got, [STREAM_BYTES; STREAMS]);
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    let filled = if ring.buffers.is_incremental() {
        ENTRY_BYTES as usize
    } else {
        1
    };
    assert!(
        ring.pool().pinned_bytes < filled,
        "more is pinned than the entry being filled"
    );
}

#[test]
fn with_incremental_buffers() {
    if let Some(ring) = ring(true) {
        every_byte_comes_once_and_in_order(ring);
    }
}

#[test]
fn with_plain_buffers_and_bundles_as_before_6_12() {
    if let Some(ring) = ring(false) {
        assert!(!ring.buffers.is_incremental());
        every_byte_comes_once_and_in_order(ring);
    }
}

fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Bytes that one receive under this limit brings, of many that come in two parts; none where the kernel knows no limits.
fn brought_under(limit_bytes: u32, first_bytes: usize, mut ring: Ring) -> Option<u32> {
    let knows_limits = ring.features().exact_receive_limit;
    assert_eq!(knows_limits, kernel_version() >= (6, 17), "the trial says");
    if !knows_limits {
        return None;
    }
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(&vec![7; first_bytes]).unwrap();
    let token = Token::new(OperationKind::Receive, 1);
    let socket = SocketId(near.as_raw_fd());
    let receive = Operation::Receive {
        socket,
        limit_bytes,
    };
    ring.start(token, receive);
    let (mut got, mut is_over, mut has_more_come) = (0, false, false);
    let began = Instant::now();
    while !is_over {
        let lasts = began.elapsed();
        assert!(lasts < Duration::from_secs(10), "only {got} bytes came");
        ring.enter(64, Some(Duration::from_millis(10)));
        let mut completions = Vec::new();
        ring.reap(64, &mut completions);
        for completion in completions.iter().filter(|c| c.token == token) {
            is_over |= !completion.more;
            if let Event::Received(chunk) = completion.event {
                got += chunk.len;
                ring.release(chunk);
            }
        }
        if got > 0 && !std::mem::replace(&mut has_more_come, true) {
            far.write_all(&[7; 60_000]).unwrap();
        }
    }
    Some(got)
}

#[test]
fn a_receive_keeps_to_its_limit() {
    for want_incremental in [true, false] {
        let brings = |first_bytes| brought_under(4_000, first_bytes, ring(want_incremental)?);
        let at_once = brings(60_000);
        assert!(at_once.is_none_or(|got| got == 4_000), "{at_once:?}");
        // The last of several may bring as much as the first, whatever was left.
        let in_parts = brings(3_000);
        assert!(
            in_parts.is_none_or(|got| (4_000..8_000).contains(&got)),
            "{in_parts:?}"
        );
        println!("incremental {want_incremental}: {at_once:?}, {in_parts:?}");
    }
}

#[test]
fn what_is_in_flight_has_ended_before_the_memory_goes() {
    let Some(mut ring) = ring(true) else { return };
    let (near, _far) = UnixStream::pair().unwrap();
    let socket = SocketId(near.as_raw_fd());
    // More than a socket takes, so that sends wait for room and use the pool meanwhile.
    let chunks: Vec<_> = (0..64).map(|_| ring.own(&[7; 60_000])).collect();
    for (key, chunk) in chunks.iter().enumerate() {
        let chunks = std::slice::from_ref(chunk);
        let token = Token::new(OperationKind::Send, key as u64);
        ring.start(token, Operation::Send { socket, chunks });
    }
    let receive = Operation::Receive {
        socket,
        limit_bytes: 100,
    };
    ring.start(Token::new(OperationKind::Receive, 1), receive);
    ring.enter(128, None);
    let waits = ring.in_flight();
    assert!(waits > 2, "nothing waits: {waits}");
    // And one that the kernel has not seen.
    let chunks = &chunks[..1];
    let token = Token::new(OperationKind::Send, 99);
    ring.start(token, Operation::Send { socket, chunks });
    assert!(super::ending::end(&mut ring.ring), "operations were left");
}
