//! The simulated backend: a kernel in memory, driven by one seed, behind the same trait as the real ones.
//!
//! So the unchanged worker, with its flows, gate, limits and timers, runs in simulated time against faults that a real
//! kernel shows once a month. It owns the submission queue and believes its head, as the ring does; what happens
//! to operations is `operations`' part. Only for tests: it is not in the program that users run.

pub mod faults;
mod kernel;
pub mod link;
mod operations;
mod peers;
mod pipes;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockAddr;

use super::pool::Pool;
use super::ring::outcome::classify;
use super::{
    Backend, Chunk, Completion, Entered, Errno, Features, Operation, Outcome, Pipe, PoolUse,
    SocketId, SocketOptions, Token, Waker,
};
use crate::bug::{self, Bug};
use crate::time::{Time, saturating_nanos};
use faults::Pushback;
use kernel::Due;
pub use kernel::{Counts, Kernel, Notice};
use operations::{Entry, What};
pub use peers::{address_of, is_redirected, link_at};

/// Those who are not the kernel: peers, and who tells the worker what to do.
pub trait Outside {
    /// A time that was asked for has come.
    fn alarm(&mut self, number: u64, kernel: &mut Kernel);

    /// The kernel has something to tell.
    fn notice(&mut self, notice: Notice, kernel: &mut Kernel);
}

/// The kernel and those outside it, shared by the backends that follow each other on it.
pub struct World {
    /// The kernel.
    pub kernel: Kernel,
    /// Everyone else.
    pub outside: Box<dyn Outside>,
}

/// How a simulated backend is made.
#[derive(Debug, Clone, Copy)]
pub struct Traits {
    /// The queue's length.
    pub entries: u32,
    /// Receives keep to their limit.
    pub exact_receive_limit: bool,
    /// As if so many operations had been prewarmed; 0 is none.
    pub prewarmed_operations: u32,
    /// Its submissions can be pushed back; otherwise it is like epoll, which has none.
    pub has_pushback: bool,
}

/// A backend of the simulated kernel.
pub struct Simulated {
    world: Rc<RefCell<World>>,
    traits: Traits,
    pool: Pool,
    queue: VecDeque<Entry>,
    in_flight: u32,
    waker: Waker,
    /// Until when the pushback lasts that the last offer met.
    pushed_until: Option<u64>,
}

/// Whether a socket is one of the simulated kernel's, and no descriptor.
pub(super) fn is_simulated(socket: SocketId) -> bool {
    socket.0 >= kernel::FIRST_SOCKET
}

/// What a call costs in simulated time, in nanoseconds.
const CALL_NANOS: std::ops::Range<u64> = 500..8_000;

/// A turn that waited for longer is none that spins.
const WAITED_NANOS: u64 = 10_000;

impl Simulated {
    /// A backend of this world's kernel.
    ///
    /// # Errors
    /// The waker, which is a real one, takes a descriptor of the machine.
    pub fn new(
        world: Rc<RefCell<World>>,
        traits: Traits,
        pool_bytes: usize,
    ) -> Result<Self, Errno> {
        Ok(Simulated {
            world,
            traits,
            pool: Pool::new(pool_bytes),
            queue: VecDeque::new(),
            in_flight: 0,
            waker: Waker::new()?,
            pushed_until: None,
        })
    }

    /// Chunks that nobody has given back.
    pub fn chunks_in_use(&self) -> usize {
        self.pool.chunks_in_use()
    }

    /// The world, to look at.
    pub fn world(&self) -> &Rc<RefCell<World>> {
        &self.world
    }
}

impl World {
    /// Lets happen what is due; then tells those outside.
    fn happen(&mut self, pool: &mut Pool, is_exact: bool) {
        loop {
            while let Some(notice) = self.kernel.notices.pop_front() {
                self.outside.notice(notice, &mut self.kernel);
            }
            match self.kernel.pop_due() {
                None => return,
                Some(Due::Alarm(number)) => self.outside.alarm(number, &mut self.kernel),
                Some(Due::Run(link)) => self.kernel.run(link, pool, is_exact),
                Some(Due::RunListener(listener)) => self.kernel.try_accept(listener),
                Some(Due::Connected(token, result)) => self.kernel.connected(token, result),
                Some(Due::Post(epoch, completion)) => self.kernel.post_late(epoch, completion),
            }
        }
    }

    /// Lets time pass until something has completed, or until the deadline.
    fn wait(&mut self, pool: &mut Pool, is_exact: bool, deadline: u64) {
        self.happen(pool, is_exact);
        while self.kernel.completed.is_empty() {
            match self.kernel.next_due().filter(|&at| at <= deadline) {
                Some(at) => self.kernel.now_nanos = self.kernel.now_nanos.max(at),
                None => {
                    self.kernel.now_nanos = self.kernel.now_nanos.max(deadline);
                    return self.happen(pool, is_exact);
                }
            }
            self.happen(pool, is_exact);
        }
    }
}

/// What the kernel's call said: its result and how far the head of the queue moved.
struct Answer {
    result: Result<u32, Errno>,
    head_moved: u32,
}

impl Kernel {
    fn answer(&mut self, offered: u32, has_pushback: bool) -> Answer {
        let all = Answer {
            result: Ok(offered),
            head_moved: offered,
        };
        let refused = |errno| Answer {
            result: Err(Errno(errno)),
            head_moved: 0,
        };
        if !has_pushback {
            return all;
        }
        let pushback = self.faults.pushback(self.now_nanos);
        match pushback {
            Some(Pushback::Forbidden) => return refused(libc::EPERM),
            Some(Pushback::Lost) => return refused(libc::EBADR),
            Some(Pushback::Interrupted) => return refused(libc::EINTR),
            _ => {}
        }
        if offered == 0 {
            return all;
        }
        let mut answer = match pushback {
            Some(Pushback::Again) => refused(libc::EAGAIN),
            Some(Pushback::Busy) => refused(libc::EBUSY),
            Some(Pushback::NoMemory) => refused(libc::ENOMEM),
            Some(Pushback::Some(most)) if most < offered => Answer {
                result: Ok(most),
                head_moved: most,
            },
            _ if self.strikes(self.faults.interrupted) => refused(libc::EINTR),
            _ if offered > 1 && self.strikes(self.faults.partly) => {
                let part = self.random.u32(1..offered);
                Answer {
                    result: Ok(part),
                    head_moved: part,
                }
            }
            _ => all,
        };
        if answer.result.is_ok() && self.strikes(self.faults.lying) {
            answer.result = Ok(self.random.u32(0..=offered));
        }
        answer
    }
}

impl Backend for Simulated {
    const NAME: &'static str = "simulated";

    fn features(&self) -> Features {
        Features {
            exact_receive_limit: self.traits.exact_receive_limit,
            prewarmed_operations: self.traits.prewarmed_operations,
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.world.borrow().kernel.now_nanos())
    }

    fn room(&self) -> u32 {
        self.traits.entries.saturating_sub(self.queued())
    }

    fn start(&mut self, token: Token, operation: Operation<'_>) {
        let what = What::of(&operation);
        let is_cancel = matches!(what, What::Cancel { .. });
        if !is_cancel {
            if self.room() == 0 {
                self.world
                    .borrow_mut()
                    .kernel
                    .violate("an operation is started, and the queue is full");
            }
            self.in_flight += 1;
        }
        self.queue.push_back(Entry { token, what });
    }

    fn cancel_now(&mut self, target: Token, _socket: SocketId) {
        let is_exact = self.traits.exact_receive_limit;
        let queued = self.queue.iter().position(|entry| entry.token == target);
        if let Some(place) = queued {
            // Not taken yet: it follows it in the queue.
            let what = What::Cancel { target };
            let token = Token::INTERNAL;
            return self.queue.insert(place + 1, Entry { token, what });
        }
        let world = &mut *self.world.borrow_mut();
        world.kernel.cancel(target, &mut self.pool, is_exact);
    }

    fn queued(&self) -> u32 {
        self.queue.len() as u32
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn enter(&mut self, most: u32, wait: Option<Duration>) -> Entered {
        let is_exact = self.traits.exact_receive_limit;
        let world = &mut *self.world.borrow_mut();
        let kernel = &mut world.kernel;
        kernel.counts.enters += 1;
        let began = kernel.now_nanos;
        kernel.now_nanos += kernel.random.u64(CALL_NANOS);
        // What was due before this call has happened before it.
        world.happen(&mut self.pool, is_exact);
        let kernel = &mut world.kernel;
        let offered = most.min(self.queue.len() as u32);
        let answer = kernel.answer(offered, self.traits.has_pushback);
        // The head is believed, never the returned count.
        let mut taken = answer.head_moved;
        if bug::is(Bug::TrustTheCount) {
            taken = answer.result.unwrap_or(0);
        }
        for index in 0..answer.head_moved.max(taken) {
            let entry = if index < taken {
                self.queue.pop_front()
            } else {
                self.queue.get((index - taken) as usize).cloned()
            };
            if let Some(entry) = entry.filter(|_| index < answer.head_moved) {
                kernel.begin(entry, &mut self.pool, is_exact);
            }
        }
        if bug::is(Bug::DropAnEntryOnAgain) && answer.result == Err(Errno(libc::EAGAIN)) {
            self.queue.pop_front();
        }
        let mut errno = answer.result.err();
        kernel.counts.taken += u64::from(answer.head_moved);
        kernel
            .tell(|| format!("enter: {offered} offered, {taken} taken, {errno:?}, wait {wait:?}"));
        while kernel.completed.len() < kernel.faults.completions_most
            && let Some(completion) = kernel.overflow.pop_front()
        {
            kernel.completed.push_back(completion);
        }
        match wait.filter(|_| errno.is_none()) {
            Some(wait) => {
                let mut wait = saturating_nanos(wait);
                if kernel.strikes(kernel.faults.interrupted) {
                    wait = kernel.random.u64(0..=wait);
                    errno = Some(Errno(libc::EINTR));
                }
                let deadline = kernel.now_nanos.saturating_add(wait);
                world.wait(&mut self.pool, is_exact, deadline);
            }
            None => world.happen(&mut self.pool, is_exact),
        }
        let kernel = &mut world.kernel;
        let overflowed = !kernel.overflow.is_empty();
        kernel.counts.overflows += u64::from(overflowed);
        let outcome = classify(offered, taken, errno);
        let is_pushback = outcome.is_pushback() || outcome == Outcome::Interrupted;
        kernel.counts.pushbacks += u64::from(is_pushback);
        if answer.head_moved > 0 || kernel.now_nanos - began > WAITED_NANOS {
            kernel.counts.idle_turns = 0;
        } else {
            kernel.counts.idle_turns += 1;
            kernel.counts.idle_turns_most =
                kernel.counts.idle_turns_most.max(kernel.counts.idle_turns);
        }
        if offered > 0 {
            kernel.check_progress(self.pushed_until, began);
            self.pushed_until = kernel.faults.pushed_until(began).filter(|_| taken == 0);
        }
        Entered {
            offered,
            taken,
            outcome,
            errno,
            overflowed,
        }
    }

    fn sleep(&mut self, time: Duration) {
        let is_exact = self.traits.exact_receive_limit;
        let world = &mut *self.world.borrow_mut();
        let until = world
            .kernel
            .now_nanos
            .saturating_add(saturating_nanos(time));
        world
            .kernel
            .tell(|| format!("the worker sleeps for {time:?}"));
        world.kernel.counts.idle_turns = 0;
        while let Some(at) = world.kernel.next_due().filter(|&at| at <= until) {
            world.kernel.now_nanos = world.kernel.now_nanos.max(at);
            world.happen(&mut self.pool, is_exact);
        }
        world.kernel.now_nanos = world.kernel.now_nanos.max(until);
    }

    fn reap(&mut self, most: usize, completions: &mut Vec<Completion>) -> bool {
        let kernel = &mut self.world.borrow_mut().kernel;
        let count = kernel.completed.len().min(most);
        if count > 0 {
            kernel.counts.idle_turns = 0;
        }
        kernel.counts.completions += count as u64;
        for completion in kernel.completed.drain(..count) {
            if !completion.more {
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            completions.push(completion);
        }
        !kernel.completed.is_empty()
    }

    fn socket(&mut self, _address: &SockAddr, _options: &SocketOptions) -> Result<SocketId, Errno> {
        self.world.borrow_mut().kernel.socket()
    }

    fn peer(&self, socket: SocketId) -> Option<SocketAddr> {
        self.addresses(socket).map(|(client, _)| client)
    }

    fn addresses(&self, socket: SocketId) -> Option<(SocketAddr, SocketAddr)> {
        self.world.borrow().kernel.addresses(socket)
    }

    fn original_destination(&self, socket: SocketId) -> Option<SocketAddr> {
        self.world.borrow().kernel.original_destination(socket)
    }

    fn shutdown_write(&mut self, socket: SocketId) {
        self.world.borrow_mut().kernel.shutdown_write(socket);
    }

    fn close(&mut self, socket: SocketId, reset: bool) {
        self.world.borrow_mut().kernel.close(socket, reset);
    }

    fn set_splice_mode(&mut self, socket: SocketId, splice: bool) {
        let kernel = &mut self.world.borrow_mut().kernel;
        if let Some(link) = kernel.link_of(socket) {
            kernel.links[link].splices = splice;
        }
    }

    fn pipe(&mut self) -> Result<Pipe, Errno> {
        self.world.borrow_mut().kernel.pipe()
    }

    fn close_pipe(&mut self, pipe: Pipe) {
        self.world.borrow_mut().kernel.close_pipe(pipe);
    }

    fn splice_in(&mut self, socket: SocketId, pipe: Pipe, most: usize) -> Result<usize, Errno> {
        let kernel = &mut self.world.borrow_mut().kernel;
        kernel.counts.idle_turns = 0;
        kernel.splice_in(socket, pipe, most)
    }

    fn splice_out(&mut self, pipe: Pipe, socket: SocketId, most: usize) -> Result<usize, Errno> {
        self.world
            .borrow_mut()
            .kernel
            .splice_out(pipe, socket, most)
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

    fn abandon(self) {
        self.world.borrow_mut().kernel.abandon();
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
