//! The restrictions, asked of the kernel: what is not on the list is refused, and nothing on it can be spared.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{Probe, opcode};
use socket2::SockAddr;

use super::Allowed;
use crate::backend::ring::tests::ring;
use crate::backend::ring::{Ring, SetupError};
use crate::backend::{
    Backend, Completion, Event, Operation, OperationKind, SocketId, SocketOptions, Token,
};

/// Far above what an operation on a socket pair takes.
const LIMIT: Duration = Duration::from_secs(2);

/// How the kernel answers an entry of any kind.
fn answer(ring: &mut Ring, entry: &Entry) -> i32 {
    const MARK: u64 = 0x5eed;
    let entry = entry.clone().user_data(MARK);
    // SAFETY: the entries of these tests point at nothing.
    unsafe { ring.ring.submission().push(&entry) }.unwrap();
    ring.ring.submit_and_wait(1).unwrap();
    let found = ring.ring.completion().find(|cqe| cqe.user_data() == MARK);
    found.expect("the entry completes").result()
}

#[test]
fn an_operation_that_is_not_listed_is_refused() {
    let Some(mut ring) = ring(true) else { return };
    let fd = Fd(ring.waker.fd());
    let forbidden: [(&str, Entry); 9] = [
        (
            "openat",
            opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/dev/null".as_ptr()).build(),
        ),
        (
            "read",
            opcode::Read::new(fd, std::ptr::null_mut(), 0).build(),
        ),
        ("write", opcode::Write::new(fd, std::ptr::null(), 0).build()),
        ("close", opcode::Close::new(Fd(-1)).build()),
        (
            "socket",
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
        ),
        ("splice", opcode::Splice::new(fd, -1, fd, -1, 0).build()),
        ("shutdown", opcode::Shutdown::new(fd, 0).build()),
        ("poll remove", opcode::PollRemove::new(1).build()),
        (
            "files update",
            opcode::FilesUpdate::new(std::ptr::null(), 0).build(),
        ),
    ];
    for (name, entry) in forbidden {
        assert_eq!(answer(&mut ring, &entry), -libc::EACCES, "{name}");
    }
    // Refused for its number, not for what it asks: one that is listed goes through.
    assert_eq!(answer(&mut ring, &opcode::Nop::new().build()), 0);
}

#[test]
fn a_flag_that_is_not_listed_is_refused() {
    let Some(mut ring) = ring(true) else { return };
    for flag in [
        Flags::IO_DRAIN,
        Flags::IO_LINK,
        Flags::IO_HARDLINK,
        Flags::ASYNC,
    ] {
        let entry = opcode::Nop::new().build().flags(flag);
        assert_eq!(answer(&mut ring, &entry), -libc::EACCES, "{flag:?}");
    }
}

#[test]
fn a_registration_that_is_not_listed_is_refused() {
    let Some(ring) = ring(true) else { return };
    let submitter = ring.ring.submitter();
    let sockets = UnixStream::pair().unwrap();
    let forbidden = [
        ("files", submitter.register_files(&[sockets.0.as_raw_fd()])),
        ("eventfd", submitter.register_eventfd(ring.waker.fd())),
        ("a probe", submitter.register_probe(&mut Probe::new())),
        ("a personality", submitter.register_personality().map(drop)),
        (
            "a worker limit",
            submitter.register_iowq_max_workers(&mut [0, 0]),
        ),
        ("buffers gone", submitter.unregister_buf_ring(0)),
    ];
    for (name, result) in forbidden {
        let errno = result.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::EACCES), "{name}");
    }
}

#[test]
fn restrictions_cannot_be_taken_back() {
    let Some(ring) = ring(true) else { return };
    let again = Allowed::in_use().restrict(&ring.ring).unwrap_err();
    assert!(
        matches!(again.errno.0, libc::EBADFD | libc::EACCES | libc::EBUSY),
        "{again}"
    );
}

/// A ring held to `allowed`, put through everything that a worker asks of it.
///
/// # Errors
/// What was refused, in words: at set-up or later.
fn everything(allowed: &Allowed) -> Result<(), String> {
    let told = |error: SetupError| error.to_string();
    let mut ring = Ring::with(Instant::now(), 1 << 20, 64, true, allowed).map_err(told)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = SocketId(listener.as_raw_fd());

    // Accept: one, then many.
    let client = connect(&mut ring, address)?;
    let operation = Operation::Accept {
        listener: accepting,
        once: true,
    };
    let (_, server) = accepted(run(&mut ring, OperationKind::Accept, operation)?)?;
    let operation = Operation::Accept {
        listener: accepting,
        once: false,
    };
    let many = start(&mut ring, OperationKind::Accept, operation);
    let _second = TcpStream::connect(address).unwrap();
    accepted(next(&mut ring, many)?)?;
    cancelled(&mut ring, many, accepting)?;

    // Bytes: sent plain and gathered, and received.
    let one = ring.own(b"one");
    let two = ring.own(b"two");
    for chunks in [&[one][..], &[one, two]] {
        let operation = Operation::Send {
            socket: client,
            chunks,
        };
        match run(&mut ring, OperationKind::Send, operation)?.event {
            Event::Sent(bytes) if bytes == 3 * chunks.len() as u32 => {}
            other => return Err(format!("a send of {} chunks: {other:?}", chunks.len())),
        }
    }
    ring.release(one);
    ring.release(two);
    let operation = Operation::Receive {
        socket: server,
        limit_bytes: 3,
    };
    match run(&mut ring, OperationKind::Receive, operation)?.event {
        Event::Received(chunk) => ring.release(chunk),
        other => return Err(format!("a receive: {other:?}")),
    }

    // Readiness, and the end of what waits for it.
    let poll = start(
        &mut ring,
        OperationKind::Poll,
        Operation::Poll { socket: client },
    );
    match next(&mut ring, poll)?.event {
        Event::Ready(readiness) if readiness.writable => {}
        other => return Err(format!("a poll: {other:?}")),
    }
    cancelled(&mut ring, poll, client)?;
    let watch = start(
        &mut ring,
        OperationKind::Watch,
        Operation::Watch { socket: client },
    );
    ring.enter(64, None);
    ring.cancel_now(watch, client);
    if ring.queued() != 0 {
        return Err("a cancel that needs no entry was refused".to_owned());
    }
    let event = next(&mut ring, watch)?.event;
    ring.close(client, false);
    ring.close(server, false);
    match event {
        Event::Cancelled => Ok(()),
        other => Err(format!("a watch: {other:?}")),
    }
}

fn start(ring: &mut Ring, kind: OperationKind, operation: Operation<'_>) -> Token {
    let token = Token::new(kind, u64::from(ring.pushed));
    ring.start(token, operation);
    token
}

/// The next thing that happens to an operation.
fn next(ring: &mut Ring, token: Token) -> Result<Completion, String> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        ring.enter(64, Some(Duration::from_millis(100)));
        let mut completions = Vec::new();
        ring.reap(64, &mut completions);
        if let Some(&found) = completions.iter().find(|found| found.token == token) {
            return Ok(found);
        }
    }
    Err(format!("nothing was heard of {token:?}"))
}

fn run(
    ring: &mut Ring,
    kind: OperationKind,
    operation: Operation<'_>,
) -> Result<Completion, String> {
    let token = start(ring, kind, operation);
    next(ring, token)
}

fn connect(ring: &mut Ring, address: SocketAddr) -> Result<SocketId, String> {
    let address = SockAddr::from(address);
    let options = SocketOptions {
        no_delay: true,
        keepalive: Duration::ZERO,
        user_timeout: Duration::ZERO,
    };
    let socket = ring.socket(&address, &options).unwrap();
    let operation = Operation::Connect {
        socket,
        address: &address,
    };
    match run(ring, OperationKind::Connect, operation)?.event {
        Event::Connected => Ok(socket),
        other => Err(format!("a connect: {other:?}")),
    }
}

fn accepted(completion: Completion) -> Result<(Completion, SocketId), String> {
    match completion.event {
        Event::Accepted(socket) => Ok((completion, socket)),
        other => Err(format!("an accept: {other:?}")),
    }
}

/// Ends an operation by an entry; it must hear of it.
fn cancelled(ring: &mut Ring, target: Token, socket: SocketId) -> Result<(), String> {
    start(
        ring,
        OperationKind::Poll,
        Operation::Cancel { target, socket },
    );
    match next(ring, target)?.event {
        Event::Cancelled => Ok(()),
        other => Err(format!("a cancelled operation: {other:?}")),
    }
}

#[test]
fn every_operation_and_registration_listed_is_needed_and_no_other() {
    if ring(true).is_none() {
        return;
    }
    let all = Allowed::in_use();
    everything(&all).unwrap_or_else(|refused| panic!("what is listed does not suffice: {refused}"));
    for &spared in &all.operations {
        let mut fewer = all.clone();
        fewer.operations.retain(|&code| code != spared);
        let done = everything(&fewer);
        assert!(done.is_err(), "operation {spared} is listed and not needed");
    }
    for &spared in &all.registrations {
        let mut fewer = all.clone();
        fewer.registrations.retain(|&code| code != spared);
        // With none listed a kernel may take that for no restriction at all: any other stands in.
        fewer.registrations.push(0);
        let done = everything(&fewer);
        assert!(
            done.is_err(),
            "registration {spared} is listed and not needed"
        );
    }
    for bit in (0..8)
        .map(|bit| 1_u8 << bit)
        .filter(|bit| all.flags & bit != 0)
    {
        let mut fewer = all.clone();
        fewer.flags &= !bit;
        let done = everything(&fewer);
        assert!(done.is_err(), "flag {bit:#x} is listed and not needed");
    }
}
