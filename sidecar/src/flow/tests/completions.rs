//! The model's kernel, asynchronous half: what operations in flight come to.

use super::kernel::{Receive, Send};
use super::plan::Answer;
use super::world::{HEADER_BYTES, World, reset_by};
use crate::backend::Errno;
use crate::flow::{CloseReason, Side};

impl World {
    pub(super) fn connect_ends(&mut self) {
        let Some((answer, is_cancelled)) = self.connect.take() else {
            return;
        };
        if is_cancelled && (answer == Answer::Silence || self.choose(2) == 0) {
            return self.connect_failed(CloseReason::ConnectTimeout);
        }
        if self.goes_wrong(4) {
            self.attempts -= 1;
            return self.flow.on_connect_postponed(self.now);
        }
        match answer {
            Answer::Connects => {
                let header = self
                    .plan
                    .header
                    .then(|| self.memory.own(Side::Client, 0, HEADER_BYTES));
                self.flow.on_connected(header, &mut self.chunks, self.now);
            }
            Answer::Refuses => self.connect_failed(CloseReason::ConnectRefused),
            Answer::Silence => {}
        }
    }

    pub(super) fn receive_goes_on(&mut self, side: Side) {
        let now = self.now;
        let exact = self.plan.exact_receive_limit;
        let socket = &self.sockets[side as usize];
        let Some(op) = &socket.receive else {
            return;
        };
        let (is_cancelled, left) = (op.is_cancelled, op.left_bytes);
        let (unread, ended, error) = (socket.unread(), socket.ended, socket.read_error());
        let received = socket.received;
        if is_cancelled && (!socket.is_readable() || self.choose(3) == 0) {
            self.socket(side).receive = None;
            return self.flow.on_receive_stopped(side, false);
        }
        if let Some(errno) = error {
            self.socket(side).receive = None;
            return self.flow.on_receive_failed(side, errno, now);
        }
        if self.goes_wrong(8) {
            self.socket(side).receive = None;
            match self.choose(4) {
                // No buffers.
                0 => {
                    self.flow.on_receive_stopped(side, false);
                    self.shortage = true;
                }
                // The kernel ended a multishot.
                1 => self.flow.on_receive_stopped(side, false),
                2 => self.flow.on_receive_failed(side, Errno(libc::ENOMEM), now),
                _ => self.flow.on_receive_failed(side, Errno(libc::EAGAIN), now),
            }
            return;
        }
        if unread == 0 {
            assert!(ended, "nothing to receive");
            self.moved_at = now;
            self.socket(side).receive = None;
            return self.flow.on_end_of_stream(side, now);
        }
        let most = if exact {
            unread.min(u64::from(left))
        } else {
            unread
        };
        let bytes = self.amount(most.min(65_536));
        let left = left.saturating_sub(bytes);
        let is_last = (exact && left == 0) || (is_cancelled && self.choose(2) == 1);
        let more = !(is_last || self.goes_wrong(8));
        let adjacent = self.choose(2) == 0;
        let position = self.header(side) + received;
        let chunk = self.memory.fill(side, position, bytes, adjacent);
        self.moved_at = now;
        let socket = self.socket(side);
        socket.received += u64::from(bytes);
        socket.receive = more.then_some(Receive {
            left_bytes: left,
            is_cancelled,
        });
        self.flow
            .on_received(side, chunk, more, &mut self.chunks, now);
    }

    pub(super) fn send_goes_on(&mut self, sink: Side) {
        let from = sink.other();
        let Some(mut op) = self.socket(sink).send.take() else {
            return;
        };
        let over = |world: &mut World, op: Send, errno: i32| {
            if op.done_bytes > 0 {
                world.moved_at = world.now;
                world
                    .flow
                    .on_sent(from, op.done_bytes, &mut world.chunks, world.now);
            } else {
                world.flow.on_send_failed(from, Errno(errno), world.now);
            }
            world.move_out(from);
        };
        let is_writable = self.sockets[sink as usize].is_writable();
        if op.is_cancelled && (!is_writable || self.choose(2) == 0) {
            return over(self, op, libc::ECANCELED);
        }
        if let Some(errno) = self.sockets[sink as usize].write_error() {
            self.causes.insert(reset_by(sink));
            return over(self, op, errno.0);
        }
        if self.goes_wrong(8) {
            let errno = [libc::ENOMEM, libc::EAGAIN, libc::EINTR][self.choose(3)];
            return over(self, op, errno);
        }
        let all: u32 = op.chunks.iter().map(|chunk| chunk.len).sum();
        let most = self.sockets[sink as usize].room.min(all - op.done_bytes);
        let bytes = self.amount(u64::from(most));
        self.check_order(from, &op, bytes);
        self.socket(sink).take(bytes);
        op.done_bytes += bytes;
        if op.done_bytes == all || self.choose(4) == 3 {
            return over(self, op, 0);
        }
        self.socket(sink).send = Some(op);
    }

    /// The next `bytes` of a send are those that the peer has to get next.
    pub(super) fn check_order(&self, from: Side, op: &Send, bytes: u32) {
        let mut skip = op.done_bytes;
        let mut left = bytes;
        let mut at = self.sockets[from.other() as usize].taken;
        for &chunk in &op.chunks {
            let skipped = skip.min(chunk.len);
            skip -= skipped;
            let part = (chunk.len - skipped).min(left);
            let position = self.memory.position(from, chunk) + u64::from(skipped);
            if part > 0 {
                assert_eq!(position, at, "bytes out of order from {from:?}");
                at += u64::from(part);
                left -= part;
            }
        }
        assert_eq!(left, 0);
    }

    pub(super) fn poll_reports(&mut self, side: Side) {
        let now = self.now;
        let Some(mut op) = self.socket(side).poll.take() else {
            return;
        };
        let wrong = self.goes_wrong(8);
        let news = op
            .news
            .take()
            .filter(|_| !op.is_cancelled || self.choose(2) == 1);
        let Some(news) = news else {
            return self.flow.on_poll_failed(side, Errno(libc::ECANCELED), now);
        };
        if wrong && self.choose(2) == 0 {
            return self.flow.on_poll_failed(side, Errno(libc::ENOMEM), now);
        }
        if !wrong {
            self.socket(side).poll = Some(op);
        }
        self.flow.on_ready(side, news, !wrong);
    }

    pub(super) fn watch_reports(&mut self, side: Side) {
        let socket = self.socket(side);
        let is_broken = socket.reset || socket.refuses;
        if socket.watch.take() == Some(false) && is_broken {
            self.causes.insert(reset_by(side));
        }
        self.flow.on_watched(side, is_broken);
    }
}
