//! The workers of a process: starts them, tells them about relays and settings, and waits for their end.
//!
//! It owns the threads and the list of relays. It never touches a connection; workers are told by commands.

pub mod listening;
mod start;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringside_api::{BackendChoice, ProxyProtocol, Settings, Target};
use socket2::SockAddr;

use super::Surroundings;
use super::access_log::AccessLog;
use super::command::{Command, Mailbox};
use super::limits::socket_options;
use super::shared::{Relay, Shared};
use super::stats::{RelayStats, WorkerStats};
use crate::backend::SocketOptions;
use crate::backend::choice::{BackendReport, NoBackend};
use crate::backend::listen::{ListenError, ListenSocket, Reservation};
use crate::target_check::Checked;
use start::Start;

/// What a team is made with.
#[derive(Debug, Clone)]
pub struct TeamOptions {
    /// How many workers.
    pub workers: usize,
    /// Which backend they use.
    pub backend: BackendChoice,
    /// What they obey at first.
    pub settings: Settings,
    /// The moment that all times of this process count from.
    pub epoch: Instant,
}

/// A relay that runs: what the workers see of it and where it listens.
#[derive(Debug, Clone)]
pub struct RunningRelay {
    /// As the workers see it.
    pub relay: Arc<Relay>,
    /// What was asked for.
    pub wanted: ringside_api::Relay,
    /// Where it listens, with the port that the kernel chose where none was given.
    pub address: std::net::SocketAddr,
    /// What checks say of its target.
    pub checked: Checked,
    reservation: Arc<Reservation>,
    /// None while it does not listen because its target refuses.
    listeners: Vec<Arc<ListenSocket>>,
}

/// What the workers publish of one relay.
#[derive(Debug, Clone)]
pub struct RelayCounts {
    /// The relay's name.
    pub name: String,
    /// By worker.
    pub stats: Vec<Arc<RelayStats>>,
}

impl RelayCounts {
    /// Connections that are open.
    pub fn connections_open(&self) -> u64 {
        self.stats
            .iter()
            .map(|stats| stats.connections_open())
            .sum()
    }
}

/// A worker's thread ended by a panic; its sentence is on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the thread of worker {worker} panicked; its connections are lost")]
pub struct WorkerPanicked {
    /// Which worker.
    pub worker: usize,
}

/// The port of a target that is the original destination; 0 of others.
fn original_port(target: &Target) -> u16 {
    match target {
        Target::Original { port } => *port,
        Target::Address(_) | Target::Host { .. } | Target::Unix(_) => 0,
    }
}

/// The workers of a process.
#[derive(Debug)]
pub struct Team {
    mailboxes: Arc<[Mailbox]>,
    shared: Arc<Shared>,
    stats: Vec<Arc<WorkerStats>>,
    reports: Vec<Arc<ArcSwap<BackendReport>>>,
    relays: Mutex<Vec<RunningRelay>>,
    /// Also of relays that were removed, for as long as connections of theirs are open: counts of a name never
    /// begin anew because its listener moved.
    counted: Mutex<Vec<RelayCounts>>,
    settings: ArcSwap<Settings>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Team {
    /// Starts the workers, and returns once each has its backend.
    ///
    /// # Errors
    /// The backend that was asked for by name does not work here.
    pub fn start(
        options: &TeamOptions,
        shared: Arc<Shared>,
        access_log: &AccessLog,
    ) -> Result<Self, NoBackend> {
        let count = options.workers.max(1);
        let mailboxes: Arc<[Mailbox]> = (0..count).map(|_| Mailbox::default()).collect();
        let stats: Vec<_> = (0..count)
            .map(|_| Arc::new(WorkerStats::default()))
            .collect();
        let reports: Vec<_> = (0..count)
            .map(|_| Arc::new(ArcSwap::from_pointee(BackendReport::starting())))
            .collect();
        let (started, starts) = mpsc::channel();
        let mut threads = Vec::new();
        for (index, (stats, report)) in stats.iter().zip(&reports).enumerate() {
            let start = Start {
                surroundings: Surroundings {
                    index,
                    shared: shared.clone(),
                    stats: stats.clone(),
                    mailboxes: mailboxes.clone(),
                    access_log: access_log.clone(),
                },
                options: options.clone(),
                report: report.clone(),
                started: started.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(
                thread
                    .spawn(move || start.run())
                    .map_err(NoBackend::thread)?,
            );
        }
        drop(started);
        for result in starts.iter().take(count) {
            result?;
        }
        Ok(Team {
            mailboxes,
            shared,
            stats,
            reports,
            relays: Mutex::default(),
            counted: Mutex::default(),
            settings: ArcSwap::from_pointee(options.settings),
            threads: Mutex::new(threads),
        })
    }

    /// Takes a relay's address, and accepts for it unless its target is known to refuse. The target has these addresses
    /// at the moment, and this is what is known of it.
    ///
    /// # Errors
    /// Its address cannot be listened on.
    pub fn add(
        &self,
        wanted: &ringside_api::Relay,
        addresses: Vec<SockAddr>,
        checked: Checked,
    ) -> Result<RunningRelay, ListenError> {
        let options: SocketOptions = socket_options(&self.settings.load());
        let reservation = Reservation::take(wanted.listen.0, &options)?;
        let relay = Arc::new(Relay {
            name: wanted.name.clone(),
            target: ArcSwap::from_pointee(wanted.target.to_string()),
            addresses: ArcSwap::from_pointee(addresses),
            original_port: AtomicU16::new(original_port(&wanted.target)),
            proxy_protocol: AtomicBool::new(wanted.proxy_protocol == ProxyProtocol::V2),
            next_address: AtomicU32::new(0),
            stats: self.counts_of(&wanted.name),
        });
        let mut running = RunningRelay {
            relay,
            wanted: wanted.clone(),
            address: reservation.address(),
            checked,
            reservation: Arc::new(reservation),
            listeners: Vec::new(),
        };
        if !self.is_to_be_closed(&running) {
            self.open_listeners(&mut running)?;
        }
        self.shared.count_descriptors(1);
        self.lock_relays().push(running.clone());
        Ok(running)
    }

    /// Stops accepting for a relay; its connections go on. Says whether there was one of this name.
    pub fn remove(&self, name: &str) -> bool {
        let mut relays = self.lock_relays();
        let Some(index) = relays.iter().position(|running| running.relay.name == name) else {
            return false;
        };
        let mut running = relays.remove(index);
        self.leave(&mut running);
        true
    }

    /// The counts of this name, which go on where the name is known already.
    fn counts_of(&self, name: &str) -> Vec<Arc<RelayStats>> {
        let running: Vec<String> = self
            .lock_relays()
            .iter()
            .map(|running| running.relay.name.clone())
            .collect();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        // Names that come and go with each reload must not pile up.
        counted.retain(|counts| {
            counts.name == name || running.contains(&counts.name) || counts.connections_open() > 0
        });
        if let Some(known) = counted.iter().find(|counts| counts.name == name) {
            return known.stats.clone();
        }
        let stats: Vec<_> = (0..self.mailboxes.len())
            .map(|_| Arc::new(RelayStats::default()))
            .collect();
        counted.push(RelayCounts {
            name: name.to_owned(),
            stats: stats.clone(),
        });
        stats
    }

    /// What the workers publish of each relay, also of those that were removed while connections of theirs are open.
    pub fn counted(&self) -> Vec<RelayCounts> {
        self.counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes where a relay's new connections go. Says whether there is one of this name.
    pub fn retarget(&self, wanted: &ringside_api::Relay, addresses: Vec<SockAddr>) -> bool {
        let mut relays = self.lock_relays();
        let Some(running) = relays
            .iter_mut()
            .find(|running| running.relay.name == wanted.name)
        else {
            return false;
        };
        let relay = &running.relay;
        relay.target.store(Arc::new(wanted.target.to_string()));
        let port = original_port(&wanted.target);
        relay.original_port.store(port, Ordering::Relaxed);
        relay.addresses.store(Arc::new(addresses));
        relay.proxy_protocol.store(
            wanted.proxy_protocol == ProxyProtocol::V2,
            Ordering::Relaxed,
        );
        running.wanted = wanted.clone();
        running.checked.reach.forget_answers();
        true
    }

    /// Gives these addresses to every relay that leads to `target` now.
    pub fn give_addresses(&self, target: &Target, addresses: &[SockAddr]) {
        // Under the lock, so that a relay which is led elsewhere meanwhile does not get them.
        for running in self.lock_relays().iter() {
            let has = &running.relay.addresses;
            if running.wanted.target == *target && has.load().as_slice() != addresses {
                has.store(Arc::new(addresses.to_vec()));
            }
        }
    }

    /// Has all workers obey these settings.
    pub fn apply(&self, settings: &Settings) {
        self.settings.store(Arc::new(*settings));
        let options = socket_options(settings);
        for running in self.lock_relays().iter() {
            for listener in &running.listeners {
                listener.set_backlog(settings.accept.backlog);
                listener.set_options(&options);
            }
        }
        let settings = Arc::new(*settings);
        self.mailboxes
            .iter()
            .for_each(|mailbox| mailbox.send(Command::Settings(settings.clone())));
    }

    /// The settings in effect.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The relays that run.
    pub fn relays(&self) -> Vec<RunningRelay> {
        self.lock_relays().clone()
    }

    /// What each worker publishes.
    pub fn stats(&self) -> &[Arc<WorkerStats>] {
        &self.stats
    }

    /// The counts of the process.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Which backend each worker runs on, and why.
    pub fn backends(&self) -> Vec<Arc<BackendReport>> {
        self.reports
            .iter()
            .map(|report| report.load_full())
            .collect()
    }

    /// Closes all listeners: arrivals are refused from now on.
    pub fn stop_listening(&self) {
        for mut running in self.lock_relays().drain(..) {
            self.leave(&mut running);
        }
    }

    /// Has the workers leave when their connections have ended, or when this time has passed; connections
    /// that are left then end with the reason `drain_limit`.
    pub fn finish(&self, limit: Duration) {
        self.stop_listening();
        self.mailboxes
            .iter()
            .for_each(|mailbox| mailbox.send(Command::Finish(limit)));
    }

    /// How many workers have not left their loop.
    pub fn workers_running(&self) -> usize {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads
            .iter()
            .filter(|thread| !thread.is_finished())
            .count()
    }

    /// Waits until every worker has left its loop.
    ///
    /// # Errors
    /// One of them panicked.
    pub fn join(&self) -> Result<(), WorkerPanicked> {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ended = Ok(());
        for (worker, thread) in threads.into_iter().enumerate() {
            if thread.join().is_err() {
                ended = Err(WorkerPanicked { worker });
            }
        }
        ended
    }

    fn lock_relays(&self) -> std::sync::MutexGuard<'_, Vec<RunningRelay>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
