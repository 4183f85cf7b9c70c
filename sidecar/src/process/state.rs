//! What a running process knows of itself, for the admin listener to show.
//!
//! Everything in it can be read from any thread without asking a worker.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use super::applying::Relays;
use super::history::{History, Kind, Told};
use super::judging::{self, Judgement, Phase, WorkerView};
use crate::logging::{LogControl, LogLevel};
use crate::pressure::leave::Leaving;
use crate::settings::Live;
use crate::settings::controller::View;
use crate::time::Time;
use crate::worker::team::Team;

/// What a running process knows of itself.
#[derive(Debug)]
pub struct State {
    /// The moment that all its times count from.
    pub epoch: Instant,
    /// The same by the calendar.
    pub started: SystemTime,
    /// Its workers.
    pub team: Arc<Team>,
    /// Its relays.
    pub relays: Relays,
    /// Its configuration.
    pub live: Arc<Live>,
    /// What is seen of the controller, if there is one.
    pub view: Option<Arc<View>>,
    /// Where the admin listener is, if there is one.
    pub admin: Option<SocketAddr>,
    /// The last minutes.
    pub history: History,
    leaving: Mutex<Leaving>,
    /// Held while other settings are taken: workers are told in the order in which they took effect.
    taking: Mutex<()>,
    phase: AtomicU8,
    flips: AtomicU64,
    log: LogControl,
    log_level: Mutex<String>,
    /// Who asked for the process to end, once somebody has.
    drain_asked: watch::Sender<Option<&'static str>>,
}

/// What a process starts with.
pub(crate) struct Made {
    pub(crate) epoch: Instant,
    pub(crate) team: Arc<Team>,
    pub(crate) relays: Relays,
    pub(crate) live: Arc<Live>,
    pub(crate) leaving: Leaving,
    pub(crate) view: Option<Arc<View>>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) log: LogControl,
    pub(crate) log_level: LogLevel,
}

impl State {
    pub(crate) fn new(made: Made) -> Self {
        State {
            epoch: made.epoch,
            started: SystemTime::now() - made.epoch.elapsed(),
            team: made.team,
            relays: made.relays,
            live: made.live,
            view: made.view,
            leaving: Mutex::new(made.leaving),
            taking: Mutex::new(()),
            admin: made.admin,
            history: History::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
            flips: AtomicU64::new(0),
            log: made.log,
            log_level: Mutex::new(made.log_level.to_string()),
            drain_asked: watch::Sender::new(None),
        }
    }

    /// The time since the epoch.
    pub fn now(&self) -> Time {
        Time::ZERO.saturating_add(self.epoch.elapsed())
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Serving as u8 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// It relays from now on, unless it was told to end before it could.
    pub(crate) fn begin_to_serve(&self) {
        let (from, to) = (Phase::Starting as u8, Phase::Serving as u8);
        let _ = self
            .phase
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Asks for the process to end: it is unready at once. Says whether nobody had asked before.
    pub fn ask_to_drain(&self, who: &'static str) -> bool {
        self.phase.store(Phase::Draining as u8, Ordering::SeqCst);
        let is_first = self.drain_asked.send_if_modified(|asked| {
            let is_first = asked.is_none();
            asked.get_or_insert(who);
            is_first
        });
        if is_first {
            self.tell(Kind::Process, format!("draining, asked by {who}"));
        }
        is_first
    }

    /// Remembers an event.
    pub(crate) fn tell(&self, kind: Kind, sentence: impl Into<String>) {
        self.history.tell(self.now(), Told::once(kind, sentence));
    }

    /// Waits until somebody asks for the process to end, and says who.
    pub(crate) async fn asked_to_drain(&self) -> &'static str {
        let mut asked = self.drain_asked.subscribe();
        loop {
            if let Some(who) = *asked.borrow_and_update() {
                return who;
            }
            // The sender is part of this.
            let _ = asked.changed().await;
        }
    }

    /// What workers publish that judgements rest on.
    fn workers(&self) -> impl Iterator<Item = WorkerView> {
        self.team.stats().iter().map(|stats| WorkerView::of(stats))
    }

    /// Whether new connections should come here.
    pub fn readiness(&self) -> Judgement {
        let wanted = self.live.now().config.relays.len();
        // Counted only where something failed: relays are opened one after the other at a start.
        let unopened = self.relays.unopened().len();
        let listening = if unopened == 0 {
            wanted
        } else {
            self.team.relays().len()
        };
        let workers: Vec<WorkerView> = self.workers().collect();
        let listening = (listening, wanted);
        let wants = judging::wants_to_leave(self.phase(), &workers, listening);
        let stand = self.leaving().judge(wants, self.now());
        let mut judged = judging::readiness(self.phase(), &workers, listening, &stand, self.now());
        if judged.ready {
            // Told, and no reason to be unready: it is the application's, whose own probes speak for it.
            for relay in self.team.relays().iter().filter(|relay| !relay.listens()) {
                let name = &relay.relay.name;
                judged.reason += &format!("; {name} is closed, as its target refuses connections");
            }
        }
        judged
    }

    /// Where it stands on leaving its Services for pressure.
    pub fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps others from taking settings meanwhile.
    pub(crate) fn taking(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every worker's loop still turns.
    pub fn liveness(&self) -> Judgement {
        judging::liveness(self.workers(), self.now())
    }

    /// How often readiness has changed since the process was first ready.
    pub fn readiness_flips(&self) -> u64 {
        self.flips.load(Ordering::Relaxed)
    }

    pub(crate) fn count_flip(&self) {
        self.flips.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes which log lines are written.
    ///
    /// # Errors
    /// Logging is not set up any more.
    pub fn set_log_level(&self, level: &LogLevel) -> Result<(), String> {
        let mut written = self
            .log_level
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.log.set(level)?;
        let before = std::mem::replace(&mut *written, level.to_string());
        tracing::info!(before, now = *written, "log level changed");
        Ok(())
    }

    /// Lines of the log that were not written, as nobody read it.
    pub fn log_lines_dropped(&self) -> u64 {
        self.log.dropped_lines()
    }

    /// Which log lines are written.
    pub fn log_level(&self) -> String {
        self.log_level
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
