//! The tokio-uring backend where there is none: tokio-uring 0.5 does not compile against musl, whose `msghdr` differs from what it expects.
//!
//! There can be no value of it. It owns the sentence that says so; programs with the GNU C library have the real one.

use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::choice::SetupError;
use super::errno::Errno;
use super::pool::{Chunk, PoolUse};
use super::sockets::{SocketId, SocketOptions};
use crate::backend::{Backend, Completion, Entered, Features, Operation, Token, Waker};
use crate::time::Time;

/// No such backend.
#[derive(Debug)]
pub enum TokioUring {}

impl TokioUring {
    /// Whether this program has it.
    pub const IS_BUILT: bool = false;

    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub fn new(
        _epoch: Instant,
        _pool_limit_bytes: usize,
        _operations: u32,
    ) -> Result<Self, SetupError> {
        Err(SetupError {
            step: "tokio-uring is not in this program",
            errno: Errno(libc::EOPNOTSUPP),
            hint: "; static programs, such as the images', are built without it",
        })
    }
}

impl Backend for TokioUring {
    const NAME: &'static str = "tokio-uring";

    fn features(&self) -> Features {
        match *self {}
    }

    fn now(&self) -> Time {
        match *self {}
    }

    fn room(&self) -> u32 {
        match *self {}
    }

    fn start(&mut self, _: Token, _: Operation<'_>) {
        match *self {}
    }

    fn cancel_now(&mut self, _: Token, _: SocketId) {
        match *self {}
    }

    fn waker(&self) -> Waker {
        match *self {}
    }

    fn queued(&self) -> u32 {
        match *self {}
    }

    fn in_flight(&self) -> u32 {
        match *self {}
    }

    fn enter(&mut self, _: u32, _: Option<Duration>) -> Entered {
        match *self {}
    }

    fn reap(&mut self, _: usize, _: &mut Vec<Completion>) -> bool {
        match *self {}
    }

    fn socket(&mut self, _: &SockAddr, _: &SocketOptions) -> Result<SocketId, Errno> {
        match *self {}
    }

    fn close(&mut self, _: SocketId, _: bool) {
        match *self {}
    }

    fn set_splice_mode(&mut self, _: SocketId, _: bool) {
        match *self {}
    }

    fn bytes(&self, _: Chunk) -> &[u8] {
        match *self {}
    }

    fn own(&mut self, _: &[u8]) -> Chunk {
        match *self {}
    }

    fn release(&mut self, _: Chunk) {
        match *self {}
    }

    fn pool(&self) -> PoolUse {
        match *self {}
    }

    fn set_pool_limit(&mut self, _: usize) {
        match *self {}
    }
}
