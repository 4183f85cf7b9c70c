//! A process from its start to its end.
//!
//! The calling thread runs the admin listener, signals and the drain on a runtime of its own, without a ring; workers,
//! look-ups, the configuration's watch and the access log have their threads.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use ringside_api::{BackendChoice, Config, Workers};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::applying::{RETRY, Relays};
use super::history::{self, Kind};
use super::state::{Made, State};
use super::synced::Synced;
use super::{access_lines, drain, taking, workers};
use crate::admin;
use crate::backend::descriptors;
use crate::logging::{LogControl, LogLevel};
use crate::pressure::leave::{Leaving, Rule};
use crate::pressure::sources::{Telling, Told};
use crate::settings::controller::{self, Controller, Kept};
use crate::settings::{Change, Live, Loaded, Origin, Watch};
use crate::worker::access_log::AccessLog;
use crate::worker::shared::Shared;
use crate::worker::team::{Team, TeamOptions};

/// How often readiness is looked at, to log and count its changes. Probes do not wait for it.
const LOOK: Duration = Duration::from_millis(100);

/// Descriptors that are free when the process says that it is ready: a connection's two and a pipe's two, and four for
/// probes and the configuration file.
const DESCRIPTORS_LEAST: u32 = 8;

/// Where the admin listener is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminListener {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

/// What the command line says and the configuration file therefore does not, now or after a reload.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Where the admin listener is.
    pub admin: Option<AdminListener>,
    /// Which backend to use.
    pub backend: Option<BackendChoice>,
    /// How many workers to run.
    pub workers: Option<Workers>,
}

impl Overrides {
    /// The configuration with what overrides it.
    pub fn over(&self, config: &Config) -> Arc<Config> {
        // Without an admin listener its address is nobody's: port 0 is never the same as a relay's.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut config = config.clone();
        match self.admin {
            Some(AdminListener::At(address)) => config.admin = address,
            Some(AdminListener::Off) => config.admin = nowhere,
            None => {}
        }
        config.backend = self.backend.unwrap_or(config.backend);
        config.workers = self.workers.unwrap_or(config.workers);
        Arc::new(config)
    }
}

/// What a process is started with.
#[derive(Debug)]
pub struct Options {
    /// When it began.
    pub epoch: Instant,
    /// Its configuration, before anything overrides it.
    pub config: Arc<Config>,
    /// The file that it came from, which is then watched.
    pub file: Option<(PathBuf, Loaded)>,
    /// What overrides it.
    pub overrides: Overrides,
    /// The controller to speak with, if there is one.
    pub controller: Option<Controller>,
    /// Where to write the admin listener's address once the process is ready.
    pub admin_port_file: Option<PathBuf>,
    /// The log.
    pub log: LogControl,
    /// Which lines are written at first.
    pub log_level: LogLevel,
}

/// How a process ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was asked to.
    Drained,
    /// At once, by a second interrupt.
    Interrupted,
}

/// Runs until the process is asked to end and has ended.
///
/// # Errors
/// It cannot start, or a worker is lost.
pub fn run(options: Options) -> anyhow::Result<Ended> {
    let config = options.overrides.over(&options.config);
    let origin = match &options.file {
        Some((path, _)) => Origin::File(path.clone()),
        None => Origin::CommandLine,
    };
    let live = Arc::new(Live::new(config.clone(), origin)?);
    let kept = options
        .controller
        .as_ref()
        .map(|controller| begin_with(&live, controller));
    let leaving = match &kept {
        Some(kept) => Leaving::new(Rule::Asked, kept.permit),
        None => Leaving::new(Rule::Own, false),
    };
    let limit = descriptors::raise_limit().unwrap_or(u64::from(u32::MAX));
    let listener = match options.overrides.admin {
        Some(AdminListener::Off) => None,
        _ => Some(admin::bind(config.admin)?),
    };
    let admin = listener.as_ref().and_then(|l| l.local_addr().ok());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime of the admin listener cannot be set up")?;
    let (access_log, lines) = AccessLog::new();
    let writer = access_lines::start(lines, options.epoch)
        .context("the access log's thread cannot be started")?;
    let team = start_workers(&options, &config, &live, limit, &access_log)?;
    let state = Arc::new(State::new(Made {
        epoch: options.epoch,
        relays: Relays::new(team.clone()).context("the resolver's thread cannot be started")?,
        team,
        live,
        leaving,
        view: kept.is_some().then(Default::default),
        admin,
        log: options.log.clone(),
        log_level: options.log_level.clone(),
    }));
    let ended = runtime.block_on(live_through(&state, listener, &options, kept))?;
    if ended == Ended::Drained {
        // The workers are gone, and this is the last who could write: its end is the end of the log.
        drop(access_log);
        let _ = writer.join();
    }
    Ok(ended)
}

/// Lays what policies assigned last over the configuration, before any worker starts; returns what an earlier process kept.
fn begin_with(live: &Live, controller: &Controller) -> Kept {
    let first = controller::first(controller);
    for sentence in &first.passed_over {
        tracing::warn!("{sentence}; it is passed over");
    }
    for assignment in first.assignments {
        let (from, policy) = (assignment.from.label(), assignment.assigned.policy.clone());
        match live.assign(Ok(assignment)) {
            Ok(_) => {
                tracing::info!(from, policy, "beginning with what policies assigned last");
                break;
            }
            Err(refused) => tracing::error!(
                "what policies assigned, as the {from} has it, is refused: {}",
                refused.why
            ),
        }
    }
    first.kept
}

fn start_workers(
    options: &Options,
    config: &Config,
    live: &Live,
    descriptor_limit: u64,
    access_log: &AccessLog,
) -> anyhow::Result<Arc<Team>> {
    let settings = live.now().resolved.settings;
    let pool_bytes = settings.buffers.pool.bytes();
    let count = match config.workers {
        Workers::Auto => workers::granted(pool_bytes),
        Workers::Count(count) => count.get() as usize,
    };
    workers::tell_if_too_many(count, pool_bytes);
    let options = TeamOptions {
        workers: count,
        backend: config.backend,
        settings,
        epoch: options.epoch,
    };
    let limit = u32::try_from(descriptor_limit).unwrap_or(u32::MAX);
    let shared = Arc::new(Shared::new(descriptors::count_open(), limit));
    let team = Team::start(&options, shared.clone(), access_log)?;
    // With those of the backends. From here on who opens one counts it.
    shared.descriptors_open.store(
        descriptors::count_open(),
        std::sync::atomic::Ordering::Relaxed,
    );
    Ok(Arc::new(team))
}

/// Signals that end a process, and the one that means a reload elsewhere; taken over before anything else, so that
/// none is lost.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn take_over() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("signals cannot be taken over");
        Ok(Signals {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Asks for the drain at the first signal; returns at the second interrupt.
    async fn heed(mut self, state: &State) {
        let mut interrupts = 0;
        loop {
            let who = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => {
                    interrupts += 1;
                    "SIGINT"
                }
                _ = self.hang_up.recv() => {
                    tracing::info!("SIGHUP changes nothing: the configuration file is read whenever it changes");
                    continue;
                }
            };
            if interrupts == 2 {
                tracing::warn!(by = who, "ending at once: open connections are cut");
                return;
            }
            if !state.ask_to_drain(who) {
                tracing::info!(by = who, "draining already");
            }
        }
    }
}

async fn live_through(
    state: &Arc<State>,
    listener: Option<TcpListener>,
    options: &Options,
    kept: Option<Kept>,
) -> anyhow::Result<Ended> {
    let signals = Signals::take_over()?;
    if let Some(listener) = listener {
        admin::serve(listener, state.clone())?;
    }
    // Until the runtime ends: also a drain is watched.
    tokio::spawn(history::watch(state.clone()));
    if let (Some(controller), Some(kept), Some(view)) = (&options.controller, kept, &state.view) {
        let (state, view) = (state.clone(), view.clone());
        let host = Arc::new(Synced { state, view });
        // It ends with the runtime: a pod that drains still says so.
        tokio::spawn(controller::work(controller.clone(), kept, host));
    }
    let serves = async {
        let watch = tokio::select! {
            watch = start(state, options) => Some(watch?),
            // Asked to end before it has begun.
            _ = state.asked_to_drain() => None,
        };
        let who = tokio::select! {
            who = state.asked_to_drain() => who,
            lost = look_after(state) => return Err(lost),
        };
        drain::drain(state, who).await?;
        drop(watch);
        Ok(Ended::Drained)
    };
    tokio::select! {
        ended = serves => ended,
        () = signals.heed(state) => Ok(Ended::Interrupted),
    }
}

/// Opens the relays and says that the process is ready; then changes of the configuration are heeded.
async fn start(state: &Arc<State>, options: &Options) -> anyhow::Result<Option<Watch>> {
    // Names may take long to look up, and probes are to be answered meanwhile.
    let (opens, opened) = tokio::sync::oneshot::channel();
    let opening = state.clone();
    std::thread::Builder::new()
        .name("opening".to_owned())
        .spawn(move || {
            let wanted = opening.live.now().config.clone();
            let _ = opens.send(opening.relays.open(&wanted.relays));
        })
        .context("a thread cannot be started")?;
    opened.await.context("opening the relays panicked")??;
    require_descriptors(state)?;
    state.begin_to_serve();
    state.tell(Kind::Process, "ready: relays listen");
    if let (Some(path), Some(address)) = (&options.admin_port_file, state.admin) {
        write_whole(path, &format!("{address}\n"))
            .with_context(|| format!("cannot write the admin address to {}", path.display()))?;
    }
    tracing::info!(
        version = crate::VERSION,
        workers = state.team.stats().len(),
        admin = state.admin.map(|address| address.to_string()),
        descriptor_limit = state
            .team
            .shared()
            .descriptor_limit
            .load(std::sync::atomic::Ordering::Relaxed),
        ms = state.epoch.elapsed().as_millis() as u64,
        "ready"
    );
    let Some((path, loaded)) = &options.file else {
        return Ok(None);
    };
    let (taker, overrides) = (state.clone(), options.overrides.clone());
    let on_change =
        move |change: Change| taking::take(&taker, change.map(|config| overrides.over(&config)));
    let watch = Watch::start(path, loaded, on_change)
        .context("the thread that watches the configuration cannot be started")?;
    Ok(Some(watch))
}

/// Without descriptors to spare it would say that it is ready, and serve nobody.
fn require_descriptors(state: &State) -> anyhow::Result<()> {
    let shared = state.team.shared();
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let limit = shared.descriptor_limit.load(relaxed);
    let open = shared.descriptors_open.load(relaxed);
    if limit.saturating_sub(open) < DESCRIPTORS_LEAST {
        bail!(
            "the descriptor limit of {limit} is too small: {open} are open before the first connection, and at least \
             {DESCRIPTORS_LEAST} more are needed; raise it (ulimit -n), to two for each connection and 64 beside"
        );
    }
    Ok(())
}

/// Tells of changes of readiness, and returns when a worker is lost.
async fn look_after(state: &Arc<State>) -> anyhow::Error {
    let workers = state.team.stats().len();
    let mut was_ready = true;
    let mut refusals = Telling::default();
    let mut tried = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        if state.team.workers_running() < workers {
            return anyhow!(
                "a worker ended that should not have: the log says why; its connections are lost, and the process ends so that it is started anew"
            );
        }
        let judged = state.readiness();
        if judged.ready != was_ready {
            was_ready = judged.ready;
            state.count_flip();
            if judged.ready {
                tracing::info!("ready again");
                state.tell(Kind::Readiness, "ready again");
            } else {
                tracing::warn!(reason = judged.reason, "unready");
                state.tell(Kind::Readiness, format!("unready: {}", judged.reason));
            }
        }
        tell_of_refusals(state, &mut refusals);
        if !state.relays.unopened().is_empty() && tried.elapsed() >= RETRY {
            tried = Instant::now();
            let retrying = state.clone();
            let thread = std::thread::Builder::new().name("opening".to_owned());
            // Without a thread it is tried the next time.
            let _ = thread.spawn(move || retrying.relays.retry());
        }
    }
}

/// Tells that connections are refused for their source, and that none are any more: never of a single one.
fn tell_of_refusals(state: &State, refusals: &mut Telling) {
    let sources = &state.team.shared().sources;
    match refusals.look(sources.refused_total(), state.now()) {
        Some(Told::Begun) => tracing::warn!(
            source = sources.last_refused().map(|last| last.source.to_string()),
            limit = sources.last_refused().map(|last| last.limit),
            "connections are refused: their source has as many open as accept.perSource allows"
        ),
        Some(Told::Ended { refused }) => tracing::info!(
            refused,
            "connections are no longer refused for their source"
        ),
        None => {}
    }
}

/// Writes a file so that nobody ever reads half of it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path).inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_overrides_a_file_also_after_a_reload() {
        let file = Config::from_yaml(
            "{relays: [{name: web, listen: '0.0.0.0:15490', target: 'app:80'}], admin: '127.0.0.1:9000', workers: 2}",
        )
        .unwrap();
        let overrides = Overrides {
            admin: Some(AdminListener::Off),
            workers: Some("3".parse().unwrap()),
            backend: None,
        };
        let over = overrides.over(&file);
        assert_eq!(over.workers.to_string(), "3");
        assert_eq!(over.backend, file.backend);
        // The default admin port is free for a relay where there is no admin listener.
        over.check().unwrap();
        assert_eq!(*Overrides::default().over(&file), file);
    }

    #[test]
    fn a_file_is_written_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port");
        write_whole(&path, "127.0.0.1:1\n").unwrap();
        write_whole(&path, "127.0.0.1:2\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "127.0.0.1:2\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_whole(&folder.path().join("no/where"), "").is_err());
    }
}
