//! What a backend tells of operations. Plain values, without a trace of how they came about.

use super::{Chunk, Errno, SocketId, Token};

/// One thing that happened to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Which operation.
    pub token: Token,
    /// What happened.
    pub event: Event,
    /// Whether the operation goes on. This is the only truth about it: an operation without `more` is over.
    pub more: bool,
}

/// What happened to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted.
    Accepted(SocketId),
    /// The connection is made.
    Connected,
    /// Bytes came; the chunk is the receiver's until it releases it.
    Received(Chunk),
    /// The other end sends no more.
    EndOfStream,
    /// So many bytes were sent.
    Sent(u32),
    /// The socket's readiness changed.
    Ready(Readiness),
    /// A [`super::Waker`] was used.
    Woken,
    /// A receive that found the buffer pool empty.
    NoBuffers,
    /// The operation was ended by a cancel (or by the kernel), having done nothing more.
    Cancelled,
    /// The operation failed.
    Failed(Errno),
}

/// Which ways a socket may be ready. Trying and finding EAGAIN is what settles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// There may be bytes, an end or an error to read.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The connection has failed, such as by a reset.
    pub broken: bool,
}

impl Readiness {
    /// From the kernel's poll mask. An error or a hang-up shows on both ways, so that it is found.
    pub fn from_poll(mask: u32) -> Self {
        let has = |bits: i16| mask & bits as u32 != 0;
        let over = has(libc::POLLERR) || has(libc::POLLHUP);
        Readiness {
            readable: over || has(libc::POLLIN) || has(libc::POLLRDHUP),
            writable: over || has(libc::POLLOUT),
            broken: has(libc::POLLERR),
        }
    }
}
