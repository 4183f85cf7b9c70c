//! The epoll backend: readiness turned into the same completions as the ring's.
//!
//! It is the fallback wherever io_uring is blocked. Sockets are always non-blocking here and each is watched
//! edge-triggered from its first operation on. A send is tried at once; a receive when the socket is readable,
//! a bounded amount per turn. Nothing is ever queued for the kernel, so that there is no pushback to report.

mod attempts;
pub(super) mod calls;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::pool::Pool;
use super::{
    Backend, Chunk, Completion, Entered, Errno, Event, Features, Operation, OperationKind, Outcome,
    PoolUse, Readiness, SocketId, SocketOptions, Token, Waker, sockets,
};
use crate::time::Time;
use calls::Interest;

/// Operations that may be started in one turn: no queue bounds them, a turn should be bounded all the same.
const ROOM: u32 = 4096;

/// Events taken from one wait.
const EVENTS_PER_WAIT: usize = 256;

/// A worker's epoll instance and what it knows of each socket.
pub struct Epoll {
    interest: Interest,
    pool: Pool,
    /// The entry that receives fill at the moment.
    filling: Option<u32>,
    waker: Waker,
    epoch: Instant,
    /// By descriptor.
    sockets: Vec<Watched>,
    /// Descriptors with an operation that can be tried.
    runnable: VecDeque<i32>,
    completions: VecDeque<Completion>,
    events: Vec<libc::epoll_event>,
    in_flight: u32,
}

/// A watched socket: its readiness as far as known, and the operations that wait on it.
#[derive(Default)]
struct Watched {
    is_watched: bool,
    is_runnable: bool,
    readiness: Readiness,
    /// The other end has sent its last byte: a short read does not mean that nothing is left to read.
    at_end: bool,
    accept: Option<(Token, bool)>,
    connect: Option<Token>,
    receive: Option<(Token, u32)>,
    send: Option<(Token, Vec<Chunk>)>,
    poll: Option<Token>,
    watch: Option<Token>,
}

impl Epoll {
    /// An epoll instance for one worker.
    ///
    /// # Errors
    /// No descriptor or memory is left.
    pub fn new(epoch: Instant, pool_limit_bytes: usize) -> Result<Self, Errno> {
        let epoll = Epoll {
            interest: Interest::new()?,
            pool: Pool::new(pool_limit_bytes),
            filling: None,
            waker: Waker::new()?,
            epoch,
            sockets: Vec::new(),
            runnable: VecDeque::new(),
            completions: VecDeque::new(),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT],
            in_flight: 0,
        };
        epoll.interest.add(epoll.waker.fd())?;
        Ok(epoll)
    }

    fn watched(&mut self, fd: i32) -> Result<&mut Watched, Errno> {
        let index = fd as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, Watched::default);
        }
        let socket = &mut self.sockets[index];
        if !socket.is_watched {
            // What it is ready for now, the first wait tells.
            self.interest.add(fd)?;
            socket.is_watched = true;
        }
        Ok(socket)
    }

    /// A descriptor was made: what is known of the number is about one that is gone.
    fn forget(&mut self, socket: SocketId) {
        if let Some(watched) = self.sockets.get_mut(socket.0 as usize) {
            // Still in the queue of runnables, if it was: it is found to have nothing to run.
            *watched = Watched {
                is_runnable: watched.is_runnable,
                ..Watched::default()
            };
        }
    }

    fn make_runnable(&mut self, fd: i32) {
        let socket = &mut self.sockets[fd as usize];
        if !socket.is_runnable {
            socket.is_runnable = true;
            self.runnable.push_back(fd);
        }
    }

    fn finish(&mut self, token: Token, event: Event) {
        self.in_flight -= 1;
        self.completions.push_back(Completion {
            token,
            event,
            more: false,
        });
    }

    fn goes_on(&mut self, token: Token, event: Event) {
        self.completions.push_back(Completion {
            token,
            event,
            more: true,
        });
    }

    fn on_event(&mut self, event: libc::epoll_event) {
        let (fd, mask) = (event.u64 as i32, event.events);
        if fd == self.waker.fd() {
            self.waker.clear();
            self.goes_on(Token::WAKE, Event::Woken);
            return;
        }
        // Poll's bits and epoll's are the same numbers.
        let changed = Readiness::from_poll(mask);
        let socket = &mut self.sockets[fd as usize];
        socket.readiness.readable |= changed.readable;
        socket.readiness.writable |= changed.writable;
        socket.readiness.broken |= changed.broken;
        socket.at_end |= mask & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0;
        if changed.broken
            && let Some(token) = socket.watch.take()
        {
            self.finish(token, Event::Ready(changed));
        }
        if let Some(token) = self.sockets[fd as usize].poll {
            self.goes_on(token, Event::Ready(changed));
        } else {
            self.make_runnable(fd);
        }
    }

    /// Starts an operation, or says why it cannot be watched.
    fn begin(&mut self, token: Token, operation: Operation<'_>) -> Result<(), Errno> {
        match operation {
            Operation::Accept { listener, once } => {
                sockets::set_non_blocking(listener, true);
                self.watched(listener.0)?.accept = Some((token, once));
                self.make_runnable(listener.0);
            }
            Operation::Connect { socket, address } => match calls::connect(socket, address) {
                Ok(()) => self.finish(token, Event::Connected),
                Err(Errno(libc::EINPROGRESS)) => self.watched(socket.0)?.connect = Some(token),
                Err(errno) => self.finish(token, Event::Failed(errno)),
            },
            Operation::Receive {
                socket,
                limit_bytes,
            } => {
                let watched = self.watched(socket.0)?;
                watched.receive = Some((token, limit_bytes));
                if watched.readiness.readable {
                    self.make_runnable(socket.0);
                }
            }
            Operation::Send { socket, chunks } => match calls::send(socket, chunks, &self.pool) {
                Ok(sent) => self.finish(token, Event::Sent(sent)),
                Err(Errno(libc::EAGAIN)) => {
                    let watched = self.watched(socket.0)?;
                    watched.readiness.writable = false;
                    watched.send = Some((token, chunks.to_vec()));
                }
                Err(errno) => self.finish(token, Event::Failed(errno)),
            },
            Operation::Poll { socket } => {
                let watched = self.watched(socket.0)?;
                watched.poll = Some(token);
                let known = watched.readiness;
                self.goes_on(token, Event::Ready(known));
            }
            Operation::Watch { socket } => {
                let watched = self.watched(socket.0)?;
                let known = watched.readiness;
                if known.broken {
                    self.finish(token, Event::Ready(known));
                } else {
                    watched.watch = Some(token);
                }
            }
            Operation::Cancel { .. } => {}
        }
        Ok(())
    }

    fn cancel(&mut self, target: Token, socket: SocketId) {
        let holds = |socket: &Watched| match target.kind() {
            OperationKind::Accept => socket.accept.is_some_and(|(token, _)| token == target),
            OperationKind::Connect => socket.connect == Some(target),
            OperationKind::Receive => socket.receive.is_some_and(|(token, _)| token == target),
            OperationKind::Send => socket
                .send
                .as_ref()
                .is_some_and(|(token, _)| *token == target),
            OperationKind::Poll => socket.poll == Some(target),
            OperationKind::Watch => socket.watch == Some(target),
            OperationKind::Internal | OperationKind::Wake => false,
        };
        let fd = socket.0 as usize;
        let Some(socket) = self.sockets.get_mut(fd).filter(|socket| holds(socket)) else {
            return;
        };
        match target.kind() {
            OperationKind::Accept => {
                socket.accept = None;
                // Other workers may accept from it now: not to be woken for what they take.
                *socket = Watched::default();
                self.interest.remove(fd as i32);
            }
            OperationKind::Connect => socket.connect = None,
            OperationKind::Receive => socket.receive = None,
            OperationKind::Send => socket.send = None,
            OperationKind::Watch => socket.watch = None,
            _ => socket.poll = None,
        }
        self.finish(target, Event::Cancelled);
    }
}

impl Backend for Epoll {
    const NAME: &'static str = "epoll";

    fn features(&self) -> Features {
        Features {
            exact_receive_limit: true,
            prewarmed_operations: 0,
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.epoch.elapsed().as_nanos() as u64)
    }

    fn room(&self) -> u32 {
        ROOM
    }

    fn start(&mut self, token: Token, operation: Operation<'_>) {
        if let Operation::Cancel { target, socket } = operation {
            return self.cancel(target, socket);
        }
        self.in_flight += 1;
        if let Err(errno) = self.begin(token, operation) {
            self.finish(token, Event::Failed(errno));
        }
    }

    fn cancel_now(&mut self, target: Token, socket: SocketId) {
        self.cancel(target, socket);
    }

    fn queued(&self) -> u32 {
        0
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn enter(&mut self, _most: u32, wait: Option<Duration>) -> Entered {
        self.run();
        let busy = !self.completions.is_empty() || !self.runnable.is_empty();
        let wait = wait.filter(|_| !busy).unwrap_or_default();
        let mut events = std::mem::take(&mut self.events);
        let came = self.interest.wait(&mut events, wait);
        for event in &events[..came.unwrap_or(0)] {
            self.on_event(*event);
        }
        self.events = events;
        self.run();
        let outcome = match came {
            Ok(_) => Outcome::Nothing,
            Err(Errno(libc::EINTR)) => Outcome::Interrupted,
            Err(_) => Outcome::Broken,
        };
        Entered {
            offered: 0,
            taken: 0,
            outcome,
            errno: came.err(),
            overflowed: false,
        }
    }

    fn reap(&mut self, most: usize, completions: &mut Vec<Completion>) -> bool {
        let count = self.completions.len().min(most);
        completions.extend(self.completions.drain(..count));
        !self.completions.is_empty()
    }

    fn socket(&mut self, address: &SockAddr, options: &SocketOptions) -> Result<SocketId, Errno> {
        let socket = sockets::stream(address, options, true)?;
        self.forget(socket);
        Ok(socket)
    }

    fn close(&mut self, socket: SocketId, reset: bool) {
        self.forget(socket);
        sockets::close(socket, reset);
    }

    fn set_splice_mode(&mut self, socket: SocketId, splice: bool) {
        if !splice {
            // What splicing found out about readiness is not known here: trying settles it.
            // It is watched since its first operation.
            let Ok(watched) = self.watched(socket.0) else {
                return;
            };
            watched.readiness = Readiness {
                readable: true,
                writable: true,
                ..watched.readiness
            };
        }
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
