//! Accepting: which listeners a worker accepts from, and when it stops.
//!
//! The gate decides; here its decision is carried out. A worker that pauses for a reason of its own lends its
//! listeners to the other workers, so that it does not hold arrivals which they could take.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringside_api::settings::AccessLogMode;

use super::command::Command;
use super::shared::Relay;
use super::stats::Retry;
use super::{ARRIVALS_PER_TURN, Connection, Worker, mark_dirty};
use crate::backend::listen::ListenSocket;
use crate::backend::{
    Backend, Completion, Errno, Event, Operation, OperationKind, SocketId, Token,
};
use crate::bug::{self, Bug};
use crate::flow::{CloseReason, FlowId, Side};
use crate::pressure::gate::{GateState, Load, PauseReason};
use crate::pressure::shed::Rung;
use crate::time::Time;

/// A listener that this worker accepts from, or will again.
pub(super) struct Listening {
    relay: Arc<Relay>,
    listener: Arc<ListenSocket>,
    of_worker: usize,
    accept: Accept,
    /// `accept.maxConnections` when the accept that runs was last let go on.
    limit_at_start: u32,
    /// Dropped once its accept has ended.
    leaving: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accept {
    Idle,
    Running { once: bool },
    Cancelling,
}

/// With room for fewer connections than this they are accepted one at a time: a multishot accept delivers all
/// that it finds, whatever the limit.
const ROOM_FOR_MULTISHOT: u32 = 256;

/// How often the log tells of a pause, at most.
const PAUSE_TOLD_EVERY: Duration = Duration::from_secs(1);

impl Listening {
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The limit of connections under which its accept runs; 0 where none does.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn limit(&self) -> u32 {
        match self.accept {
            Accept::Idle => 0,
            Accept::Running { .. } | Accept::Cancelling => self.limit_at_start,
        }
    }

    pub(super) fn as_command(&self, lent_by: Option<&'static str>) -> Command {
        let (relay, listener) = (self.relay.clone(), self.listener.clone());
        Command::Listen {
            relay,
            listener,
            of_worker: self.of_worker,
            lent_by,
        }
    }
}

impl<B: Backend> Worker<B> {
    pub(super) fn listen(
        &mut self,
        relay: Arc<Relay>,
        listener: Arc<ListenSocket>,
        of_worker: usize,
    ) {
        let known = self
            .listeners
            .values_mut()
            .any(|l| !l.leaving && Arc::ptr_eq(&l.listener, &listener));
        if known || listener.is_retired() {
            return;
        }
        let listening = Listening {
            relay,
            listener,
            of_worker,
            accept: Accept::Idle,
            limit_at_start: 0,
            leaving: false,
        };
        if of_worker == self.surroundings.index && self.is_lending() {
            self.tell_others(&listening.as_command(Some(B::NAME)));
        }
        self.listeners.insert(listening);
        self.load_changed = true;
        self.steer_accepts();
    }

    pub(super) fn unlisten(&mut self, relay: &Arc<Relay>, of_worker: Option<usize>) {
        for id in self.listeners.ids() {
            let Some(listening) = self.listeners.get_mut(id) else {
                continue;
            };
            let is_meant = of_worker.is_none_or(|worker| worker == listening.of_worker);
            if is_meant && Arc::ptr_eq(relay, &listening.relay) {
                listening.leaving = true;
            }
        }
        self.steer_accepts();
    }

    /// Asks the gate, and starts or stops accepting as it says.
    pub(super) fn decide_accepting(&mut self) {
        let before = self.gate.state();
        let load = self.load();
        self.gate
            .set_paid_until(self.surroundings.shared.paid_until());
        if bug::is(Bug::NeverResumeTheGate) && before != GateState::Open {
            return;
        }
        let after = self.gate.decide(&load, self.now);
        let reason = |state| match state {
            GateState::Open => None,
            GateState::Paused { reason, .. } => Some(reason),
        };
        let (was, is) = (reason(before), reason(after));
        if was.is_none()
            && let Some(reason) = is
        {
            self.surroundings.stats.accept_pauses[reason as usize].add(1);
        }
        if was != is {
            self.surroundings
                .stats
                .accept_pause
                .set(is.map_or(0, |reason| 1 + reason as u64));
            self.log_pause(was, is);
            let lends = |reason: Option<PauseReason>| {
                reason.is_some_and(|reason| !reason.is_process_wide())
            };
            if lends(was) != lends(is) {
                self.lend(lends(is));
            }
        }
        self.steer_accepts();
    }

    fn log_pause(&mut self, was: Option<PauseReason>, is: Option<PauseReason>) {
        let worker = self.surroundings.index;
        // At a small limit a pause comes with each connection: told once a second, and counted each time.
        if was.is_none() {
            let now = self.now;
            let is_due = |at: Time| now >= at.saturating_add(PAUSE_TOLD_EVERY);
            self.tells_pause = self.pause_told_at.is_none_or(is_due);
        }
        if !self.tells_pause {
            return;
        }
        match (was, is) {
            // The rate's pauses come and go many times a second under load; the metric tells of them.
            (_, Some(PauseReason::Rate)) | (Some(PauseReason::Rate), None) => {}
            (_, Some(reason)) => {
                self.pause_told_at = Some(self.now);
                tracing::warn!(worker, reason = reason.label(), "accepting paused");
            }
            (Some(reason), None) => {
                tracing::info!(worker, reason = reason.label(), "accepting resumed");
            }
            (None, None) => {}
        }
    }

    fn is_lending(&self) -> bool {
        matches!(self.gate.state(), GateState::Paused { reason, .. } if !reason.is_process_wide())
    }

    /// Lends this worker's listeners to the others, or takes them back.
    pub(super) fn lend(&mut self, away: bool) {
        let own = self.surroundings.index;
        for id in self.listeners.ids() {
            let Some(listening) = self
                .listeners
                .get_mut(id)
                .filter(|l| l.of_worker == own && !l.leaving)
            else {
                continue;
            };
            let command = if away {
                listening.as_command(Some(B::NAME))
            } else {
                Command::Unlisten {
                    relay: listening.relay.clone(),
                    of_worker: Some(own),
                }
            };
            self.tell_others(&command);
        }
    }

    fn tell_others(&self, command: &Command) {
        for (index, mailbox) in self.surroundings.mailboxes.iter().enumerate() {
            if index != self.surroundings.index {
                mailbox.send(command.clone());
            }
        }
    }

    fn load(&self) -> Load {
        let shared = &self.surroundings.shared;
        let usage = self.backend.pool();
        Load {
            connections_open: match bug::is(Bug::LetInOverTheLimit) {
                true => 0,
                false => shared.connections_open.load(Ordering::Relaxed),
            },
            other_workers: self.surroundings.mailboxes.len() as u32 - 1,
            descriptors_open: shared.descriptors_open.load(Ordering::Relaxed),
            descriptor_limit: shared.descriptor_limit.load(Ordering::Relaxed),
            operations_in_flight: self.backend.in_flight(),
            // 0 is no limit: a backend that asks the kernel for nothing ahead.
            operations_budget: match self.features.prewarmed_operations {
                0 => 0,
                _ => self.budget.ordinary_limit(),
            },
            pool_used_bytes: self.chunks.queued_bytes(),
            pool_limit_bytes: usage.limit_bytes as u64,
            pushback: self.ladder.rung() >= Rung::PauseAccepting,
        }
    }

    /// How many more connections the process may take before a limit is reached.
    fn room_for_connections(&self) -> u32 {
        let load = self.load();
        let limits = &self.limits.gate;
        let most = (u64::from(limits.max_connections) * u64::from(limits.pause_above_percent) / 100)
            as u32;
        let by_descriptors = load
            .descriptor_limit
            .saturating_sub(load.descriptors_open + limits.descriptor_reserve)
            / 2;
        // What the rate allows at once: a tenth of a second's worth.
        let by_rate = limits.max_per_second.map_or(u32::MAX, |rate| rate / 10);
        most.saturating_sub(load.connections_open)
            .min(by_descriptors)
            .min(by_rate)
    }

    /// Starts accepts where the gate is open, ends them where it is not, drops listeners that are to go.
    fn steer_accepts(&mut self) {
        let open = self.gate.state() == GateState::Open;
        let once = self.room_for_connections() < ROOM_FOR_MULTISHOT;
        for id in self.listeners.ids() {
            let Some(listening) = self.listeners.get_mut(id) else {
                continue;
            };
            let token = Token::new(
                OperationKind::Accept,
                super::completions::key(id, Side::Client),
            );
            match listening.accept {
                Accept::Idle if listening.leaving => {
                    self.listeners.remove(id);
                }
                Accept::Idle if open && self.backend.room() == 0 => self.load_changed = true,
                Accept::Idle if open => {
                    listening.accept = Accept::Running { once };
                    listening.limit_at_start = self.limits.gate.max_connections;
                    let listener = listening.listener.id();
                    self.backend
                        .start(token, Operation::Accept { listener, once });
                }
                Accept::Running { once: is_once }
                    if listening.leaving || !open || (once && !is_once) =>
                {
                    listening.accept = Accept::Cancelling;
                    let socket = listening.listener.id();
                    self.end_early(token, socket);
                }
                Accept::Running { .. } => {
                    listening.limit_at_start = self.limits.gate.max_connections;
                }
                _ => {}
            }
        }
    }

    /// An accept completed: a new connection, an error, or its end.
    pub(super) fn on_accept(&mut self, id: FlowId, completion: &Completion) {
        let relay = self.listeners.get_mut(id).map(|listening| {
            if !completion.more {
                listening.accept = Accept::Idle;
            }
            (listening.relay.clone(), listening.limit_at_start)
        });
        match (completion.event, relay) {
            (Event::Accepted(client), Some((relay, limit))) => self.open(client, relay, limit),
            (Event::Accepted(client), None) => self.backend.close(client, true),
            // The client was gone before it was accepted: the next one, if any.
            (Event::Failed(Errno(libc::ECONNABORTED | libc::EINTR)), _) => {}
            // No descriptor, no memory, or whatever else: not at once again.
            (Event::Failed(_), _) => {
                self.surroundings.stats.retried(Retry::Accept);
                let random = self.random.u64(..);
                self.gate.descriptors_refused(random, self.now);
            }
            _ => {}
        }
        self.load_changed |= !completion.more;
    }

    fn open(&mut self, client: SocketId, relay: Arc<Relay>, limit_at_start: u32) {
        self.load_changed = true;
        let shared = &self.surroundings.shared;
        shared.count_descriptors(1);
        let open = 1 + shared.connections_open.fetch_add(1, Ordering::Relaxed);
        let stats = &relay.stats[self.surroundings.index];
        stats.opened.add(1);
        let mut connection = Connection::new(client, relay, self.now);
        let per_source = self.limits.per_source;
        if per_source > 0 || self.limits.settings.access_log.mode != AccessLogMode::Off {
            // Now, as a connection that was reset has no address any more.
            connection.client = self.backend.peer(client);
        }
        let source = connection.client.filter(|_| per_source > 0);
        connection.is_of_source =
            source.is_some_and(|client| shared.sources.admit(client.ip(), per_source));
        let is_refused = source.is_some() && !connection.is_of_source;
        // What is refused for its source takes nothing of the rate, or one source could use up what is for all.
        if let Some(rate) = self.gate.rate().filter(|_| !is_refused) {
            shared.spend(rate, 1, self.now);
        }
        if is_refused && !bug::is(Bug::LetInOverTheSourceLimit) {
            connection.flow.end(CloseReason::SourceLimit);
        } else if open > self.limits.gate.max_connections.max(limit_at_start)
            && !bug::is(Bug::LetInOverTheLimit)
        {
            // A multishot accept delivers what it finds before the gate can close; the limit holds all the same. One that is
            // lowered ends nobody, nor who comes before the accept knows of it.
            connection.flow.end(CloseReason::Shed);
        }
        self.arrivals.push_back(self.connections.insert(connection));
    }

    /// Begins with some of those that were accepted, so that those who are here do not wait for all that come.
    pub(super) fn begin_with_arrivals(&mut self) {
        let some = self.arrivals.len().min(ARRIVALS_PER_TURN);
        for id in self.arrivals.drain(..some) {
            if let Some(connection) = self.connections.get_mut(id) {
                mark_dirty(&mut self.dirty, id, connection);
            }
        }
    }
}

impl<B: Backend> Worker<B> {
    /// Counts for their sources what was accepted while there was no limit for them.
    pub(super) fn count_sources(&mut self) {
        if self.limits.per_source == 0 {
            return;
        }
        let sources = &self.surroundings.shared.sources;
        for connection in self.connections.values_mut().filter(|c| !c.is_of_source) {
            if connection.client.is_none() {
                connection.client = self.backend.peer(connection.flow.socket(Side::Client));
            }
            // One that is being ended was refused, or soon leaves anyway.
            if let Some(client) = connection
                .client
                .filter(|_| connection.flow.closing().is_none())
            {
                sources.count(client.ip());
                connection.is_of_source = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
