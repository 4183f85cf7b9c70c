//! The tokio-uring backend: operations as tasks of tokio-uring's runtime, one `block_on` per turn.
//!
//! tokio-uring forgets a submission that failed and sleeps, and panics when its queue is full. Here it is made safe:
//! what is started waits in a queue of ours and is handed over in batches that always have room; a canary behind
//! each batch tells whether it was taken, and while it is out nothing more is handed over; every wait has a deadline,
//! and each turn submits again what is left; a canary that does not answer is pushback, paced by the worker's
//! backoff. It never frees anything that the ring may still use: a ring that does not end in time is left behind.

mod answers;
mod entries;
mod operations;
mod reason;
mod runtime;
mod setup;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use socket2::SockAddr;

pub use super::choice::SetupError;
use super::epoll::calls::Interest;
use super::pool::Pool;
use super::{
    Backend, Chunk, Completion, Entered, Errno, Event, Features, Operation, Outcome, PoolUse,
    SocketId, SocketOptions, Token, Waker, sockets,
};
use crate::time::Time;
use entries::Request;
use reason::Reason;
use runtime::{Driven, Turned};
use socket::Socket;

/// Operations that may wait to be handed over.
const ROOM: u32 = 1024;

/// After so many late answers in a row, and again after as many, the kernel is asked for the reason, which takes a
/// call of its own. Fewer than the retries after which the worker believes that it does not pass.
const LATE_BEFORE_ASKING: u32 = 4;

/// A worker's runtime and what it knows of each socket.
pub struct TokioUring {
    driven: Driven,
    /// The readiness of streams.
    streams: Interest,
    /// Requests that wait to be handed over, oldest first.
    queue: VecDeque<Request>,
    /// By descriptor.
    sockets: Vec<Socket>,
    /// Descriptors with an accept or a receive that can be tried.
    runnable: VecDeque<i32>,
    completions: VecDeque<Completion>,
    pool: Pool,
    /// The entry that receives fill at the moment.
    filling: Option<u32>,
    waker: Waker,
    epoch: Instant,
    in_flight: u32,
    /// The most requests that may be on the way.
    requests_most: u32,
    prewarmed: u32,
    /// Late answers in a row.
    late: u32,
    reason: Reason,
}

impl TokioUring {
    /// Whether this program has it.
    pub const IS_BUILT: bool = true;

    /// A runtime for the calling thread, tried and prewarmed for `operations` in flight.
    ///
    /// # Errors
    /// This kernel or container does not let io_uring be used; says at which step.
    pub fn new(
        epoch: Instant,
        pool_limit_bytes: usize,
        operations: u32,
    ) -> Result<Self, SetupError> {
        let waker =
            Waker::new().map_err(|errno| SetupError::new("eventfd for tokio-uring", errno))?;
        let streams =
            Interest::new().map_err(|errno| SetupError::new("epoll for tokio-uring", errno))?;
        let (mut driven, requests_most) = setup::make(operations, &waker, &streams)?;
        let prewarmed = setup::prewarm(&mut driven, operations.min(requests_most))?;
        Ok(TokioUring {
            driven,
            streams,
            queue: VecDeque::new(),
            sockets: Vec::new(),
            runnable: VecDeque::new(),
            completions: VecDeque::new(),
            pool: Pool::new(pool_limit_bytes),
            filling: None,
            waker,
            epoch,
            in_flight: 0,
            requests_most,
            prewarmed: prewarmed.min(requests_most),
            late: 0,
            reason: Reason::default(),
        })
    }

    /// The place of a descriptor among the sockets.
    fn known(&mut self, fd: i32) -> usize {
        let index = fd as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, Socket::default);
        }
        index
    }

    fn socket_mut(&mut self, fd: i32) -> &mut Socket {
        let index = self.known(fd);
        &mut self.sockets[index]
    }

    /// What to hand over now: nothing while the last batch is not known to have been taken.
    fn next_batch(&mut self, most: u32) -> Vec<Request> {
        let mut batch = Vec::new();
        if !self.driven.takes_more() {
            return batch;
        }
        let on_the_way = self.driven.answers().open();
        // One is the canary's.
        let most = most
            .min(setup::SUBMISSION_ENTRIES - 1)
            .min(self.requests_most.saturating_sub(on_the_way + 1));
        while (batch.len() as u32) < most
            && let Some(request) = self.next_request()
        {
            batch.push(request);
        }
        batch
    }

    fn judge(&mut self, turned: Turned) -> Entered {
        let (offered, taken, outcome, errno) = match turned {
            Turned::Nothing => (0, 0, Outcome::Nothing, None),
            Turned::Taken(taken) => {
                self.late = 0;
                self.reason = Reason::default();
                (taken, taken, Outcome::All, None)
            }
            Turned::Late(offered) => {
                self.late += 1;
                if self.late.is_multiple_of(LATE_BEFORE_ASKING) {
                    self.reason.ask();
                }
                // Of all reasons only one calls for another backend, as it does not pass.
                let outcome = match self.reason.outcome() {
                    Some(Outcome::Forbidden) => Outcome::Forbidden,
                    _ => Outcome::Late,
                };
                (offered, 0, outcome, self.reason.errno())
            }
            Turned::Broken => (0, 0, Outcome::Broken, None),
        };
        Entered {
            offered,
            taken,
            outcome,
            errno,
            overflowed: false,
        }
    }
}

impl Drop for TokioUring {
    fn drop(&mut self) {
        // Sends use memory of the pool until they are answered, which may be never.
        let may_send = |socket: &Socket| socket.send.is_some_and(|send| send.is_on_the_way);
        if !self.driven.end() && self.sockets.iter().any(may_send) {
            self.pool.leak();
        }
        for (fd, socket) in self.sockets.iter().enumerate() {
            if socket.closes {
                sockets::close(SocketId(fd as i32), false);
            }
        }
    }
}

impl Backend for TokioUring {
    const NAME: &'static str = "tokio-uring";

    fn features(&self) -> Features {
        Features {
            exact_receive_limit: true,
            prewarmed_operations: self.prewarmed,
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.epoch.elapsed().as_nanos() as u64)
    }

    fn room(&self) -> u32 {
        ROOM.saturating_sub(self.queue.len() as u32)
    }

    fn start(&mut self, token: Token, operation: Operation<'_>) {
        if let Operation::Cancel { target, socket } = operation {
            return self.end(target, socket);
        }
        self.in_flight += 1;
        self.begin(token, operation);
    }

    fn cancel_now(&mut self, target: Token, socket: SocketId) {
        self.end(target, socket);
    }

    fn queued(&self) -> u32 {
        self.queue.len() as u32 + self.driven.unconfirmed()
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn enter(&mut self, most: u32, wait: Option<Duration>) -> Entered {
        self.run();
        let busy = !self.completions.is_empty() || !self.runnable.is_empty();
        let wait = wait.filter(|_| !busy);
        let batch = self.next_batch(most);
        let turned = self.driven.turn(batch, wait, most > 0);
        while let Some(answer) = self.driven.answers().next() {
            self.answered(answer);
        }
        if self.driven.answers().take_streams() {
            self.streams_ready();
        }
        if self.driven.answers().take_woken() {
            self.goes_on(Token::WAKE, Event::Woken);
        }
        self.run();
        self.judge(turned)
    }

    fn reap(&mut self, most: usize, completions: &mut Vec<Completion>) -> bool {
        let count = self.completions.len().min(most);
        completions.extend(self.completions.drain(..count));
        !self.completions.is_empty()
    }

    fn socket(&mut self, address: &SockAddr, options: &SocketOptions) -> Result<SocketId, Errno> {
        sockets::stream(address, options, false)
    }

    fn close(&mut self, socket: SocketId, reset: bool) {
        let index = self.known(socket.0);
        let known = &mut self.sockets[index];
        if !known.is_in_use() {
            *known = Socket {
                is_runnable: known.is_runnable,
                ..Socket::default()
            };
            return sockets::close(socket, reset);
        }
        if known.poll.is_some() {
            self.streams.remove(socket.0);
        }
        // The other end is told now. That also ends every poll, upon which the descriptor goes; its number must
        // not become another socket's before.
        *known = Socket {
            polls: known.polls,
            send: known.send,
            connect: known.connect,
            is_runnable: known.is_runnable,
            closes: true,
            ..Socket::default()
        };
        sockets::end(socket, reset);
    }

    fn set_splice_mode(&mut self, socket: SocketId, splice: bool) {
        sockets::set_non_blocking(socket, splice);
    }

    fn bytes(&self, chunk: Chunk) -> &[u8] {
        self.pool.bytes(chunk)
    }

    fn own(&mut self, bytes: &[u8]) -> Chunk {
        self.pool.own(bytes)
    }

    fn release(&mut self, chunk: Chunk) {
        self.pool.release(chunk);
    }

    fn pool(&self) -> PoolUse {
        self.pool.usage()
    }

    fn set_pool_limit(&mut self, limit_bytes: usize) {
        self.pool.set_limit(limit_bytes);
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
