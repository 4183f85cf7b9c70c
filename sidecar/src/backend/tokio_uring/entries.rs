//! Submission queue entries for tokio-uring: how each request is spelled for the kernel.
//!
//! It owns the spelling and the memory that an entry points at, which its task keeps until the completion. It is
//! written in the types of the io-uring version that tokio-uring is built on.

use std::time::Duration;

use socket2::SockAddr;
use tokio_uring_entries::opcode;
use tokio_uring_entries::squeue::Entry;
use tokio_uring_entries::types::{CancelBuilder, Fd};

use crate::backend::pool::Pool;
use crate::backend::{Chunk, GATHER_MOST};

const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// What is watched of a descriptor, each by a poll of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Bytes, an end, an error, an arrival.
    Readable = 0,
    /// Errors, hang-ups and ends alone, which the kernel adds to every poll.
    Broken = 1,
}

impl Way {
    fn mask(self) -> i16 {
        match self {
            Way::Readable => libc::POLLIN | libc::POLLRDHUP,
            Way::Broken => 0,
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A poll.
    Poll(Way),
    /// A send.
    Send,
    /// A connect.
    Connect,
    /// A cancel of all that runs on the descriptor.
    Cancel,
    /// A cancel of all that runs on the ring.
    CancelAll,
    /// A no-op behind a batch, which tells that the batch has been taken.
    Canary,
    /// A poll of nothing, so that the kernel has memory for as many requests.
    Prewarm,
}

/// A request on its way to the ring.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) fd: i32,
    pub(super) kind: Kind,
    pub(super) memory: Memory,
}

/// What a request points at.
#[derive(Debug)]
pub(super) enum Memory {
    Nothing,
    /// Where to connect to.
    Address(Box<SockAddr>),
    /// A gathered send. The bytes themselves are the pool's.
    Message(Box<Message>),
}

/// A message header and its vectors.
pub(super) struct Message {
    header: libc::msghdr,
    vectors: [libc::iovec; GATHER_MOST],
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a message of {} vectors", self.header.msg_iovlen)
    }
}

impl Message {
    fn new(chunks: &[Chunk], pool: &Pool) -> Box<Self> {
        let mut message = Box::new(Message {
            // SAFETY: a message header of zeroes is valid: no name, no vectors, no control data.
            header: unsafe { std::mem::zeroed() },
            vectors: [libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }; GATHER_MOST],
        });
        for (vector, chunk) in message.vectors.iter_mut().zip(chunks) {
            vector.iov_base = pool.start(*chunk).cast_mut().cast();
            vector.iov_len = chunk.len as usize;
        }
        message.header.msg_iovlen = chunks.len().min(GATHER_MOST);
        message
    }
}

impl Request {
    pub(super) fn of(fd: i32, kind: Kind) -> Self {
        Request {
            fd,
            kind,
            memory: Memory::Nothing,
        }
    }

    pub(super) fn connect(fd: i32, address: &SockAddr) -> Self {
        Request {
            memory: Memory::Address(Box::new(address.clone())),
            ..Request::of(fd, Kind::Connect)
        }
    }

    pub(super) fn send(fd: i32, chunks: &[Chunk], pool: &Pool) -> Self {
        Request {
            memory: Memory::Message(Message::new(chunks, pool)),
            ..Request::of(fd, Kind::Send)
        }
    }

    /// The entry. What it points at is in `memory`, which must stay where it is until the completion.
    pub(super) fn entry(&mut self) -> Entry {
        let fd = Fd(self.fd);
        match (self.kind, &mut self.memory) {
            (Kind::Poll(way), _) => opcode::PollAdd::new(fd, way.mask() as u32).build(),
            (Kind::Prewarm, _) => opcode::PollAdd::new(fd, libc::POLLIN as u32).build(),
            (Kind::Cancel, _) => opcode::AsyncCancel2::new(CancelBuilder::fd(fd).all()).build(),
            (Kind::CancelAll, _) => opcode::AsyncCancel2::new(CancelBuilder::any()).build(),
            (Kind::Connect, Memory::Address(address)) => {
                opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build()
            }
            (Kind::Send, Memory::Message(message)) => {
                message.header.msg_iov = message.vectors.as_mut_ptr();
                opcode::SendMsg::new(fd, &raw const message.header)
                    .flags(SEND_FLAGS as u32)
                    .build()
            }
            _ => opcode::Nop::new().build(),
        }
    }
}

/// How long the ring's answer to a no-op may take before it counts as late: a tick of tokio's timers. A ring that
/// takes what it is offered has answered when the call returns.
pub(super) const LATE_AFTER: Duration = Duration::from_millis(1);
