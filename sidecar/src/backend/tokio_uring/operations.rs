//! The worker's operations as requests to the ring, and the ring's answers as completions.
//!
//! Sends and connects are requests of their own. Accepts and receives are polls by the ring followed by the call
//! itself, a bounded amount per turn: tokio-uring knows neither multishot requests nor buffers chosen by the
//! kernel, and a receive that waits with a buffer of its own would pin one for every idle connection. The readiness
//! of streams, which are spliced, comes from epoll: a poll of the ring for room to write ends at once, and again and
//! again, when the other end has sent its last byte.

use std::time::Duration;

use super::TokioUring;
use super::answers::Answer;
use super::entries::{Kind, Request, Way};
use super::socket::{self, Poll};
use crate::backend::{
    Completion, Errno, Event, Operation, OperationKind, Readiness, SocketId, Token, sockets,
};

/// What one socket may receive in one turn, so that a message beside it does not wait long.
const RECEIVE_PER_TURN_BYTES: u32 = 256 * 1024;

/// Streams that one call tells of.
const EVENTS_PER_CALL: usize = 64;

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;

impl TokioUring {
    pub(super) fn begin(&mut self, token: Token, operation: Operation<'_>) {
        match operation {
            Operation::Accept { listener, once } => {
                sockets::set_non_blocking(listener, true);
                let socket = self.socket_mut(listener.0);
                socket.accept = Some((token, once));
                socket.accept_ends = false;
                self.arm(listener.0, Way::Readable);
            }
            Operation::Connect { socket, address } => {
                self.socket_mut(socket.0).connect = Some(socket::Request::queued(token));
                self.queue.push_back(Request::connect(socket.0, address));
            }
            Operation::Receive {
                socket,
                limit_bytes,
            } => {
                self.socket_mut(socket.0).receive = Some((token, limit_bytes));
                self.arm(socket.0, Way::Readable);
            }
            Operation::Send { socket, chunks } => {
                self.socket_mut(socket.0).send = Some(socket::Request::queued(token));
                let request = Request::send(socket.0, chunks, &self.pool);
                self.queue.push_back(request);
            }
            Operation::Poll { socket } => {
                self.socket_mut(socket.0).poll = Some(token);
                // What it is ready for now, epoll's first event tells.
                if let Err(errno) = self.streams.add(socket.0) {
                    self.sockets[socket.0 as usize].poll = None;
                    self.over(token, Event::Failed(errno));
                }
            }
            Operation::Watch { socket } => {
                self.socket_mut(socket.0).watch = Some(token);
                self.arm(socket.0, Way::Broken);
            }
            Operation::Cancel { .. } => {}
        }
    }

    /// Ends an operation: at once where the ring has nothing of it or only a poll, else by a cancel.
    pub(super) fn end(&mut self, target: Token, socket: SocketId) {
        let fd = socket.0;
        let Some(socket) = self
            .sockets
            .get_mut(fd as usize)
            .filter(|socket| socket.runs(target))
        else {
            return;
        };
        match target.kind() {
            OperationKind::Accept if socket.polls[Way::Readable as usize] == Poll::Armed => {
                if std::mem::replace(&mut socket.accept_ends, true) {
                    return;
                }
                return self.queue.push_back(Request::of(fd, Kind::Cancel));
            }
            OperationKind::Accept => socket.accept = None,
            OperationKind::Receive => socket.receive = None,
            OperationKind::Watch => socket.watch = None,
            OperationKind::Poll => {
                socket.poll = None;
                self.streams.remove(fd);
            }
            kind => {
                let (running, what) = if kind == OperationKind::Send {
                    (&mut socket.send, Kind::Send)
                } else {
                    (&mut socket.connect, Kind::Connect)
                };
                if let Some(request) = running.as_mut().filter(|request| request.is_on_the_way) {
                    if !request.ends {
                        request.ends = true;
                        self.queue.push_back(Request::of(fd, Kind::Cancel));
                    }
                    return;
                }
                *running = None;
                self.queue
                    .retain(|request| request.fd != fd || request.kind != what);
            }
        }
        self.over(target, Event::Cancelled);
    }

    /// Has the ring tell when the descriptor is ready in this way, unless it is about to.
    pub(super) fn arm(&mut self, fd: i32, way: Way) {
        let poll = &mut self.sockets[fd as usize].polls[way as usize];
        if *poll == Poll::No {
            *poll = Poll::Queued;
            self.queue.push_back(Request::of(fd, Kind::Poll(way)));
        }
    }

    /// The next request to hand over, in the order in which they came. What nobody needs any more is left out.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        loop {
            let request = self.queue.pop_front()?;
            let socket = &mut self.sockets[request.fd as usize];
            let is_needed = match request.kind {
                Kind::Poll(way) => {
                    let needed = socket.needs(way);
                    let poll = &mut socket.polls[way as usize];
                    let is_queued = *poll == Poll::Queued;
                    if is_queued {
                        *poll = if needed { Poll::Armed } else { Poll::No };
                    }
                    is_queued && needed
                }
                Kind::Send => mark(&mut socket.send),
                Kind::Connect => mark(&mut socket.connect),
                _ => socket.ends_something(),
            };
            if is_needed {
                return Some(request);
            }
        }
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        let Answer { fd, kind, result } = answer;
        match kind {
            Kind::Poll(way) => self.polled(fd, way, result),
            Kind::Send => {
                if let Some(request) = self.sockets[fd as usize].send.take() {
                    self.over(
                        request.token,
                        event(result, |sent| Event::Sent(sent as u32)),
                    );
                }
            }
            Kind::Connect => {
                if let Some(request) = self.sockets[fd as usize].connect.take() {
                    self.over(request.token, event(result, |_| Event::Connected));
                }
            }
            // It found nothing although something is to end: that was just being tried again.
            Kind::Cancel if result <= 0 && self.sockets[fd as usize].ends_something() => {
                self.queue.push_back(Request::of(fd, Kind::Cancel));
            }
            _ => {}
        }
        let socket = &mut self.sockets[fd as usize];
        if socket.closes && !socket.is_in_use() {
            *socket = socket::Socket::default();
            sockets::close(SocketId(fd), false);
        }
    }

    fn polled(&mut self, fd: i32, way: Way, result: i32) {
        let socket = &mut self.sockets[fd as usize];
        socket.polls[way as usize] = Poll::No;
        if let Some((token, _)) = socket.accept.filter(|_| socket.accept_ends) {
            socket.accept = None;
            socket.accept_ends = false;
            return self.over(token, Event::Cancelled);
        }
        if !socket.needs(way) {
            return;
        }
        if result == -libc::ECANCELED {
            // By a cancel that was meant for another request on this descriptor.
            return self.arm(fd, way);
        }
        if result < 0 {
            return self.failed(fd, way, Errno(-result));
        }
        let readiness = Readiness::from_poll(result as u32);
        let over = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;
        socket.at_end |= result & over != 0;
        if way == Way::Readable {
            self.make_runnable(fd);
        } else if let Some(token) = socket.watch.take() {
            self.over(token, Event::Ready(readiness));
        }
    }

    /// A poll could not be made: what waits for it has failed.
    fn failed(&mut self, fd: i32, way: Way, errno: Errno) {
        let socket = &mut self.sockets[fd as usize];
        let waiting = match way {
            Way::Readable => [
                socket.accept.take().map(|(token, _)| token),
                socket.receive.take().map(|(token, _)| token),
            ],
            _ => [socket.watch.take(), None],
        };
        for token in waiting.into_iter().flatten() {
            self.over(token, Event::Failed(errno));
        }
    }

    /// Tells of streams that have become ready.
    pub(super) fn streams_ready(&mut self) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_CALL];
        loop {
            let came = self.streams.wait(&mut events, Duration::ZERO).unwrap_or(0);
            for event in &events[..came] {
                let (fd, mask) = (event.u64 as usize, event.events);
                if let Some(token) = self.sockets[fd].poll {
                    // Poll's bits and epoll's are the same numbers.
                    self.goes_on(token, Event::Ready(Readiness::from_poll(mask)));
                }
            }
            if came < EVENTS_PER_CALL {
                return;
            }
        }
    }

    /// Accepts from and receives from what is ready, a bounded amount each.
    pub(super) fn run(&mut self) {
        for _ in 0..self.runnable.len() {
            let Some(fd) = self.runnable.pop_front() else {
                return;
            };
            self.sockets[fd as usize].is_runnable = false;
            self.try_accept(fd);
            self.try_receive(fd);
        }
    }

    fn make_runnable(&mut self, fd: i32) {
        let socket = &mut self.sockets[fd as usize];
        if !socket.is_runnable {
            socket.is_runnable = true;
            self.runnable.push_back(fd);
        }
    }

    fn try_accept(&mut self, fd: i32) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((token, once)) = self.sockets[fd as usize].accept else {
                return;
            };
            match sockets::accept(SocketId(fd), false) {
                Ok(client) if once => {
                    self.sockets[fd as usize].accept = None;
                    return self.over(token, Event::Accepted(client));
                }
                Ok(client) => self.goes_on(token, Event::Accepted(client)),
                Err(Errno(libc::EAGAIN)) => return self.arm(fd, Way::Readable),
                Err(Errno(libc::ECONNABORTED | libc::EINTR)) => {}
                Err(errno) => {
                    self.sockets[fd as usize].accept = None;
                    return self.over(token, Event::Failed(errno));
                }
            }
        }
        self.make_runnable(fd);
    }

    fn try_receive(&mut self, fd: i32) {
        let mut received = 0;
        while received < RECEIVE_PER_TURN_BYTES {
            let Some((token, limit)) = self.sockets[fd as usize].receive else {
                return;
            };
            let Some(entry) = self.pool.keep_filling(&mut self.filling) else {
                self.sockets[fd as usize].receive = None;
                return self.over(token, Event::NoBuffers);
            };
            let most = limit.min(self.pool.room(entry));
            let result = sockets::receive(SocketId(fd), &self.pool, entry, most);
            let socket = &mut self.sockets[fd as usize];
            match result {
                Ok(0) => {
                    socket.receive = None;
                    return self.over(token, Event::EndOfStream);
                }
                Ok(bytes) => {
                    received += bytes;
                    // Less than asked for is all there was, unless the end is behind it.
                    let is_drained = bytes < most && !socket.at_end;
                    let left = limit - bytes;
                    socket.receive = (left > 0).then_some((token, left));
                    let chunk = self.pool.filled(entry, bytes);
                    if left == 0 {
                        return self.over(token, Event::Received(chunk));
                    }
                    self.goes_on(token, Event::Received(chunk));
                    if is_drained {
                        return self.arm(fd, Way::Readable);
                    }
                }
                Err(Errno(libc::EAGAIN)) => return self.arm(fd, Way::Readable),
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => {
                    socket.receive = None;
                    return self.over(token, Event::Failed(errno));
                }
            }
        }
        self.make_runnable(fd);
    }

    pub(super) fn over(&mut self, token: Token, event: Event) {
        self.in_flight -= 1;
        self.completions.push_back(Completion {
            token,
            event,
            more: false,
        });
    }

    pub(super) fn goes_on(&mut self, token: Token, event: Event) {
        self.completions.push_back(Completion {
            token,
            event,
            more: true,
        });
    }
}

/// Marks a request as handed over; false if it was ended before.
fn mark(request: &mut Option<socket::Request>) -> bool {
    if let Some(request) = request {
        request.is_on_the_way = true;
    }
    request.is_some()
}

fn event(result: i32, done: impl FnOnce(i32) -> Event) -> Event {
    match result {
        number if number == -libc::ECANCELED => Event::Cancelled,
        number @ ..0 => Event::Failed(Errno(-number)),
        done_bytes => done(done_bytes),
    }
}
