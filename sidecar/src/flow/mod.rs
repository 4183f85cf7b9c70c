//! One relayed connection as a state machine: told what happened and the time, asked what to do.
//!
//! The worker calls a `on_…` method for each completion, then [`Flow::next_action`] until it has none. What a
//! flow wants follows from its state, not from the last event, so that an action that could not be carried
//! out yet is simply asked for again later. A flow owns the order of bytes, half-closes and resets; it does
//! no I/O, knows no clock and holds no bytes.

pub mod action;
mod closing;
pub mod proxy_protocol;
pub mod queue;
pub mod reason;
mod receiving;
mod splicing;
pub mod table;
#[cfg(test)]
mod tests;
pub mod timers;
mod timing;

pub use action::{Action, Ending, View};
pub use queue::{ChunkStore, Queue};
pub use reason::CloseReason;
pub use table::{FlowId, Table};
pub use timing::Timeouts;

use crate::backend::{Chunk, Errno, Pipe, SocketId};
use crate::time::Time;
use splicing::Splicing;

/// One end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who connected to the relay.
    Client = 0,
    /// Who the relay connected to.
    Upstream = 1,
}

impl Side {
    /// Both, the client first.
    pub const BOTH: [Side; 2] = [Side::Client, Side::Upstream];

    /// The other end.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Upstream,
            Side::Upstream => Side::Client,
        }
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Operation {
    #[default]
    Idle,
    Running,
    Cancelling,
}

/// One end's socket and what runs on it.
#[derive(Debug)]
struct End {
    socket: SocketId,
    receive: Operation,
    /// The send to this end.
    send: Operation,
    poll: Operation,
    /// The watch for a reset while nothing is received.
    watch: Operation,
    /// It has said that it sends no more.
    ended: bool,
    /// We have told it that no more comes.
    shut: bool,
    /// Retry what failed for lack of the kernel's memory not before this.
    retry_at: Time,
}

/// The bytes that came from one end, on their way to the other.
#[derive(Debug)]
struct Direction {
    queue: Queue,
    /// What came lately, to tell a stream by.
    burst: splicing::Burst,
    /// How many bytes the next receive may bring: little at first, twice as much for each that comes after
    /// something was taken. So an idle or stalled connection never has a claim to much of the pool.
    credit_bytes: u32,
    /// Something was taken since the last receive began.
    was_taken: bool,
    relayed_bytes: u64,
    /// Of a header of our own, what has not been sent: it is nobody's bytes.
    header_bytes: u32,
    pipe: Option<Pipe>,
    pipe_bytes: u32,
}

impl Default for Direction {
    fn default() -> Self {
        Direction {
            queue: Queue::default(),
            burst: splicing::Burst::default(),
            credit_bytes: FIRST_CREDIT_BYTES,
            was_taken: false,
            relayed_bytes: 0,
            header_bytes: 0,
            pipe: None,
            pipe_bytes: 0,
        }
    }
}

/// What a direction may receive before anything is known of how fast it is taken.
pub const FIRST_CREDIT_BYTES: u32 = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Towards the upstream; the operation is the connect.
    Connecting(Operation),
    /// Receives and sends.
    Relaying,
    /// On the way to splicing: what is in flight and queued has to be done first.
    EnteringSplice,
    /// Bytes go from socket to socket through pipes.
    Splicing,
    /// On the way back: the polls have to end first.
    LeavingSplice,
}

/// A relayed connection.
#[derive(Debug)]
pub struct Flow {
    phase: Phase,
    closing: Option<CloseReason>,
    /// Bytes came while it was being ended, and went nowhere.
    has_discarded: bool,
    ends: [End; 2],
    /// Indexed by the side that the bytes come from.
    directions: [Direction; 2],
    splicing: Splicing,
    connect_is_late: bool,
    watch_is_due: bool,
    opened: Time,
    phase_began: Time,
    last_activity: Time,
}

/// How long to wait before trying again what failed for lack of the kernel's memory.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

impl Flow {
    /// A connection that was accepted.
    pub fn new(client: SocketId, now: Time) -> Self {
        let end = |socket| End {
            socket,
            receive: Operation::Idle,
            send: Operation::Idle,
            poll: Operation::Idle,
            watch: Operation::Idle,
            ended: false,
            shut: false,
            retry_at: now,
        };
        Flow {
            phase: Phase::Connecting(Operation::Idle),
            closing: None,
            has_discarded: false,
            ends: [end(client), end(SocketId::NONE)],
            directions: [Direction::default(), Direction::default()],
            splicing: Splicing::default(),
            connect_is_late: false,
            watch_is_due: false,
            opened: now,
            phase_began: now,
            last_activity: now,
        }
    }

    /// The socket of a side; none before the upstream's connect.
    pub fn socket(&self, side: Side) -> SocketId {
        self.ends[side as usize].socket
    }

    /// When it was accepted.
    pub fn opened(&self) -> Time {
        self.opened
    }

    /// Bytes passed on so far that came from this side.
    pub fn relayed_bytes(&self, from: Side) -> u64 {
        self.directions[from as usize].relayed_bytes
    }

    /// The bytes from this side that wait to be sent.
    pub fn queue(&self, from: Side) -> &Queue {
        &self.directions[from as usize].queue
    }

    /// Why it is being ended, if it is.
    pub fn closing(&self) -> Option<CloseReason> {
        self.closing
    }

    /// Whether the upstream is not connected yet.
    #[cfg(test)]
    pub fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_))
    }

    /// Whether bytes wait for a side that has not taken them.
    pub fn is_held_up(&self) -> bool {
        self.directions
            .iter()
            .any(|direction| !direction.queue.is_empty())
    }

    /// Whether nothing is under way or waiting but for more to come.
    pub fn is_idle(&self) -> bool {
        self.closing.is_none() && matches!(self.phase, Phase::Relaying) && !self.is_held_up()
    }

    /// When something last moved.
    pub fn last_activity(&self) -> Time {
        self.last_activity
    }

    /// The worker made this socket for [`Action::Connect`].
    pub fn connecting_by(&mut self, socket: SocketId) {
        self.ends[Side::Upstream as usize].socket = socket;
    }

    /// The upstream is connected. `header` goes to it before the first byte of the client's.
    pub fn on_connected(&mut self, header: Option<Chunk>, chunks: &mut ChunkStore, now: Time) {
        self.enter(Phase::Relaying, now);
        if let Some(header) = header {
            let direction = &mut self.directions[Side::Client as usize];
            direction.header_bytes = header.len;
            chunks.push(&mut direction.queue, header);
        }
    }

    /// This connect failed; the worker has closed its socket. With `more_addresses` the next one is tried.
    pub fn on_connect_failed(&mut self, reason: CloseReason, more_addresses: bool, now: Time) {
        self.ends[Side::Upstream as usize].socket = SocketId::NONE;
        self.connect_is_late = false;
        self.enter(Phase::Connecting(Operation::Idle), now);
        if !more_addresses {
            self.end(reason);
        }
    }

    /// The target's backlog is full; the worker has closed the connect's socket. This address is tried again
    /// after a pause, for as long as a connect may take: what a blocking connect would have waited.
    pub fn on_connect_postponed(&mut self, now: Time) {
        let upstream = &mut self.ends[Side::Upstream as usize];
        upstream.socket = SocketId::NONE;
        upstream.retry_at = now.saturating_add(RETRY_PAUSE);
        self.connect_is_late = false;
        self.phase = Phase::Connecting(Operation::Idle);
    }

    /// Bytes came from `side`; the chunk is the flow's from here on.
    pub fn on_received(
        &mut self,
        side: Side,
        chunk: Chunk,
        more: bool,
        chunks: &mut ChunkStore,
        now: Time,
    ) {
        self.operation_continues(side, more);
        self.last_activity = now;
        if self.closing.is_some() {
            self.has_discarded |= chunk.len > 0;
            chunks.discard(chunk);
            return;
        }
        let direction = &mut self.directions[side as usize];
        direction.burst.count(chunk.len, now);
        chunks.push(&mut direction.queue, chunk);
    }

    /// `side` sends no more.
    pub fn on_end_of_stream(&mut self, side: Side, now: Time) {
        self.operation_continues(side, false);
        self.ends[side as usize].ended = true;
        self.last_activity = now;
    }

    /// The receive from `side` ended without an end of the stream: it was cancelled, it reached its limit,
    /// or there were no buffers. It is started again when it may be.
    pub fn on_receive_stopped(&mut self, side: Side, more: bool) {
        self.operation_continues(side, more);
    }

    /// The receive from `side` failed.
    pub fn on_receive_failed(&mut self, side: Side, errno: Errno, now: Time) {
        self.operation_continues(side, false);
        self.failed(side, errno, now);
    }

    fn operation_continues(&mut self, side: Side, more: bool) {
        if !more {
            self.ends[side as usize].receive = Operation::Idle;
        }
    }

    /// So much of the send of bytes from `from` went out; says how much of it was `from`'s own.
    pub fn on_sent(&mut self, from: Side, bytes: u32, chunks: &mut ChunkStore, now: Time) -> u32 {
        self.ends[from.other() as usize].send = Operation::Idle;
        let direction = &mut self.directions[from as usize];
        let header = direction.header_bytes.min(bytes);
        direction.header_bytes -= header;
        direction.relayed_bytes += u64::from(bytes - header);
        direction.was_taken = true;
        chunks.pop(&mut direction.queue, bytes);
        self.last_activity = now;
        bytes - header
    }

    /// The send of bytes from `from` failed, or was cancelled, having sent nothing.
    pub fn on_send_failed(&mut self, from: Side, errno: Errno, now: Time) {
        let sink = from.other();
        self.ends[sink as usize].send = Operation::Idle;
        if errno.0 != libc::ECANCELED {
            self.failed(sink, errno, now);
        }
    }

    fn failed(&mut self, side: Side, errno: Errno, now: Time) {
        if errno.is_memory() || errno.0 == libc::EAGAIN || errno.0 == libc::EINTR {
            self.ends[side as usize].retry_at = now.saturating_add(RETRY_PAUSE);
        } else {
            self.end(CloseReason::of_connection(side, errno));
        }
    }

    /// Ends the flow for a reason of the worker's. The first reason stays.
    pub fn end(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
    }

    /// Has the send of bytes from `from` ended early, if one is under way: what it has not sent is sent again,
    /// from elsewhere. Says whether the worker has to cancel it.
    pub fn interrupt_send(&mut self, from: Side) -> bool {
        let send = &mut self.ends[from.other() as usize].send;
        let is_running = *send == Operation::Running;
        if is_running {
            *send = Operation::Cancelling;
        }
        is_running
    }

    /// Puts one chunk in the place of all that waits from this side. Nothing of it is being sent.
    pub fn replace_queue(&mut self, from: Side, chunk: Chunk, chunks: &mut ChunkStore) {
        let queue = &mut self.directions[from as usize].queue;
        debug_assert_eq!(
            queue.bytes(),
            chunk.len,
            "a queue is replaced by the same bytes"
        );
        chunks.pop(queue, queue.bytes());
        chunks.push(queue, chunk);
    }

    fn enter(&mut self, phase: Phase, now: Time) {
        self.phase = phase;
        self.phase_began = now;
        self.last_activity = now;
    }

    /// What to do next; none when there is nothing before the next event.
    pub fn next_action(&mut self, view: &View) -> Option<Action> {
        if let Some(reason) = self.closing {
            return self.next_of_closing(reason);
        }
        match self.phase {
            Phase::Connecting(Operation::Idle) => {
                if view.now < self.ends[Side::Upstream as usize].retry_at {
                    return None;
                }
                self.phase = Phase::Connecting(Operation::Running);
                Some(Action::Connect)
            }
            Phase::Connecting(Operation::Running) if self.connect_is_late => {
                self.phase = Phase::Connecting(Operation::Cancelling);
                Some(Action::Cancel {
                    side: Side::Upstream,
                    what: Ending::Connect,
                })
            }
            Phase::Connecting(_) => None,
            Phase::Relaying => self.next_of_relaying(view),
            Phase::EnteringSplice => self.next_of_entering(view),
            Phase::Splicing => self.next_of_splicing(view),
            Phase::LeavingSplice => self.next_of_leaving(view),
        }
    }

    fn next_of_relaying(&mut self, view: &View) -> Option<Action> {
        for side in Side::BOTH {
            if let Some(action) = self
                .next_send(side, view)
                .or_else(|| self.next_shutdown(side))
            {
                return Some(action);
            }
            if let Some(action) = self.next_receive(side, view) {
                return Some(action);
            }
        }
        if self.closing.is_some() {
            return self.next_action(view);
        }
        if self.watch_is_due
            && let Some(action) = self.next_watch()
        {
            return Some(action);
        }
        if view.may_splice && self.wants_to_splice(view.now) {
            self.enter(Phase::EnteringSplice, view.now);
            return self.next_of_entering(view);
        }
        None
    }

    /// Sends what came from `from`, one send at a time.
    fn next_send(&mut self, from: Side, view: &View) -> Option<Action> {
        let sink = &mut self.ends[from.other() as usize];
        let waits = self.directions[from as usize].queue.is_empty();
        if waits || sink.send != Operation::Idle || view.now < sink.retry_at {
            return None;
        }
        sink.send = Operation::Running;
        Some(Action::Send { from })
    }

    /// Passes the end of `from`'s stream on, once all before it has been sent. When both are passed on the
    /// flow is done, and closing says the second one by itself.
    fn next_shutdown(&mut self, from: Side) -> Option<Action> {
        let sink = from.other();
        if self.ends[sink as usize].shut || !self.is_delivered(from) {
            return None;
        }
        if self.is_delivered(sink) {
            self.end(CloseReason::Finished);
            return None;
        }
        self.ends[sink as usize].shut = true;
        Some(Action::ShutdownWrite { side: sink })
    }

    /// Whether `from` has ended and all that it sent has been passed on.
    fn is_delivered(&self, from: Side) -> bool {
        let direction = &self.directions[from as usize];
        let idle = self.ends[from.other() as usize].send == Operation::Idle;
        self.ends[from as usize].ended
            && idle
            && direction.queue.is_empty()
            && direction.pipe_bytes == 0
    }
}
