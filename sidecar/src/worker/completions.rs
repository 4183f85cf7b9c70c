//! From completions to flow events: finds whose completion it is and tells the flow, in the flow's words.

use std::sync::atomic::Ordering;

use ringside_api::settings::AccessLogMode;

use super::stats::Retry;
use super::{Worker, mark_dirty};
use crate::backend::{Backend, Completion, Errno, Event, OperationKind};
use crate::flow::{CloseReason, FlowId, Side, proxy_protocol};

const SIDE_BIT: u64 = 1 << 56;

/// A token's key: the slot, its generation and the side.
pub(super) fn key(id: FlowId, side: Side) -> u64 {
    let side = if side == Side::Upstream { SIDE_BIT } else { 0 };
    side | u64::from(id.generation) << 32 | u64::from(id.slot)
}

fn from_key(key: u64) -> (FlowId, Side) {
    let side = if key & SIDE_BIT == 0 {
        Side::Client
    } else {
        Side::Upstream
    };
    (
        FlowId {
            slot: key as u32,
            generation: (key >> 32) as u32 & 0xff_ffff,
        },
        side,
    )
}

impl<B: Backend> Worker<B> {
    pub(super) fn complete(&mut self, completion: Completion) {
        let (id, side) = from_key(completion.token.key());
        match completion.token.kind() {
            OperationKind::Wake => return self.take_commands(),
            OperationKind::Accept => return self.on_accept(id, &completion),
            OperationKind::Internal => return,
            OperationKind::Connect
            | OperationKind::Receive
            | OperationKind::Send
            | OperationKind::Poll
            | OperationKind::Watch => {}
        }
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else {
            // A flow is kept until its last operation has ended, so this is nobody's.
            if let Event::Received(chunk) = completion.event {
                self.backend.release(chunk);
            }
            debug_assert!(
                false,
                "a completion for a flow that is gone: {completion:?}"
            );
            return;
        };
        let flow = &mut connection.flow;
        match completion.event {
            Event::Failed(Errno(libc::EAGAIN)) => {
                self.surroundings.stats.retried(Retry::Again);
            }
            Event::Failed(errno) if errno.is_memory() => {
                self.surroundings.stats.retried(Retry::Memory);
            }
            Event::Cancelled
                if completion.token.kind() == OperationKind::Receive
                    && !flow.ends_receive(side) =>
            {
                self.surroundings.stats.retried(Retry::Cancelled);
            }
            _ => {}
        }
        let chunks = &mut self.chunks;
        let more = completion.more;
        match (completion.token.kind(), completion.event) {
            (OperationKind::Receive, Event::Received(chunk)) => {
                flow.on_received(side, chunk, more, chunks, now);
            }
            (OperationKind::Receive, Event::EndOfStream) => flow.on_end_of_stream(side, now),
            (OperationKind::Receive, Event::Failed(errno)) => {
                flow.on_receive_failed(side, errno, now);
            }
            (OperationKind::Receive, Event::NoBuffers) => {
                flow.on_receive_stopped(side, more);
                self.shortage
                    .get_or_insert(super::relief::Shortage::since(now, &self.relieved));
                self.surroundings.stats.buffer_shortages.add(1);
            }
            (OperationKind::Receive, _) => flow.on_receive_stopped(side, more),
            (OperationKind::Send, Event::Sent(bytes)) => {
                let own = flow.on_sent(side.other(), bytes, chunks, now);
                let stats = &connection.relay.stats[self.surroundings.index];
                stats.relayed(side.other(), u64::from(own));
            }
            (OperationKind::Send, Event::Failed(errno)) => {
                flow.on_send_failed(side.other(), errno, now);
            }
            (OperationKind::Send, _) => {
                flow.on_send_failed(side.other(), Errno(libc::ECANCELED), now);
            }
            (OperationKind::Poll, Event::Ready(readiness)) => flow.on_ready(side, readiness, more),
            (OperationKind::Poll, Event::Failed(errno)) => flow.on_poll_failed(side, errno, now),
            (OperationKind::Poll, _) => flow.on_poll_failed(side, Errno(libc::ECANCELED), now),
            (OperationKind::Watch, Event::Ready(readiness)) => {
                flow.on_watched(side, readiness.broken);
            }
            (OperationKind::Watch, _) => flow.on_watched(side, false),
            (_, Event::Connected) => return self.on_connected(id),
            (_, Event::Failed(Errno(libc::EAGAIN))) => return self.postpone_connect(id),
            (_, Event::Failed(errno)) => {
                return self.on_connect_failed(id, CloseReason::of_connect(errno));
            }
            (_, _) => return self.on_connect_failed(id, CloseReason::ConnectTimeout),
        }
        let is_send = completion.token.kind() == OperationKind::Send;
        if is_send && connection.moves_out[side.other() as usize] {
            self.move_out(id, side.other());
        }
        self.touch(id);
    }

    fn on_connected(&mut self, id: FlowId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let waited = self.now.saturating_since(connection.flow.opened());
        if self.limits.settings.access_log.mode == AccessLogMode::Off {
            connection.addresses = None;
        } else {
            let micros = waited.as_micros().clamp(1, u32::MAX.into());
            connection.connect_micros = micros as u32;
        }
        self.surroundings
            .stats
            .connect
            .record(waited.as_nanos() as u64);
        let relay = &connection.relay;
        let header = relay.proxy_protocol.load(Ordering::Relaxed).then(|| {
            let client = connection.flow.socket(Side::Client);
            let mut addresses = self.backend.addresses(client);
            if relay.original_port.load(Ordering::Relaxed) != 0 {
                // The target is told of the address that the client meant, not of the relay's.
                let meant = self.backend.original_destination(client);
                addresses = addresses.map(|(peer, local)| (peer, meant.unwrap_or(local)));
            }
            self.backend.own(&proxy_protocol::header(addresses))
        });
        connection
            .flow
            .on_connected(header, &mut self.chunks, self.now);
        mark_dirty(&mut self.dirty, id, connection);
    }

    /// The backlog of a Unix socket is full, which a connect that may not block does not wait for.
    fn postpone_connect(&mut self, id: FlowId) {
        self.close_upstream(id);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.attempts -= 1;
            connection.flow.on_connect_postponed(self.now);
            mark_dirty(&mut self.dirty, id, connection);
        }
    }

    fn close_upstream(&mut self, id: FlowId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let socket = connection.flow.socket(Side::Upstream);
        if socket.is_some() {
            self.backend.close(socket, false);
            self.surroundings.shared.count_descriptors(-1);
        }
    }

    /// A connect failed: closes its socket, and goes on to the target's next address if there is one.
    pub(super) fn on_connect_failed(&mut self, id: FlowId, reason: CloseReason) {
        self.close_upstream(id);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let addresses = connection
            .addresses
            .as_ref()
            .map_or(0, |addresses| addresses.len() as u32);
        let more = connection.attempts < addresses && reason != CloseReason::NoDescriptor;
        connection.flow.on_connect_failed(reason, more, self.now);
        mark_dirty(&mut self.dirty, id, connection);
    }
}
