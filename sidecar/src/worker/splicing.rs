//! Splicing: pumps streams from socket to socket through pipes, a bounded amount per connection and turn.

use super::{Connection, Worker, mark_dirty};
use crate::backend::{Backend, Errno, Pipe};
use crate::flow::{FlowId, Side};

/// What one direction of a stream may move in one turn: a message beside it waits no longer than that takes.
const BYTES_PER_TURN: usize = 512 * 1024;

impl<B: Backend> Worker<B> {
    pub(super) fn pump_streams(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let mut streams = std::mem::take(&mut self.streams);
        streams.retain(|&id| self.pump(id));
        streams.append(&mut self.streams);
        self.streams = streams;
    }

    /// Moves what can be moved; whether there is more to move at once.
    fn pump(&mut self, id: FlowId) -> bool {
        let mut more = false;
        for from in Side::BOTH {
            more |= self.pump_direction(id, from);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_streaming = more;
            mark_dirty(&mut self.dirty, id, connection);
        }
        more
    }

    fn pump_direction(&mut self, id: FlowId, from: Side) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        let flow = &mut connection.flow;
        let (source, sink) = (flow.socket(from), flow.socket(from.other()));
        let (mut taken, mut passed_on) = (0, 0);
        let mut goes_on = true;
        while goes_on && taken < BYTES_PER_TURN {
            goes_on = false;
            if let Some(most) = flow.may_splice_in(from, self.limits.per_direction_bytes) {
                let pipe = match flow.pipe(from) {
                    Some(pipe) => pipe,
                    None => match self.pipes.lend(&mut self.backend) {
                        Ok((pipe, descriptors)) => {
                            self.surroundings.shared.count_descriptors(descriptors);
                            flow.lend_pipe(from, pipe);
                            pipe
                        }
                        Err(_) => {
                            // No descriptor for a pipe: back to receives, which take none.
                            flow.give_up_splicing(self.now);
                            break;
                        }
                    },
                };
                let result = self.backend.splice_in(source, pipe, most);
                taken += result.unwrap_or(0);
                goes_on |= flow.on_spliced_in(from, result, self.now);
            }
            if let (Some(held), Some(pipe)) = (flow.may_splice_out(from), flow.pipe(from)) {
                let result = self.backend.splice_out(pipe, sink, held);
                passed_on += result.unwrap_or(0);
                goes_on |= flow.on_spliced_out(from, result, self.now);
            }
        }
        if let Some(pipe) = flow.take_empty_pipe(from) {
            self.pipes.free.push(pipe);
        }
        let stats = &self.surroundings.stats;
        stats.spliced_bytes.add(passed_on as u64);
        connection.relay.stats[self.surroundings.index].relayed(from, passed_on as u64);
        goes_on
    }

    pub(super) fn begin_splicing(&mut self, id: FlowId) {
        self.pipes.held += 2;
        self.set_splice_mode(id, true);
    }

    pub(super) fn end_splicing(&mut self, id: FlowId) {
        self.pipes.held -= 2;
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
    }
}

impl super::Pipes {
    /// A pipe, and how many descriptors were made for it.
    fn lend<B: Backend>(&mut self, backend: &mut B) -> Result<(Pipe, i32), Errno> {
        if let Some(pipe) = self.free.pop() {
            return Ok((pipe, 0));
        }
        let pipe = backend.pipe()?;
        self.made += 1;
        Ok((pipe, 2))
    }
}
