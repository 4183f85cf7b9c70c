//! One worker's thread: makes its backend, turns the loop on it, and makes another one when it broke.
//!
//! It owns the choice of the backend and the pauses between rebuilds. After the first start it never gives up
//! while the worker is not told to finish: a backend that cannot be had now is tried again.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringside_api::{BackendChoice, Settings};

use super::TeamOptions;
use crate::backend::Backend;
use crate::backend::choice::{BackendReport, NoBackend};
use crate::backend::epoll::Epoll;
use crate::backend::ring::Ring;
use crate::backend::tokio_uring::TokioUring;
use crate::flow::CloseReason;
use crate::pressure::backoff::{Backoff, BackoffLimits, Jitter};
use crate::worker::command::Mailbox;
use crate::worker::limits::operations_for;
use crate::worker::{Exit, Surroundings, Worker};

/// What one worker's thread is started with.
pub(super) struct Start {
    pub(super) surroundings: Surroundings,
    pub(super) options: TeamOptions,
    pub(super) report: Arc<ArcSwap<BackendReport>>,
    pub(super) started: mpsc::Sender<Result<(), NoBackend>>,
}

/// How an attempt to make a backend and to turn the loop on it ended.
enum Attempt {
    /// The worker is done.
    Finished,
    /// The loop turned until the backend broke; these settings were in effect.
    Broke(Box<Settings>),
    /// There was no backend.
    NoBackend(NoBackend),
}

/// The pauses before backends are made again, so that one which breaks at once is no spin.
pub(super) struct RebuildPauses(Backoff);

/// A backend that lasted so long is none that breaks at once.
pub(super) const LASTING: Duration = Duration::from_secs(1);

impl RebuildPauses {
    pub(super) fn new() -> Self {
        RebuildPauses(Backoff::new(BackoffLimits {
            initial: Duration::from_millis(10),
            max: Duration::from_secs(1),
            multiplier_percent: 200,
            jitter: Jitter::None,
            max_retries: u32::MAX,
        }))
    }

    /// How long to wait before the next backend, when the last one lasted so long; zero for one that could not
    /// even be made.
    pub(super) fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= LASTING {
            self.0.reset();
            return Duration::ZERO;
        }
        self.0.next(0).wait
    }
}

impl Start {
    pub(super) fn run(self) {
        let mut settings = self.options.settings;
        let mut wants = self.options.backend;
        let mut pauses = RebuildPauses::new();
        let mut is_first = true;
        loop {
            let began = Instant::now();
            let lasted = match self.attempt(wants, is_first, &settings) {
                Attempt::Finished => return,
                Attempt::Broke(last) => {
                    settings = *last;
                    began.elapsed()
                }
                Attempt::NoBackend(refused) if is_first => {
                    let _ = self.started.send(Err(refused));
                    return;
                }
                Attempt::NoBackend(refused) => {
                    tracing::error!(
                        worker = self.surroundings.index,
                        reason = %refused,
                        "no backend for this worker: it serves nobody until it has one; it is tried again"
                    );
                    Duration::ZERO
                }
            };
            if self.mailbox().is_to_finish() {
                // It has no connections and is to accept no more.
                self.mailbox().clear();
                return;
            }
            // What broke once by name is tried again; whatever it was, the relay goes on.
            if wants != BackendChoice::TokioUring {
                wants = BackendChoice::Auto;
            }
            is_first = false;
            let pause = pauses.after(lasted);
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
    }

    fn mailbox(&self) -> &Mailbox {
        &self.surroundings.mailboxes[self.surroundings.index]
    }

    /// Makes the backend that is wanted. The first time one that was asked for by name is that or none; later the
    /// relay goes on with what works.
    fn attempt(&self, wants: BackendChoice, is_first: bool, settings: &Settings) -> Attempt {
        let epoch = self.options.epoch;
        let operations = operations_for(settings);
        let pool = usize::try_from(settings.buffers.pool.bytes()).unwrap_or(usize::MAX);
        let mut reasons = Vec::new();
        if wants == BackendChoice::TokioUring {
            match TokioUring::new(epoch, pool, operations) {
                Ok(backend) => {
                    self.tell(BackendReport::of::<TokioUring>("asked for"));
                    return self.turn(backend, settings);
                }
                Err(refused) if is_first && TokioUring::IS_BUILT => {
                    return Attempt::NoBackend(NoBackend::refused(TokioUring::NAME, &refused));
                }
                // A pod that asks for what its image does not have is served all the same.
                Err(refused) => {
                    if is_first {
                        let worker = self.surroundings.index;
                        tracing::warn!(worker, "tokio-uring is asked for: {refused}");
                    }
                    reasons.push(format!("no tokio-uring: {refused}"));
                }
            }
        }
        if wants != BackendChoice::Epoll {
            match Ring::new(epoch, pool, operations) {
                Ok(ring) => {
                    reasons.push("io_uring works here".to_owned());
                    self.tell(BackendReport::of::<Ring>(&reasons.join("; ")));
                    return self.turn(ring, settings);
                }
                Err(refused) if wants == BackendChoice::Ring => {
                    return Attempt::NoBackend(NoBackend::refused(Ring::NAME, &refused));
                }
                Err(refused) => reasons.push(format!("no ring: {refused}")),
            }
        }
        if reasons.is_empty() {
            reasons.push("asked for".to_owned());
        }
        match Epoll::new(epoch, pool) {
            Ok(epoll) => {
                self.tell(BackendReport::of::<Epoll>(&reasons.join("; ")));
                self.turn(epoll, settings)
            }
            Err(errno) => Attempt::NoBackend(NoBackend::epoll(errno)),
        }
    }

    fn tell(&self, report: BackendReport) {
        let worker = self.surroundings.index;
        tracing::info!(
            worker,
            backend = report.name,
            reason = report.reason,
            "worker started"
        );
        self.report.store(Arc::new(report));
        let _ = self.started.send(Ok(()));
    }

    /// Turns the loop on this backend. If it breaks, what the worker was told waits in its mailbox again.
    fn turn<B: Backend>(&self, backend: B, settings: &Settings) -> Attempt {
        let index = self.surroundings.index;
        let seed = fastrand::u64(..);
        let mut worker = Worker::new(backend, self.surroundings.clone(), settings, seed);
        match worker.run() {
            Exit::Finished => Attempt::Finished,
            Exit::Overdue => {
                tracing::warn!(
                    worker = index,
                    "the time to drain is over, and connections that could not be ended are closed with the backend"
                );
                worker.lose_everything(CloseReason::DrainLimit);
                Attempt::Finished
            }
            Exit::Broken(reason) => {
                tracing::error!(
                    worker = index,
                    reason,
                    "the backend broke: its connections are lost, another one follows"
                );
                self.mailbox().put_back(worker.listening());
                self.surroundings.stats.backend_rebuilds.add(1);
                Attempt::Broke(Box::new(worker.lose_everything(CloseReason::BackendLost)))
            }
        }
    }
}
