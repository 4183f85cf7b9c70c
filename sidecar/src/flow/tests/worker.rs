//! The model's worker: asks the flow after every event, and starts what it wants.

use super::kernel::{Receive, Send, Socket};
use super::world::World;
use crate::backend::{Chunk, GATHER_MOST, SocketId};
use crate::flow::{Action, CloseReason, Ending as What, Side};
use crate::time::Time;

/// More actions than this after one event are a loop.
const ACTIONS_MOST: usize = 64;

impl World {
    /// Asks the flow for all that it wants, as the worker does after an event.
    pub(super) fn settle(&mut self) {
        let view = self.view();
        for count in 0.. {
            assert!(count < ACTIONS_MOST, "actions without end: {:?}", self.flow);
            let Some(action) = self.flow.next_action(&view) else {
                break;
            };
            self.carry_out(action);
            if self.closed.is_some() {
                return;
            }
        }
        self.is_starved |= self.is_short_of_buffers();
        self.is_streaming |= self.flow.has_splice_work(self.plan.share_bytes, self.now);
        assert_eq!(
            self.flow.holds_pipes(),
            self.holds_places,
            "places for pipes do not add up"
        );
        // Without an exact limit there is what came before the cancel took hold.
        for from in Side::BOTH
            .into_iter()
            .filter(|_| self.plan.exact_receive_limit)
        {
            let queued = u64::from(self.flow.queue(from).bytes());
            let most = u64::from(self.share_most) + self.header(from);
            assert!(queued <= most, "{queued} bytes are queued");
        }
        let deadline = self.flow.deadline(&self.plan.timeouts).unwrap_or(Time::MAX);
        self.timer_at = self.timer_at.min(deadline);
        for chunk in self.chunks.take_released() {
            self.memory.release(chunk);
        }
    }

    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect => self.start_connect(),
            Action::Receive { side, limit_bytes } => {
                assert!(limit_bytes > 0, "a receive of nothing");
                assert!(!self.shortage, "a receive is started though none may be");
                let socket = self.socket(side);
                assert!(socket.receive.is_none() && !socket.is_non_blocking);
                socket.receive = Some(Receive {
                    left_bytes: limit_bytes,
                    is_cancelled: false,
                });
            }
            Action::Send { from } => self.start_send(from),
            Action::Poll { side } => {
                let socket = self.socket(side);
                assert!(socket.poll.is_none() && socket.is_non_blocking);
                socket.start_poll();
            }
            Action::Watch { side } => {
                let socket = self.socket(side);
                assert!(socket.watch.is_none() && socket.receive.is_none());
                socket.watch = Some(false);
            }
            Action::Cancel { side, what } => self.cancel(side, what),
            Action::ShutdownWrite { side } => {
                let from = side.other();
                let all = self.header(from) + self.sockets[from as usize].sent;
                assert!(
                    self.sockets[from as usize].ended,
                    "an end that was not sent"
                );
                let socket = self.socket(side);
                assert!(!socket.shut, "an end of stream is passed on twice");
                assert_eq!(socket.taken, all, "an end of stream overtakes bytes");
                socket.shut = true;
            }
            Action::BeginSplicing => {
                assert!(self.may_splice && !self.holds_places);
                self.holds_places = true;
                self.splices += 1;
                self.set_splice_mode(true);
                if self.goes_wrong(4) {
                    self.flow.no_pipes();
                }
            }
            Action::EndSplicing => {
                assert!(self.holds_places);
                self.holds_places = false;
                self.set_splice_mode(false);
            }
            Action::Close { reset } => self.close(reset),
        }
    }

    pub(super) fn start_connect(&mut self) {
        assert!(self.connect.is_none());
        let answer = self.plan.addresses[self.attempts];
        self.attempts += 1;
        if self.plan.faults && self.choose(8) == 7 {
            // socket(2) failed: told at once, in the midst of the asking.
            self.causes.insert(CloseReason::ConnectFailed);
            return self.connect_failed(CloseReason::ConnectFailed);
        }
        self.flow.connecting_by(SocketId(1));
        self.connect = Some((answer, false));
    }

    pub(super) fn connect_failed(&mut self, reason: CloseReason) {
        self.causes.insert(reason);
        let more = self.attempts < self.plan.addresses.len();
        self.flow.on_connect_failed(reason, more, self.now);
        assert_eq!(self.flow.socket(Side::Upstream), SocketId::NONE);
    }

    pub(super) fn start_send(&mut self, from: Side) {
        let mut chunks = [Chunk::of_place(0, 0, 0); GATHER_MOST];
        let (count, bytes) = self.chunks.gather(self.flow.queue(from), &mut chunks);
        assert!(bytes > 0, "a send of nothing");
        let sink = self.socket(from.other());
        assert!(sink.send.is_none() && !sink.is_non_blocking && !sink.shut);
        sink.send = Some(Send {
            chunks: chunks[..count].to_vec(),
            done_bytes: 0,
            is_cancelled: false,
        });
    }

    pub(super) fn cancel(&mut self, side: Side, what: What) {
        let connect = &mut self.connect;
        let socket = &mut self.sockets[side as usize];
        let flag = match what {
            What::Connect => connect.as_mut().map(|(_, is_cancelled)| is_cancelled),
            What::Receive => socket.receive.as_mut().map(|op| &mut op.is_cancelled),
            What::Send => socket.send.as_mut().map(|op| &mut op.is_cancelled),
            What::Watch => socket.watch.as_mut(),
            What::Poll => socket.poll.as_mut().map(|op| &mut op.is_cancelled),
        };
        let flag = flag.expect("what is cancelled is in flight");
        assert!(!*flag, "cancelled twice");
        *flag = true;
    }

    pub(super) fn set_splice_mode(&mut self, splice: bool) {
        for side in Side::BOTH {
            assert!(self.flow.queue(side).is_empty(), "bytes are queued");
            assert!(self.flow.pipe(side).is_none(), "a pipe is lent");
            let socket = self.socket(side);
            assert!(!socket.is_in_use(), "an operation is in flight");
            socket.is_non_blocking = splice;
        }
    }

    pub(super) fn close(&mut self, reset: bool) {
        assert!(self.connect.is_none(), "closed with a connect in flight");
        let in_use = self.sockets.iter().any(Socket::is_in_use);
        assert!(!in_use, "closed with an operation in flight");
        let watched = self.sockets.iter().any(|socket| socket.watch.is_some());
        assert!(!watched, "closed with a watch in flight");
        let mut cut_short = false;
        for from in Side::BOTH {
            cut_short |= !self.flow.queue(from).is_empty();
            // Also what came while the flow was being ended.
            let delivered = self.sockets[from.other() as usize].taken;
            let received = self.sockets[from as usize].received;
            cut_short |= received > delivered.saturating_sub(self.header(from));
        }
        self.holds_places &= !self.flow.holds_pipes();
        for (pipe, is_empty) in self.flow.dispose(&mut self.chunks).into_iter().flatten() {
            let piped = &self.pipes[pipe.read as usize / 2];
            assert_eq!(piped.bytes == 0, is_empty, "the flow miscounts its pipe");
            cut_short |= !is_empty;
        }
        assert!(reset || !cut_short, "a close without reset cuts short");
        for chunk in self.chunks.take_released() {
            self.memory.release(chunk);
        }
        self.closed = Some(reset);
    }

    pub(super) fn move_out(&mut self, from: Side) {
        if !std::mem::take(&mut self.moving_out[from as usize])
            || self.flow.closing().is_some()
            || self.flow.queue(from).is_empty()
        {
            return;
        }
        let position = self.sockets[from.other() as usize].taken;
        let mut at = position;
        let memory = &self.memory;
        self.chunks.for_each(self.flow.queue(from), |chunk| {
            assert_eq!(memory.position(from, chunk), at, "a queue out of order");
            at += u64::from(chunk.len);
        });
        let own = self.memory.own(from, position, (at - position) as u32);
        self.flow.replace_queue(from, own, &mut self.chunks);
    }
}
