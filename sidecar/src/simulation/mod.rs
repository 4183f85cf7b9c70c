//! Whole runs of the unchanged worker on the simulated kernel, each from one seed, and what must hold in every one.
//!
//! `plan` says what a run is about, `peers` plays everyone outside the relay, `checks` judges. A run that fails is
//! told again, step by step, from its seed alone: `ringside-simulate replay SEED`.

mod checks;
mod links;
mod peers;
mod plan;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32};
use std::sync::mpsc::Receiver;

use arc_swap::ArcSwap;
use ringside_api::Settings;
use socket2::SockAddr;

use crate::backend::Errno;
use crate::backend::listen::ListenSocket;
use crate::backend::simulated::{Counts, Kernel, Simulated, Traits, World, link_at};
use crate::bug::{self, Bug};
use crate::flow::CloseReason;
use crate::worker::access_log::{AccessLog, Line};
use crate::worker::command::Mailbox;
use crate::worker::inspection::Holdings;
use crate::worker::shared::{Relay, Shared};
use crate::worker::stats::{RelayStats, WorkerStats};
use crate::worker::{Exit, Surroundings, Worker};
use peers::{Everyone, Peers, target};
use plan::Plan;

/// Turns of the loop after which a run is taken for one that never ends.
const TURNS_MOST: u64 = 400_000;

/// How a run went.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it came from.
    pub seed: u64,
    /// What must never be and was, if anything.
    pub failure: Option<String>,
    /// The story, where one was asked for.
    pub steps: Vec<String>,
    /// What happened.
    pub counts: Counts,
    /// Connections by the reason of their end.
    pub ends: BTreeMap<&'static str, u64>,
    /// Times the backend broke and another followed.
    pub rebuilds: u32,
    /// Simulated time, in nanoseconds.
    pub lasted_nanos: u64,
}

/// What a run is told by its worker, and keeps.
struct Run {
    plan: Plan,
    world: Rc<RefCell<World>>,
    peers: Rc<RefCell<Peers>>,
    surroundings: Surroundings,
    relay: Arc<Relay>,
    lines: Receiver<Line>,
    /// By the client's link.
    reasons: BTreeMap<usize, CloseReason>,
    /// Ends told since they were last looked at, by the client's link.
    ended: Vec<(usize, CloseReason)>,
    rebuilds: u32,
    left: Option<Holdings>,
    watch: checks::Watch,
    links: links::Links,
}

/// Runs one seed; with a story if it is wanted, and with a bug in the worker if one is.
pub fn run(seed: u64, has_story: bool, bug: Option<Bug>) -> Report {
    let plan = Plan::new(seed);
    let (access_log, lines) = AccessLog::new();
    let stats = Arc::new(RelayStats::default());
    let relay = Arc::new(Relay {
        name: "simulated".to_owned(),
        target: ArcSwap::from_pointee(String::new()),
        addresses: ArcSwap::from_pointee(vec![SockAddr::from(target()); 2]),
        original_port: AtomicU16::new(if plan.intercepts { target().port() } else { 0 }),
        proxy_protocol: AtomicBool::new(plan.sends_header),
        next_address: AtomicU32::new(0),
        stats: vec![stats],
    });
    let mut kernel = Kernel::new(seed, plan.faults.clone(), plan.descriptor_limit, has_story);
    kernel.sends_header = plan.sends_header;
    kernel.capacity = plan.capacity;
    kernel.redirects_from = plan.intercepts.then(target);
    let listener = Arc::new(ListenSocket::simulated(kernel.listen(plan.backlog)));
    let surroundings = Surroundings {
        index: 0,
        shared: Arc::new(Shared::new(kernel.descriptors, plan.descriptor_limit)),
        stats: Arc::new(WorkerStats::default()),
        mailboxes: Arc::new([Mailbox::default()]),
        access_log,
    };
    let peers = Peers::new(
        plan.clone(),
        surroundings.mailboxes.clone(),
        relay.clone(),
        listener,
    );
    peers.schedule(&mut kernel);
    kernel.tell(|| format!("{plan:#?}"));
    surroundings.mailboxes[0].send(peers.listen());
    let peers = Rc::new(RefCell::new(peers));
    let outside = Box::new(Everyone(peers.clone()));
    let world = Rc::new(RefCell::new(World { kernel, outside }));
    let mut run = Run {
        watch: checks::Watch::new(),
        links: links::Links::default(),
        ended: Vec::new(),
        plan,
        world,
        peers,
        surroundings,
        relay,
        lines,
        reasons: BTreeMap::new(),
        rebuilds: 0,
        left: None,
    };
    bug::put(bug);
    let went = catch_unwind(AssertUnwindSafe(|| run.whole()));
    bug::put(None);
    let failure = match went {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(format!("a panic: {}", message_of(&*panic))),
    };
    run.report(failure)
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

impl Run {
    fn whole(&mut self) -> Result<(), String> {
        let mut settings = self.plan.settings;
        let mut traits = self.plan.traits;
        loop {
            match self.until_exit(&settings, traits)? {
                None => break,
                Some(last) => {
                    settings = last;
                    self.rebuilds += 1;
                    // What follows a broken ring is epoll, which has no submissions to push back.
                    traits.has_pushback = false;
                    traits.prewarmed_operations = 0;
                    if self.surroundings.mailboxes[0].is_to_finish() {
                        break;
                    }
                }
            }
        }
        self.check_end()
    }

    /// Turns one worker to its end; if its backend broke, tells the settings that another one follows with.
    fn until_exit(
        &mut self,
        settings: &Settings,
        traits: Traits,
    ) -> Result<Option<Settings>, String> {
        let pool = settings.buffers.pool.bytes() as usize;
        let backend = Simulated::new(self.world.clone(), traits, pool)
            .map_err(|errno: Errno| format!("no waker: {errno}"))?;
        let surroundings = self.surroundings.clone();
        let mut worker = Worker::new(backend, surroundings, settings, self.plan.seed);
        for turn in 0.. {
            let exit = worker.turn();
            self.keep_lines();
            self.check_turn(&worker, turn)?;
            self.check_links(&mut worker)?;
            if turn > TURNS_MOST {
                return Err(format!("no end after {TURNS_MOST} turns"));
            }
            match exit {
                None => {}
                Some(Exit::Finished) => {
                    self.left = Some(worker.holdings());
                    self.check_left(&worker)?;
                    return Ok(None);
                }
                Some(Exit::Overdue) => {
                    self.world.borrow_mut().kernel.is_given_up = true;
                    worker.lose_everything(CloseReason::DrainLimit);
                    self.keep_lines();
                    return Ok(None);
                }
                Some(Exit::Broken(reason)) => {
                    {
                        let kernel = &mut self.world.borrow_mut().kernel;
                        kernel.tell(|| reason);
                        kernel.is_given_up = true;
                    }
                    let commands = worker.listening();
                    self.surroundings.mailboxes[0].put_back(commands);
                    let settings = worker.lose_everything(CloseReason::BackendLost);
                    self.keep_lines();
                    return Ok(Some(settings));
                }
            }
        }
        Ok(None)
    }

    fn keep_lines(&mut self) {
        for line in self.lines.try_iter() {
            if let Some(link) = line.client.and_then(link_at) {
                let reason = line.reason;
                let world = &mut *self.world.borrow_mut();
                world
                    .kernel
                    .tell(|| format!("link {link}: over, as {}", reason.label()));
                self.reasons.insert(link, reason);
                self.ended.push((link, reason));
            }
        }
    }

    fn report(self, failure: Option<String>) -> Report {
        let mut ends = BTreeMap::new();
        for reason in self.reasons.values() {
            *ends.entry(reason.label()).or_default() += 1;
        }
        // After a panic the world may be left half-way, which is no reason not to tell of it.
        let world = self.world.try_borrow_mut();
        let (steps, counts, lasted_nanos) = match world {
            Ok(mut world) => (
                world.kernel.take_steps(),
                world.kernel.counts,
                world.kernel.now_nanos(),
            ),
            Err(_) => Default::default(),
        };
        Report {
            seed: self.plan.seed,
            failure,
            steps,
            counts,
            ends,
            rebuilds: self.rebuilds,
            lasted_nanos,
        }
    }
}
