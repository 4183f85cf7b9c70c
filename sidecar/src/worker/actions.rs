//! From flows' wishes to operations: asks each connection that something happened to what it wants, and does it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::access_log::Line;
use super::interception;
use super::{Waiting, Worker};
use crate::backend::{Backend, Chunk, GATHER_MOST, Operation, OperationKind, SocketId, Token};
use crate::bug::{self, Bug};
use crate::flow::{Action, CloseReason, Ending, FlowId, Side, View};
use crate::time::Time;

impl<B: Backend> Worker<B> {
    pub(super) fn act_on_dirty(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let mut view = self.view();
        let mut dirty = std::mem::take(&mut self.dirty);
        // Those that found the queue full are asked again, before those that became dirty meanwhile.
        dirty.retain(|&id| !self.act(id, &mut view));
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Carries out all that a connection wants now; false if the queue is full before that.
    fn act(&mut self, id: FlowId, view: &mut View) -> bool {
        let mut may_receive;
        // A flow's wish may make another one at once, such as a connect that fails in the call.
        loop {
            let Some(connection) = self.connections.get_mut(id) else {
                return true;
            };
            // What is being closed frees more than it takes: its cancels have room of their own.
            if self.backend.room() == 0 && connection.flow.closing().is_none() {
                return false;
            }
            // Who waits for buffers comes first.
            let is_next = self.starved.is_empty() || connection.waiting == Waiting::Woken;
            may_receive = view.may_receive && is_next;
            let own_view = View {
                may_receive,
                ..*view
            };
            let Some(action) = connection.flow.next_action(&own_view) else {
                break;
            };
            if let Action::Close { reset } = action {
                self.close(id, reset);
                return true;
            }
            self.carry_out(id, action);
            if action == Action::BeginSplicing {
                // It may have taken the last places for pipes.
                view.may_splice = self.may_splice();
            }
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return true;
        };
        connection.is_dirty = false;
        if connection.waiting == Waiting::Woken {
            connection.waiting = Waiting::No;
        }
        let lacks = connection.flow.lacks_receive(view.share_bytes);
        if lacks && !may_receive && connection.waiting == Waiting::No {
            connection.waiting = Waiting::Starved;
            if !bug::is(Bug::ForgetWhoFoundNoBuffer) {
                self.starved.push_back(id);
            }
        }
        let share_bytes = self.limits.per_direction_bytes;
        if !connection.is_streaming && connection.flow.has_splice_work(share_bytes, self.now) {
            connection.is_streaming = true;
            self.streams.push(id);
        }
        let deadline = connection
            .flow
            .deadline(&self.limits.timeouts)
            .unwrap_or(Time::MAX);
        if deadline < connection.timer_at {
            connection.timer_at = deadline;
            self.timers.schedule(id.slot, deadline);
        }
        true
    }

    fn carry_out(&mut self, id: FlowId, action: Action) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let socket = |side| connection.flow.socket(side);
        let token = |kind, side| Token::new(kind, super::completions::key(id, side));
        match action {
            Action::Connect => self.connect(id),
            Action::Receive { side, limit_bytes } => {
                let operation = Operation::Receive {
                    socket: socket(side),
                    limit_bytes,
                };
                self.backend
                    .start(token(OperationKind::Receive, side), operation);
            }
            Action::Send { from } => {
                let mut chunks = [Chunk::of_place(0, 0, 0); GATHER_MOST];
                let (count, _) = self.chunks.gather(connection.flow.queue(from), &mut chunks);
                let sink = from.other();
                let operation = Operation::Send {
                    socket: socket(sink),
                    chunks: &chunks[..count],
                };
                self.backend
                    .start(token(OperationKind::Send, sink), operation);
                if bug::is(Bug::FreeABufferBeforeItsSendCompletes) {
                    self.backend.release(chunks[0]);
                }
            }
            Action::Poll { side } => {
                self.backend.start(
                    token(OperationKind::Poll, side),
                    Operation::Poll {
                        socket: socket(side),
                    },
                );
            }
            Action::Watch { side } => {
                let operation = Operation::Watch {
                    socket: socket(side),
                };
                self.backend
                    .start(token(OperationKind::Watch, side), operation);
            }
            Action::Cancel { side, what } => {
                let kind = match what {
                    Ending::Connect => OperationKind::Connect,
                    Ending::Receive => OperationKind::Receive,
                    Ending::Send => OperationKind::Send,
                    Ending::Poll => OperationKind::Poll,
                    Ending::Watch => OperationKind::Watch,
                };
                let (target, socket) = (token(kind, side), socket(side));
                self.end_early(target, socket);
            }
            Action::ShutdownWrite { .. } if bug::is(Bug::LoseAHalfClose) => {}
            Action::ShutdownWrite { side } => self.backend.shutdown_write(socket(side)),
            Action::BeginSplicing => self.begin_splicing(id),
            Action::EndSplicing => self.end_splicing(id),
            Action::Close { .. } => {}
        }
    }

    /// Ends an operation before its time. Under pushback the kernel takes no cancel from the queue, but it takes
    /// one by a call.
    pub(super) fn end_early(&mut self, target: Token, socket: SocketId) {
        if self.backoff.attempt() > 0 {
            self.backend.cancel_now(target, socket);
        } else {
            let cancel = Operation::Cancel { target, socket };
            self.backend.start(Token::INTERNAL, cancel);
        }
    }

    fn connect(&mut self, id: FlowId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let relay = &connection.relay;
        let original_port = relay.original_port.load(Ordering::Relaxed);
        if original_port != 0 && connection.addresses.is_none() {
            let client = connection.flow.socket(Side::Client);
            let (peer, original) = (
                self.backend.peer(client),
                self.backend.original_destination(client),
            );
            match interception::destination(peer, original, original_port) {
                Ok(address) => connection.addresses = Some(Arc::new(vec![address.into()])),
                Err(reason) => return self.on_connect_failed(id, reason),
            }
        }
        let addresses = connection.addresses.get_or_insert_with(|| {
            connection.first_address = relay.next_address.fetch_add(1, Ordering::Relaxed);
            relay.addresses.load_full()
        });
        if addresses.is_empty() {
            return self.on_connect_failed(id, CloseReason::NoAddress);
        }
        let addresses = addresses.clone();
        connection.attempts += 1;
        let address = &addresses[connection.address_index(addresses.len())];
        match self.backend.socket(address, &self.limits.sockets) {
            Ok(socket) => {
                self.surroundings.shared.count_descriptors(1);
                connection.flow.connecting_by(socket);
                let token = Token::new(
                    OperationKind::Connect,
                    super::completions::key(id, Side::Upstream),
                );
                self.backend
                    .start(token, Operation::Connect { socket, address });
            }
            Err(errno) => {
                if errno.is_descriptors() {
                    let random = self.random.u64(..);
                    self.gate.descriptors_refused(random, self.now);
                }
                self.on_connect_failed(id, CloseReason::of_connect(errno));
            }
        }
    }

    /// Closes a connection that nothing is in flight on, counts why, and forgets it.
    pub(super) fn close(&mut self, id: FlowId, reset: bool) {
        let Some(mut connection) = self.connections.remove(id) else {
            return;
        };
        let reason = connection.flow.closing().unwrap_or(CloseReason::Finished);
        if self
            .surroundings
            .access_log
            .wants(self.limits.settings.access_log.mode, reason)
        {
            let most = self.limits.settings.access_log.max_per_second;
            let line = Line::of(&connection, reason, self.now);
            if !self.surroundings.access_log.write(line, most, self.now) {
                self.surroundings.stats.access_log_dropped.add(1);
            }
        }
        self.load_changed = true;
        if let Some(client) = connection.client.filter(|_| connection.is_of_source) {
            self.surroundings.shared.sources.release(client.ip());
        }
        self.timers.cancel(id.slot);
        self.return_pipes(&mut connection);
        for side in Side::BOTH {
            let socket = connection.flow.socket(side);
            if socket != SocketId::NONE {
                self.backend.close(socket, reset);
                self.surroundings.shared.count_descriptors(-1);
            }
        }
        self.surroundings
            .shared
            .connections_open
            .fetch_sub(1, Ordering::Relaxed);
        connection.relay.stats[self.surroundings.index].closed[reason.index()].add(1);
    }
}
