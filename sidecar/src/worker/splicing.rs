//! Splicing: pumps streams from socket to socket through pipes, a bounded amount per connection and turn.

use super::{Connection, Worker, mark_dirty};
use crate::backend::Backend;
use crate::flow::{FlowId, Side};

/// What one direction of a stream may move in one turn: a message beside it waits no longer than that takes.
const BYTES_PER_TURN: usize = 512 * 1024;

/// What all streams of a worker together may move in one turn: about a millisecond's work.
const ALL_BYTES_PER_TURN: u64 = 8 * 1024 * 1024;

impl<B: Backend> Worker<B> {
    pub(super) fn pump_streams(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let mut streams = std::mem::take(&mut self.streams);
        let before = self.surroundings.stats.spliced_bytes.get();
        let mut pumped = 0;
        let mut left = Vec::new();
        for &id in &streams {
            if self.surroundings.stats.spliced_bytes.get() - before >= ALL_BYTES_PER_TURN {
                break;
            }
            pumped += 1;
            if self.pump(id) {
                left.push(id);
            }
        }
        // Those that had no turn come first in the next one.
        streams.drain(..pumped);
        streams.append(&mut left);
        streams.append(&mut self.streams);
        self.streams = streams;
    }

    /// Moves what can be moved; whether there is more to move at once.
    fn pump(&mut self, id: FlowId) -> bool {
        for from in Side::BOTH {
            self.pump_direction(id, from);
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        let share_bytes = self.limits.per_direction_bytes;
        connection.is_streaming = connection.flow.has_splice_work(share_bytes, self.now);
        mark_dirty(&mut self.dirty, id, connection);
        connection.is_streaming
    }

    fn pump_direction(&mut self, id: FlowId, from: Side) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let flow = &mut connection.flow;
        let share_bytes = self.limits.per_direction_bytes;
        let (source, sink) = (flow.socket(from), flow.socket(from.other()));
        let (mut taken, mut passed_on) = (0, 0);
        loop {
            let into = flow
                .may_splice_in(from, share_bytes, self.now)
                .filter(|_| taken < BYTES_PER_TURN);
            let pipe = match (into, flow.pipe(from)) {
                (Some(_), None) => {
                    // A place is a pipe: there is one for each.
                    let Some(pipe) = self.pipes.free.pop() else {
                        debug_assert!(false, "a place without a pipe");
                        flow.no_pipes();
                        break;
                    };
                    flow.lend_pipe(from, pipe);
                    pipe
                }
                (_, Some(pipe)) => pipe,
                (None, None) => break,
            };
            if let Some(most) = into {
                let result = self.backend.splice_in(source, pipe, most);
                taken += result.unwrap_or(0);
                flow.on_spliced_in(from, result, self.now);
            }
            let out = flow.may_splice_out(from, self.now);
            if let Some(held) = out {
                let result = self.backend.splice_out(pipe, sink, held);
                passed_on += result.unwrap_or(0);
                flow.on_spliced_out(from, result, self.now);
            }
            if into.is_none() && out.is_none() {
                break;
            }
        }
        if let Some(pipe) = flow.take_empty_pipe(from) {
            self.pipes.free.push(pipe);
        }
        let stats = &self.surroundings.stats;
        stats.spliced_bytes.add(passed_on as u64);
        connection.relay.stats[self.surroundings.index].relayed(from, passed_on as u64);
    }

    /// Gives a stream its places and makes the pipes for both before a byte is in one: a stream that has only one pipe could wait
    /// for ever for a target that does not read on before its own bytes are taken.
    pub(super) fn begin_splicing(&mut self, id: FlowId) {
        self.pipes.held += 2;
        self.set_splice_mode(id, true);
        while self.pipes.made < self.pipes.held {
            let Ok(pipe) = self.backend.pipe() else {
                // No descriptor for a pipe: back to receives, which take none.
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.flow.no_pipes();
                }
                return;
            };
            self.pipes.free.push(pipe);
            self.pipes.made += 1;
            self.surroundings.shared.count_descriptors(2);
        }
    }

    pub(super) fn end_splicing(&mut self, id: FlowId) {
        self.pipes.held -= 2;
        self.close_surplus_pipes();
        self.set_splice_mode(id, false);
    }

    fn set_splice_mode(&mut self, id: FlowId, splice: bool) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        for side in Side::BOTH {
            self.backend
                .set_splice_mode(connection.flow.socket(side), splice);
        }
    }

    /// Closes pipes that nobody uses, if there are more than the limit has become.
    pub(super) fn close_surplus_pipes(&mut self) {
        while self.pipes.made > self.limits.pipes.max(self.pipes.held)
            && let Some(pipe) = self.pipes.free.pop()
        {
            self.backend.close_pipe(pipe);
            self.pipes.made -= 1;
            self.surroundings.shared.count_descriptors(-2);
        }
    }

    /// Takes back what a connection that ends has of pipes and chunks.
    pub(super) fn return_pipes(&mut self, connection: &mut Connection) {
        if connection.flow.holds_pipes() {
            self.pipes.held -= 2;
        }
        for (pipe, is_empty) in connection
            .flow
            .dispose(&mut self.chunks)
            .into_iter()
            .flatten()
        {
            if is_empty {
                self.pipes.free.push(pipe);
            } else {
                self.backend.close_pipe(pipe);
                self.pipes.made -= 1;
                self.surroundings.shared.count_descriptors(-2);
            }
        }
        self.close_surplus_pipes();
    }
}
