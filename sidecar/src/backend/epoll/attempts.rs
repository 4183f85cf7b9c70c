//! What is tried when a socket is ready: accepting, connecting, sending, receiving, a bounded amount of each.
//! It owns those bounds. It never waits, and tries nothing that nobody asked for.

use super::{Epoll, calls};
use crate::backend::{Errno, Event, SocketId, sockets};

/// What one socket may receive in one turn, so that a message beside it does not wait long.
const RECEIVE_PER_TURN_BYTES: u32 = 256 * 1024;

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 16;

impl Epoll {
    /// Tries what waits on the sockets that are ready, each once.
    pub(super) fn run(&mut self) {
        for _ in 0..self.runnable.len() {
            let Some(fd) = self.runnable.pop_front() else {
                return;
            };
            self.sockets[fd as usize].is_runnable = false;
            self.try_accept(fd);
            self.try_connect(fd);
            self.try_send(fd);
            self.try_receive(fd);
        }
    }

    fn try_accept(&mut self, fd: i32) {
        for _ in 0..ACCEPTS_PER_TURN {
            let socket = &mut self.sockets[fd as usize];
            let Some((token, once)) = socket.accept.filter(|_| socket.readiness.readable) else {
                return;
            };
            match sockets::accept(SocketId(fd), true) {
                Ok(client) if once => {
                    socket.accept = None;
                    self.forget(client);
                    return self.finish(token, Event::Accepted(client));
                }
                Ok(client) => {
                    self.forget(client);
                    self.goes_on(token, Event::Accepted(client));
                }
                Err(Errno(libc::EAGAIN)) => {
                    socket.readiness.readable = false;
                    return;
                }
                Err(Errno(libc::ECONNABORTED | libc::EINTR)) => {}
                Err(errno) => {
                    socket.accept = None;
                    return self.finish(token, Event::Failed(errno));
                }
            }
        }
        self.make_runnable(fd);
    }

    fn try_connect(&mut self, fd: i32) {
        let socket = &mut self.sockets[fd as usize];
        if !socket.readiness.writable {
            return;
        }
        let Some(token) = socket.connect.take() else {
            return;
        };
        match calls::connect_result(SocketId(fd)) {
            Ok(()) => self.finish(token, Event::Connected),
            Err(errno) => self.finish(token, Event::Failed(errno)),
        }
    }

    fn try_send(&mut self, fd: i32) {
        let socket = &mut self.sockets[fd as usize];
        if !socket.readiness.writable {
            return;
        }
        let Some((token, chunks)) = socket.send.take() else {
            return;
        };
        match calls::send(SocketId(fd), &chunks, &self.pool) {
            Ok(sent) => self.finish(token, Event::Sent(sent)),
            Err(Errno(libc::EAGAIN)) => {
                socket.readiness.writable = false;
                socket.send = Some((token, chunks));
            }
            Err(errno) => self.finish(token, Event::Failed(errno)),
        }
    }

    fn try_receive(&mut self, fd: i32) {
        let mut received = 0;
        while received < RECEIVE_PER_TURN_BYTES {
            let socket = &self.sockets[fd as usize];
            let Some((token, limit)) = socket.receive.filter(|_| socket.readiness.readable) else {
                return;
            };
            let Some(entry) = self.pool.keep_filling(&mut self.filling) else {
                self.sockets[fd as usize].receive = None;
                return self.finish(token, Event::NoBuffers);
            };
            if let Err(errno) = self.pool.make_resident(entry) {
                self.sockets[fd as usize].receive = None;
                return self.finish(token, Event::Failed(errno));
            }
            let most = limit.min(self.pool.room(entry));
            let result = sockets::receive(SocketId(fd), &self.pool, entry, most);
            let socket = &mut self.sockets[fd as usize];
            match result {
                Ok(0) => {
                    socket.receive = None;
                    return self.finish(token, Event::EndOfStream);
                }
                Ok(bytes) => {
                    received += bytes;
                    // Less than asked for is all there was, unless the end is behind it, as the memory is there.
                    socket.readiness.readable = bytes == most || socket.at_end;
                    let chunk = self.pool.filled(entry, bytes);
                    let left = limit - bytes;
                    socket.receive = (left > 0).then_some((token, left));
                    if left == 0 {
                        return self.finish(token, Event::Received(chunk));
                    }
                    self.goes_on(token, Event::Received(chunk));
                }
                Err(Errno(libc::EAGAIN)) => socket.readiness.readable = false,
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => {
                    socket.receive = None;
                    return self.finish(token, Event::Failed(errno));
                }
            }
        }
        self.make_runnable(fd);
    }
}
