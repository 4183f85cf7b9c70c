//! The loop: completions become flow events, flows' wishes become operations.
//!
//! A worker is one thread that owns a backend and the flows on it. Each turn goes in a fixed order: reap what
//! has completed, decide, start operations, submit and wait. Nothing else in a worker waits. What load calls
//! for is decided in `pressure`, what a connection needs in `flow`; the worker carries it out.

mod accepting;
pub mod access_log;
mod actions;
pub mod command;
mod completions;
#[cfg(any(test, feature = "simulation"))]
pub mod inspection;
mod interception;
pub mod limits;
mod relief;
pub mod shared;
pub mod sources;
mod splicing;
pub mod stats;
mod submitting;
mod sync;
pub mod team;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringside_api::Settings;
use socket2::SockAddr;

use crate::backend::{Backend, Completion, Event, Features, Pipe, SocketId};
use crate::flow::timers::{DEFAULT_TICK, Timers};
use crate::flow::{ChunkStore, CloseReason, Flow, FlowId, Table, View};
use crate::pressure::backoff::Backoff;
use crate::pressure::batch::Batch;
use crate::pressure::budget::Budget;
use crate::pressure::gate::Gate;
use crate::pressure::readiness::Readiness;
use crate::pressure::shed::{Ladder, Rung};
use crate::time::Time;
use accepting::Listening;
use access_log::AccessLog;
use command::{Command, Mailbox};
use limits::Limits;
use shared::{Relay, Shared};
use stats::WorkerStats;

/// Completions handled in one turn before operations are started again: bounds how long the first of them waits.
const COMPLETIONS_PER_TURN: usize = 1024;

/// Connections that are begun with in one turn. To connect one, or to turn it away, costs as much as dozens of messages,
/// and an accept may deliver hundreds at once.
const ARRIVALS_PER_TURN: usize = 16;

/// The longest a worker sleeps, so that its loop is seen turning.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Connections that are ended at the drain's limit have so long to go in good order.
const OVERDUE_AFTER: Duration = Duration::from_millis(500);

/// What a worker is given of its process.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Which worker it is, from 0.
    pub index: usize,
    /// The counts of the process.
    pub shared: Arc<Shared>,
    /// What this worker publishes.
    pub stats: Arc<WorkerStats>,
    /// Where all workers, this one included, get their commands.
    pub mailboxes: Arc<[Mailbox]>,
    /// Where lines for the access log go.
    pub access_log: AccessLog,
}

/// How a loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// No connection is left, or none may be.
    Finished,
    /// The time to finish is over, and the kernel does not even let connections be ended: they go with the
    /// backend.
    Overdue,
    /// The backend cannot go on; says why.
    Broken(String),
}

/// One worker: a backend, its flows, and the decisions about its load.
pub struct Worker<B: Backend> {
    backend: B,
    features: Features,
    surroundings: Surroundings,
    limits: Limits,
    random: fastrand::Rng,

    connections: Table<Connection>,
    listeners: Table<Listening>,
    chunks: ChunkStore,
    timers: Timers,
    /// Reused each turn.
    completions: Vec<Completion>,
    /// Connections that were accepted and are begun with in their turn.
    arrivals: VecDeque<FlowId>,
    /// Connections to ask for actions.
    dirty: Vec<FlowId>,
    /// Streams that may have bytes to splice.
    streams: Vec<FlowId>,
    /// Connections that wait to receive, for want of buffers or under pressure: the longest waiting first.
    starved: VecDeque<FlowId>,
    shortage: Option<relief::Shortage>,
    relieved: relief::Relieved,
    pipes: Pipes,

    backoff: Backoff,
    batch: Batch,
    budget: Budget,
    gate: Gate,
    ladder: Ladder,
    readiness: Readiness,
    pressed: submitting::Pressed,
    /// A connection was opened or closed, or the pool ran short, since the gate was last asked.
    load_changed: bool,
    /// Whether the log tells of the pause that holds or comes next, and when it last did.
    tells_pause: bool,
    pause_told_at: Option<Time>,
    /// This turn found completions.
    has_reaped: bool,

    now: Time,
    finish_by: Option<Time>,
}

/// A flow and what the worker keeps with it.
struct Connection {
    flow: Flow,
    relay: Arc<Relay>,
    /// Who it is, for the access log and the limit by source; not looked up where both are off.
    client: Option<SocketAddr>,
    /// The target's addresses while they are tried, and how many were; kept for the access log where there is one.
    addresses: Option<Arc<Vec<SockAddr>>>,
    attempts: u32,
    first_address: u32,
    /// How long connecting took, 1 at least, and as far as the access log wants it; 0 before.
    connect_micros: u32,
    /// When its timer comes.
    timer_at: Time,
    is_dirty: bool,
    is_streaming: bool,
    waiting: Waiting,
    /// It is among the open connections of its source.
    is_of_source: bool,
    /// Its queued bytes, by the side that they come from, are to move out of the pool once the send that was
    /// cancelled for it is over.
    moves_out: [bool; 2],
}

/// Whether a connection waits to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    No,
    /// It stands in the queue of those that do.
    Starved,
    /// It has left that queue: its turn has come.
    Woken,
}

/// Pipes for splicing: at least one for each place that streams hold, lent for as long as it holds bytes.
#[derive(Default)]
struct Pipes {
    free: Vec<Pipe>,
    /// Pipes that exist.
    made: u32,
    /// Places held by streams: two each.
    held: u32,
}

impl<B: Backend> Worker<B> {
    /// A worker on this backend, which obeys `settings` until told otherwise.
    pub fn new(backend: B, surroundings: Surroundings, settings: &Settings, seed: u64) -> Self {
        let features = backend.features();
        let limits = Limits::of(settings, features.prewarmed_operations);
        let now = backend.now();
        surroundings.mailboxes[surroundings.index].set_waker(backend.waker());
        let mut worker = Worker {
            backend,
            features,
            random: fastrand::Rng::with_seed(seed),
            connections: Table::default(),
            listeners: Table::default(),
            chunks: ChunkStore::default(),
            timers: Timers::new(DEFAULT_TICK, now),
            completions: Vec::with_capacity(COMPLETIONS_PER_TURN),
            arrivals: VecDeque::new(),
            dirty: Vec::new(),
            streams: Vec::new(),
            starved: VecDeque::new(),
            shortage: None,
            relieved: relief::Relieved::default(),
            pipes: Pipes::default(),
            backoff: Backoff::new(limits.backoff),
            batch: Batch::new(limits.batch),
            budget: Budget::new(limits.budget),
            gate: Gate::new(limits.gate),
            ladder: Ladder::new(limits.ladder),
            readiness: Readiness::new(limits.readiness),
            pressed: submitting::Pressed::default(),
            load_changed: true,
            tells_pause: true,
            pause_told_at: None,
            has_reaped: false,
            now,
            finish_by: None,
            limits,
            surroundings,
        };
        worker.surroundings.stats.accept_pause.set(0);
        worker.apply(settings);
        // Commands sent before the waker was known.
        worker.take_commands();
        worker
    }

    /// Turns until there is nothing left to do or the backend breaks.
    pub fn run(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.turn() {
                return exit;
            }
        }
    }

    /// One turn of the loop.
    pub fn turn(&mut self) -> Option<Exit> {
        self.now = self.backend.now();
        let more = self.reap();
        self.expire_timers();
        self.decide();
        self.begin_with_arrivals();
        self.act_on_dirty();
        self.pump_streams();
        self.act_on_dirty();
        self.give_back_chunks();
        if self.finish_by.is_some() && self.connections.is_empty() && self.listeners.is_empty() {
            self.publish();
            return Some(Exit::Finished);
        }
        if self
            .finish_by
            .is_some_and(|by| self.now >= by.saturating_add(OVERDUE_AFTER))
        {
            return Some(Exit::Overdue);
        }
        let exit = self.submit(more);
        self.publish();
        exit
    }

    fn reap(&mut self) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        let more = self.backend.reap(COMPLETIONS_PER_TURN, &mut completions);
        self.has_reaped = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        more
    }

    fn expire_timers(&mut self) {
        let mut expired = Vec::new();
        self.timers.expire(self.now, &mut |slot| expired.push(slot));
        for slot in expired {
            let Some((id, connection)) = self.connections.in_slot(slot) else {
                continue;
            };
            connection.timer_at = Time::MAX;
            connection.flow.on_timer(&self.limits.timeouts, self.now);
            mark_dirty(&mut self.dirty, id, connection);
        }
        if self.finish_by.is_some_and(|by| self.now >= by) {
            self.end_all(CloseReason::DrainLimit);
        }
    }

    /// A direction may hold a fixed part of what is free, so that many stalled takers together leave room: the
    /// dynamic threshold of Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
    /// switches" (1998).
    fn share_bytes(&self) -> u32 {
        let share = (self.backend.pool().free_bytes / limits::POOL_SHARES) as u32;
        share.clamp(limits::SHARE_LEAST_BYTES, self.limits.per_direction_bytes)
    }

    fn view(&self) -> View {
        View {
            now: self.now,
            share_bytes: self.share_bytes(),
            may_receive: self.shortage.is_none() && self.ladder.rung() < Rung::PauseReceiving,
            exact_receive_limit: self.features.exact_receive_limit,
            may_splice: self.may_splice(),
        }
    }

    fn may_splice(&self) -> bool {
        self.pipes.held + 2 <= self.limits.pipes && self.ladder.rung() == Rung::Calm
    }

    fn give_back_chunks(&mut self) {
        for chunk in self.chunks.take_released() {
            self.backend.release(chunk);
        }
    }

    fn take_commands(&mut self) {
        while let Some(command) = self.surroundings.mailboxes[self.surroundings.index].take() {
            match command {
                Command::Settings(settings) => self.apply(&settings),
                Command::Listen {
                    relay,
                    listener,
                    of_worker,
                    lent_by,
                } => {
                    if lent_by.is_none_or(|backend| backend == B::NAME) {
                        self.listen(relay, listener, of_worker);
                    }
                }
                Command::Unlisten { relay, of_worker } => self.unlisten(&relay, of_worker),
                Command::Finish(limit) => self.finish_by = Some(self.now.saturating_add(limit)),
            }
        }
    }

    fn apply(&mut self, settings: &Settings) {
        let limits = Limits::of(settings, self.features.prewarmed_operations);
        self.backoff.set_limits(limits.backoff);
        self.batch.set_limits(limits.batch);
        self.budget.set_limits(limits.budget);
        self.gate.set_limits(limits.gate);
        self.ladder.set_limits(limits.ladder);
        self.readiness.set_limits(limits.readiness);
        self.backend.set_pool_limit(limits.pool_bytes);
        self.limits = limits;
        self.close_surplus_pipes();
        self.count_sources();
        // A nearer deadline than the one a timer was set for has to be seen.
        for id in self.connections.ids() {
            self.touch(id);
        }
    }

    fn end_all(&mut self, reason: CloseReason) {
        for id in self.connections.ids() {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.flow.end(reason);
                mark_dirty(&mut self.dirty, id, connection);
            }
        }
    }

    /// Has a connection asked for actions this turn.
    fn touch(&mut self, id: FlowId) {
        if let Some(connection) = self.connections.get_mut(id) {
            mark_dirty(&mut self.dirty, id, connection);
        }
    }

    /// Closes every socket at once and gives the backend up, with all that was in flight on it.
    pub fn lose_everything(mut self, reason: CloseReason) -> Settings {
        let settings = self.limits.settings;
        for id in self.connections.ids() {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.flow.end(reason);
            }
            self.close(id, true);
        }
        // Connections that were accepted and not seen yet belong to nobody.
        let mut unseen = Vec::new();
        while self.backend.reap(COMPLETIONS_PER_TURN, &mut unseen) {}
        for completion in unseen {
            if let Event::Accepted(client) = completion.event {
                self.backend.close(client, true);
            }
        }
        for pipe in self.pipes.free.drain(..) {
            self.backend.close_pipe(pipe);
            self.surroundings.shared.count_descriptors(-2);
        }
        self.publish();
        self.backend.abandon();
        settings
    }

    /// The relays and listeners of this worker, and whether it is to finish, for the backend that follows a
    /// broken one.
    pub fn listening(&mut self) -> Vec<Command> {
        // The backend that follows begins with an open gate: nothing is lent.
        self.lend(false);
        let stay = self
            .listeners
            .values_mut()
            .filter(|listening| !listening.is_leaving());
        let listening: Vec<Command> = stay.map(|listening| listening.as_command(None)).collect();
        let finish = self
            .finish_by
            .map(|by| Command::Finish(by.saturating_since(self.now)));
        listening.into_iter().chain(finish).collect()
    }
}

/// Has a connection asked for actions this turn, once.
fn mark_dirty(dirty: &mut Vec<FlowId>, id: FlowId, connection: &mut Connection) {
    if !connection.is_dirty {
        connection.is_dirty = true;
        dirty.push(id);
    }
}

impl Connection {
    fn new(client: SocketId, relay: Arc<Relay>, now: Time) -> Self {
        Connection {
            flow: Flow::new(client, now),
            relay,
            client: None,
            addresses: None,
            attempts: 0,
            first_address: 0,
            connect_micros: 0,
            timer_at: Time::MAX,
            is_dirty: false,
            is_streaming: false,
            waiting: Waiting::No,
            is_of_source: false,
            moves_out: [false; 2],
        }
    }

    /// Which of so many addresses was tried last.
    fn address_index(&self, addresses: usize) -> usize {
        let tried = self.attempts.saturating_sub(1);
        self.first_address.wrapping_add(tried) as usize % addresses.max(1)
    }
}
