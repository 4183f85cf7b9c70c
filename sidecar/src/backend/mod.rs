//! Backends: operations in, completions out.
//!
//! A [`Backend`] starts the operations that the worker asks for, waits until one completes or a deadline
//! passes, and says how its submissions went. It owns sockets, receive buffers and pipes; it never decides
//! what to do next. This folder is the home of all unsafe code of the relay: every other module denies it.
#![allow(unsafe_code)]

pub mod choice;
pub mod completion;
pub mod descriptors;
pub mod epoll;
pub mod errno;
pub mod handshake;
pub mod inject;
pub mod interfaces;
pub mod listen;
pub mod pool;
pub mod ring;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
pub mod sockets;
pub mod splice;
pub mod token;
#[cfg(not(target_env = "musl"))]
pub mod tokio_uring;
#[cfg(target_env = "musl")]
#[path = "tokio_uring/absent.rs"]
pub mod tokio_uring;
pub mod waker;

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockAddr;

use crate::time::Time;
pub use completion::{Completion, Event, Readiness};
pub use errno::Errno;
pub use pool::{Chunk, PoolUse};
pub use sockets::{SocketId, SocketOptions};
pub use splice::Pipe;
pub use token::{OperationKind, Token};
pub use waker::Waker;

/// The most chunks that one gathered send takes.
pub const GATHER_MOST: usize = 32;

/// What a worker can ask of a backend. Everything that an operation points at is copied when it is
/// started, save the bytes of its chunks, which stay the caller's until the send's completion.
#[derive(Debug)]
pub enum Operation<'a> {
    /// Accept connections: one, or until cancelled with many completions.
    Accept {
        /// A listening socket.
        listener: SocketId,
        /// Only one, so that a limit which is near is not passed.
        once: bool,
    },
    /// Connect a socket to an address: one completion.
    Connect {
        /// A socket of [`Backend::socket`].
        socket: SocketId,
        /// Where to.
        address: &'a SockAddr,
    },
    /// Receive into the pool until the end of the stream, an error, a cancel, or `limit_bytes`: many
    /// completions. Where [`Features::exact_receive_limit`] is false the limit is a hint, and who asked
    /// cancels when it has enough.
    Receive {
        /// A connected socket.
        socket: SocketId,
        /// The most bytes to deliver before the operation ends by itself.
        limit_bytes: u32,
    },
    /// Send chunks, gathered: one completion, with all their bytes or fewer.
    Send {
        /// A connected socket.
        socket: SocketId,
        /// At most [`GATHER_MOST`] chunks, sent in this order.
        chunks: &'a [Chunk],
    },
    /// Report each change of readiness until cancelled: many completions.
    Poll {
        /// A connected socket.
        socket: SocketId,
    },
    /// Report once when a connection breaks that is not received from at the moment, or when its other end
    /// has ended.
    Watch {
        /// A connected socket.
        socket: SocketId,
    },
    /// End an operation early. It still completes, as cancelled or with what it did before.
    Cancel {
        /// The token of the operation to end.
        target: Token,
        /// The socket that it uses.
        socket: SocketId,
    },
}

/// How one attempt to hand operations to the kernel, and to wait, went. Each is a value of the label
/// `outcome` of `ringside_submissions_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// There was nothing to submit; the call was only a wait.
    Nothing,
    /// Everything that was offered was taken.
    All,
    /// Some of what was offered was taken: an allocation failed on the way.
    Some,
    /// EAGAIN: no request could be allocated, nothing was taken.
    Again,
    /// EBUSY: an old kernel wants its completion queue drained first.
    Busy,
    /// EINTR: a signal came.
    Interrupted,
    /// ENOMEM: no memory for the task's own context.
    NoMemory,
    /// What was handed over shows no sign of having been taken, and the backend cannot see why: its ring
    /// answers late.
    Late,
    /// EPERM and its kin: the system call is no longer allowed.
    Forbidden,
    /// EBADR: completions were lost; the backend cannot go on.
    Lost,
    /// EBADFD, EBADF, EINVAL, ENXIO, EEXIST or anything unknown: the backend's state is broken.
    Broken,
}

impl Outcome {
    /// Every outcome, in the order of [`Outcome::index`].
    pub const ALL: [Outcome; 11] = [
        Outcome::Nothing,
        Outcome::All,
        Outcome::Some,
        Outcome::Again,
        Outcome::Busy,
        Outcome::Interrupted,
        Outcome::NoMemory,
        Outcome::Late,
        Outcome::Forbidden,
        Outcome::Lost,
        Outcome::Broken,
    ];

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Nothing => "nothing",
            Outcome::All => "all",
            Outcome::Some => "some",
            Outcome::Again => "eagain",
            Outcome::Busy => "ebusy",
            Outcome::Interrupted => "eintr",
            Outcome::NoMemory => "enomem",
            Outcome::Late => "late",
            Outcome::Forbidden => "eperm",
            Outcome::Lost => "ebadr",
            Outcome::Broken => "broken",
        }
    }

    /// Its place in [`Outcome::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the kernel took less than it was offered, for a reason that passes.
    pub fn is_pushback(self) -> bool {
        matches!(
            self,
            Outcome::Some
                | Outcome::Again
                | Outcome::Busy
                | Outcome::NoMemory
                | Outcome::Late
                | Outcome::Forbidden
        )
    }

    /// Whether the backend has to be built anew.
    pub fn is_fatal(self) -> bool {
        matches!(self, Outcome::Lost | Outcome::Broken)
    }
}

/// What [`Backend::enter`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    /// Operations that were offered to the kernel.
    pub offered: u32,
    /// Operations that the kernel took, by the queue's own head.
    pub taken: u32,
    /// How it went.
    pub outcome: Outcome,
    /// The error behind `outcome`, if there was one.
    pub errno: Option<Errno>,
    /// Completions had to wait in the kernel, as their queue was full (IORING_SQ_CQ_OVERFLOW).
    pub overflowed: bool,
}

/// What this backend can do on this kernel; fixed when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// `limit_bytes` of a receive is kept to the byte.
    pub exact_receive_limit: bool,
    /// Operations in flight that the kernel is known to have memory for.
    pub prewarmed_operations: u32,
}

/// Operations in, completions out. One worker owns a backend and is the only one to call it.
///
/// What is one system call at once, without state of the backend's, is given here for all whose sockets are the
/// kernel's own.
pub trait Backend: Sized {
    /// The name for logs, metrics and status: `ring`, `epoll`, `tokio-uring`.
    const NAME: &'static str;

    /// What this backend can do here.
    fn features(&self) -> Features;

    /// The time, in this backend's world.
    fn now(&self) -> Time;

    /// How many operations can be started before the next [`Backend::enter`]. Cancels have room of
    /// their own beyond it.
    fn room(&self) -> u32;

    /// Starts an operation. The caller has checked [`Backend::room`].
    fn start(&mut self, token: Token, operation: Operation<'_>);

    /// Ends an operation at once, also while the kernel takes no submissions. It still completes.
    fn cancel_now(&mut self, target: Token, socket: SocketId);

    /// Operations started and not taken by the kernel yet.
    fn queued(&self) -> u32;

    /// Operations started whose last completion has not come.
    fn in_flight(&self) -> u32;

    /// Hands at most `most` operations to the kernel, runs what is ready, and, if nothing is and `wait` is
    /// some, waits that long for a completion. With `most` 0 it only waits.
    fn enter(&mut self, most: u32, wait: Option<Duration>) -> Entered;

    /// Sleeps, where a wait for completions is refused.
    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Appends at most `most` completions, oldest first, and says whether more are there.
    fn reap(&mut self, most: usize, completions: &mut Vec<Completion>) -> bool;

    /// A socket for [`Operation::Connect`].
    ///
    /// # Errors
    /// What socket(2) says: EMFILE, ENFILE, ENOBUFS, ENOMEM, EAFNOSUPPORT.
    fn socket(&mut self, address: &SockAddr, options: &SocketOptions) -> Result<SocketId, Errno>;

    /// The address of the other end, where it has one.
    fn peer(&self, socket: SocketId) -> Option<SocketAddr> {
        sockets::peer(socket)
    }

    /// The address of the other end, where it has one, and our own end's.
    fn addresses(&self, socket: SocketId) -> Option<(SocketAddr, SocketAddr)> {
        sockets::addresses(socket)
    }

    /// Where an accepted connection was to go before it was redirected here; none where it was not.
    fn original_destination(&self, socket: SocketId) -> Option<SocketAddr> {
        sockets::original_destination(socket)
    }

    /// Ends the sending half of a connection.
    fn shutdown_write(&mut self, socket: SocketId) {
        // Not an operation: the ring's own for it always goes to a worker thread of the kernel.
        sockets::shutdown_write(socket);
    }

    /// Closes a socket which no operation uses; with `reset` the other end gets a reset.
    fn close(&mut self, socket: SocketId, reset: bool);

    /// Moves a socket between ring mode (blocking) and splice mode (non-blocking). Nothing is in flight on it.
    fn set_splice_mode(&mut self, socket: SocketId, splice: bool);

    /// A pipe for splicing, or why there is none.
    ///
    /// # Errors
    /// What pipe2(2) says: EMFILE, ENFILE.
    fn pipe(&mut self) -> Result<Pipe, Errno> {
        Pipe::new()
    }

    /// Closes a pipe.
    fn close_pipe(&mut self, pipe: Pipe) {
        pipe.close();
    }

    /// Moves bytes from a socket in splice mode into a pipe. 0 is the end of the stream.
    ///
    /// # Errors
    /// EAGAIN when there is nothing to read or no room in the pipe; else the connection's error.
    fn splice_in(&mut self, socket: SocketId, pipe: Pipe, most: usize) -> Result<usize, Errno> {
        splice::splice_in(socket, pipe, most)
    }

    /// Moves bytes from a pipe into a socket in splice mode.
    ///
    /// # Errors
    /// EAGAIN when the socket takes no more; else the connection's error.
    fn splice_out(&mut self, pipe: Pipe, socket: SocketId, most: usize) -> Result<usize, Errno> {
        splice::splice_out(pipe, socket, most)
    }

    /// The bytes of a chunk.
    fn bytes(&self, chunk: Chunk) -> &[u8];

    /// A chunk of our own making, such as a protocol header.
    fn own(&mut self, bytes: &[u8]) -> Chunk;

    /// Gives a chunk back. No operation uses it any more.
    fn release(&mut self, chunk: Chunk);

    /// How full the receive buffers are.
    fn pool(&self) -> PoolUse;

    /// Sets the most bytes that receive buffers may take.
    fn set_pool_limit(&mut self, limit_bytes: usize);

    /// Ends a backend that broke, with what is in flight on it: connections have to be closed before. Memory that the kernel
    /// is still not done with after a while is given up.
    fn abandon(self) {}

    /// Wakes this backend's worker from other threads; the worker sees [`Event::Woken`].
    fn waker(&self) -> Waker;
}
