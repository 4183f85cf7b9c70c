//! The io_uring backend: one ring per worker, one `io_uring_enter` per turn.
//!
//! It owns the ring, its buffer ring and the pool. It drops or frees nothing that is queued: an entry stays
//! until the kernel's head has passed it, whatever the call returned. It never submits from another thread
//! than the worker's (SINGLE_ISSUER), and never lets its sockets be O_NONBLOCK while operations run on them.

mod allowed;
mod buffers;
mod ending;
mod entries;
pub(super) mod outcome;
mod setup;

use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue};
use socket2::SockAddr;

pub use super::choice::SetupError;
use super::pool::Pool;
use super::{
    Backend, Chunk, Completion, Entered, Errno, Event, Features, Operation, OperationKind, PoolUse,
    Readiness, SocketId, SocketOptions, Token, Waker, sockets,
};
use crate::time::Time;
use allowed::Allowed;
use buffers::{Buffers, GROUP};
use entries::Arena;

/// Entries kept back for cancels, so that what runs can be ended while the queue is full.
const CANCEL_RESERVE: u32 = 32;

/// From so many completions in one turn on a ring is busy, and the next wait gathers as many again.
const BUSY_COMPLETIONS: u32 = 8;

/// The longest that a busy ring waits to gather completions, in microseconds: far below what a message waits
/// for its turn then, and it saves a call for every few of them.
const GATHER_WAIT_MICROS: u32 = 30;

/// A worker's ring.
pub struct Ring {
    ring: IoUring,
    buffers: Buffers,
    pool: Pool,
    arena: Arena,
    waker: Waker,
    epoch: Instant,
    entries: u32,
    /// Entries ever pushed: where in the arena the next one has its place.
    pushed: u32,
    in_flight: u32,
    /// Completions that the last turn found: how busy the ring is.
    last_reaped: u32,
    /// Whether the kernel can wait for several completions for a limited time (6.12).
    min_wait: bool,
    /// Cancels that found no room, for the next call.
    late_cancels: Vec<Token>,
    waker_is_unwatched: bool,
    exact_receive_limit: bool,
    bundles: bool,
    prewarmed: u32,
}

impl Ring {
    /// A ring for the calling thread, tried and prewarmed for `operations` in flight.
    ///
    /// # Errors
    /// This kernel or container does not let io_uring be used; says at which step.
    pub fn new(
        epoch: Instant,
        pool_limit_bytes: usize,
        operations: u32,
    ) -> Result<Self, SetupError> {
        let allowed = Allowed::in_use();
        Self::with(epoch, pool_limit_bytes, operations, true, &allowed)
    }

    /// As [`Ring::new`], with incremental buffers only if they are wanted (without, as on kernels before 6.12),
    /// and held to what is `allowed`.
    fn with(
        epoch: Instant,
        pool_limit_bytes: usize,
        operations: u32,
        want_incremental: bool,
        allowed: &Allowed,
    ) -> Result<Self, SetupError> {
        let mut pool = Pool::new(pool_limit_bytes);
        let made = setup::make(&mut pool, want_incremental, allowed)?;
        let mut ring = made.ring;
        let prewarmed = setup::prewarm(&mut ring, operations)?;
        let waker = Waker::new().map_err(|errno| SetupError {
            step: "eventfd",
            errno,
            hint: "",
        })?;
        let entries = ring.params().sq_entries();
        let min_wait = ring.params().is_feature_min_timeout();
        let mut ring = Ring {
            ring,
            buffers: made.buffers,
            pool,
            arena: Arena::new(entries),
            waker,
            epoch,
            entries,
            pushed: 0,
            in_flight: 0,
            last_reaped: 0,
            min_wait,
            late_cancels: Vec::new(),
            waker_is_unwatched: false,
            exact_receive_limit: made.exact_receive_limit,
            bundles: made.bundles,
            prewarmed,
        };
        ring.watch_waker();
        Ok(ring)
    }

    fn watch_waker(&mut self) {
        self.waker_is_unwatched = false;
        let poll = entries::poll(self.waker.fd(), true, false);
        self.push(Token::WAKE, poll);
    }

    fn push(&mut self, token: Token, entry: io_uring::squeue::Entry) {
        // SAFETY: what the entry points at is in the arena, in the place of this entry, or a chunk of the
        // pool which its holder keeps until the completion comes.
        let pushed = unsafe {
            self.ring
                .submission()
                .push(&entry.user_data(token.to_bits()))
        };
        assert!(pushed.is_ok(), "started an operation without room for it");
        self.pushed = self.pushed.wrapping_add(1);
        if token != Token::INTERNAL {
            self.in_flight += 1;
        }
    }

    /// Queues a cancel, now or, where even the reserve is used up, before the next call.
    fn push_cancel(&mut self, target: Token) {
        if self.free_entries() > 0 {
            self.push(Token::INTERNAL, entries::cancel(target));
        } else {
            self.late_cancels.push(target);
        }
    }

    fn push_late_cancels(&mut self) {
        while self.free_entries() > 0
            && let Some(target) = self.late_cancels.pop()
        {
            self.push(Token::INTERNAL, entries::cancel(target));
        }
    }

    /// The place in the arena of the entry that is pushed next.
    fn place(&self) -> usize {
        (self.pushed % self.entries) as usize
    }

    fn free_entries(&mut self) -> u32 {
        self.entries - self.ring.submission().len() as u32
    }

    fn queue_length(&self) -> u32 {
        // SAFETY: only this thread pushes, and it is here; the shared view reads two counters.
        unsafe { self.ring.submission_shared() }.len() as u32
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing a ring ends its operations only after a while, and until then they use memory of the pool.
        if self.in_flight > 0 && !ending::end(&mut self.ring) {
            self.pool.leak();
        }
    }
}

impl Backend for Ring {
    const NAME: &'static str = "ring";

    fn features(&self) -> Features {
        Features {
            exact_receive_limit: self.exact_receive_limit,
            prewarmed_operations: self.prewarmed,
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.epoch.elapsed().as_nanos() as u64)
    }

    fn room(&self) -> u32 {
        (self.entries - self.queue_length()).saturating_sub(CANCEL_RESERVE)
    }

    fn start(&mut self, token: Token, operation: Operation<'_>) {
        let place = self.place();
        let entry = match operation {
            Operation::Accept { listener, once } => {
                // It may come from a worker whose backend wants it otherwise.
                sockets::set_non_blocking(listener, false);
                entries::accept(listener.0, once)
            }
            Operation::Connect { socket, address } => self.arena.connect(place, socket.0, address),
            Operation::Receive {
                socket,
                limit_bytes,
            } => {
                let limit = if self.exact_receive_limit {
                    limit_bytes
                } else {
                    0
                };
                entries::receive(socket.0, GROUP, limit, self.bundles)
            }
            Operation::Send { socket, chunks } => {
                self.arena.send(place, socket.0, chunks, &self.pool)
            }
            Operation::Watch { socket } => entries::watch(socket.0),
            Operation::Poll { socket } => entries::poll(socket.0, true, true),
            Operation::Cancel { target, .. } => return self.push_cancel(target),
        };
        self.push(token, entry);
    }

    fn cancel_now(&mut self, target: Token, _socket: SocketId) {
        let at_once = Some(Timespec::new());
        let done = self
            .ring
            .submitter()
            .register_sync_cancel(at_once, CancelBuilder::user_data(target.to_bits()));
        // Not found: it may still be in the queue, where a cancel behind it finds it once both are taken.
        if done.is_err() {
            self.push_cancel(target);
        }
    }

    fn queued(&self) -> u32 {
        self.queue_length() + self.late_cancels.len() as u32
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn enter(&mut self, most: u32, wait: Option<Duration>) -> Entered {
        self.buffers.refill(&mut self.pool);
        if !self.late_cancels.is_empty() {
            self.push_late_cancels();
        }
        if self.waker_is_unwatched && self.free_entries() > 0 {
            self.watch_waker();
        }
        let queued = self.queue_length();
        let offered = queued.min(most);
        let wait = wait.filter(|_| self.ring.completion().is_empty());
        let limit = Timespec::from(wait.unwrap_or_default());
        let mut want = u32::from(wait.is_some());
        let mut arguments = SubmitArgs::new().timespec(&limit);
        if wait.is_some() && self.min_wait && self.last_reaped >= BUSY_COMPLETIONS {
            want = offered + self.last_reaped;
            arguments = arguments.min_wait_usec(GATHER_WAIT_MICROS);
        }
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: EXT_ARG goes with SubmitArgs, which is what the kernel then expects; both live to the end.
        let entered = unsafe {
            self.ring
                .submitter()
                .enter(offered, want, flags.bits(), Some(&arguments))
        };
        let errno = entered.err().map(|error| Errno::of(&error));
        let taken = queued - self.queue_length();
        // Every call runs what the kernel holds back; this one left some for the next.
        let overflowed = self.ring.submission().cq_overflow();
        Entered {
            offered,
            taken,
            outcome: outcome::classify(offered, taken, errno),
            errno,
            overflowed,
        }
    }

    fn reap(&mut self, most: usize, completions: &mut Vec<Completion>) -> bool {
        let Ring {
            ring,
            buffers,
            pool,
            in_flight,
            last_reaped,
            late_cancels,
            ..
        } = self;
        let mut woken = None;
        let mut ran_out = false;
        let mut queue = ring.completion();
        *last_reaped = queue.len() as u32;
        for cqe in queue.by_ref().take(most) {
            let token = Token::from_bits(cqe.user_data());
            let more = cqueue::more(cqe.flags());
            if token == Token::INTERNAL {
                continue;
            }
            if !more {
                *in_flight -= 1;
                if !late_cancels.is_empty() {
                    // It is over; its name may soon be another operation's.
                    late_cancels.retain(|&target| target != token);
                }
            }
            let kind = token.kind();
            if kind == OperationKind::Wake {
                woken = Some(woken.unwrap_or(true) & more);
                continue;
            }
            let result = cqe.result();
            let entry = cqueue::buffer_select(cqe.flags());
            if let (OperationKind::Receive, Some(entry)) = (kind, entry) {
                let goes_on = cqueue::buffer_more(cqe.flags());
                if result > 0 {
                    buffers.take(
                        pool,
                        u32::from(entry),
                        result as u32,
                        goes_on,
                        |chunk, last| {
                            let event = Event::Received(chunk);
                            completions.push(Completion {
                                token,
                                event,
                                more: more || !last,
                            });
                        },
                    );
                    continue;
                }
                buffers.take_empty(pool, u32::from(entry), goes_on);
            }
            let event = event(kind, result);
            ran_out |= event == Event::NoBuffers;
            completions.push(Completion { token, event, more });
        }
        let left = !queue.is_empty();
        drop(queue);
        if ran_out {
            // Once, however many receives found it out at the same time.
            buffers.widen();
        }
        if let Some(armed) = woken {
            self.waker.clear();
            completions.push(Completion {
                token: Token::WAKE,
                event: Event::Woken,
                more: true,
            });
            // Watched again with the next call, which has room for it.
            self.waker_is_unwatched = !armed;
        }
        left
    }

    fn socket(&mut self, address: &SockAddr, options: &SocketOptions) -> Result<SocketId, Errno> {
        sockets::stream(address, options, false)
    }

    fn close(&mut self, socket: SocketId, reset: bool) {
        sockets::close(socket, reset);
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

fn event(kind: OperationKind, result: i32) -> Event {
    match (kind, result) {
        (OperationKind::Receive, number) if number == -libc::ENOBUFS => Event::NoBuffers,
        (_, number) if number == -libc::ECANCELED => Event::Cancelled,
        (_, number @ ..0) => Event::Failed(Errno(-number)),
        (OperationKind::Accept, fd) => Event::Accepted(SocketId(fd)),
        (OperationKind::Connect, _) => Event::Connected,
        (OperationKind::Send, sent) => Event::Sent(sent as u32),
        (OperationKind::Poll | OperationKind::Watch, mask) => {
            Event::Ready(Readiness::from_poll(mask as u32))
        }
        (_, _) => Event::EndOfStream,
    }
}

#[cfg(test)]
pub(super) mod tests;
