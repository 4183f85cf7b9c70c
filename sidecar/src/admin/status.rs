//! `/statusz`: the state of the process as JSON, for people, the live page and tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Of;
use serde::Serialize;
use socket2::SockAddr;

use super::config::origin;
use super::controller::{self, Controller};
use crate::backend::Outcome;
use crate::backend::choice::BackendReport;
use crate::flow::CloseReason;
use crate::pressure::gate::PauseReason;
use crate::pressure::shed::Rung;
use crate::process::State;
use crate::process::judging::Phase;
use crate::target_check::reach::Verdict;
use crate::worker::stats::WorkerStats;
use crate::worker::team::{RelayCounts, RunningRelay};

/// The whole document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: &'static str,
    commit: &'static str,
    uptime_seconds: f64,
    phase: &'static str,
    ready: bool,
    reason: String,
    alive: bool,
    readiness_flips: u64,
    draining: bool,
    connections_open: u64,
    connections_limit: u32,
    descriptors_open: u32,
    descriptors_limit: u32,
    log_level: String,
    workers: Vec<Worker>,
    relays: Vec<Relay>,
    settings: Settings,
    /// Only with a controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<Controller>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    index: usize,
    backend: &'static str,
    reason: String,
    ready: bool,
    connections: u64,
    pushback_percent: u64,
    /// Since when pushback is sustained, in seconds before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pushed_back_for_seconds: Option<f64>,
    rung: &'static str,
    accept_paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_pause_reason: Option<&'static str>,
    batch_limit: u64,
    operations_in_flight: u64,
    operations_budget: u64,
    submissions: BTreeMap<&'static str, u64>,
    backoffs: u64,
    backoff_seconds: f64,
    stalls: u64,
    buffer_shortages: u64,
    pool_allocated_bytes: u64,
    pool_pinned_bytes: u64,
    pool_limit_bytes: u64,
    queued_bytes: u64,
    spliced_bytes: u64,
    pipes_held: u64,
    pipes_limit: u64,
    backend_rebuilds: u64,
    access_log_dropped: u64,
    last_turn_seconds_ago: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relay {
    name: String,
    listen: Vec<String>,
    target: Option<String>,
    addresses: Vec<String>,
    /// Whether it listens now: not while its target refuses connections.
    listening: bool,
    /// What checks say of the target: `taking connections`, `refusing connections`, or `unknown`.
    target_state: &'static str,
    /// Why it does not listen where it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why its target's name cannot be looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    lookup_error: Option<String>,
    connections_open: u64,
    connections_opened: u64,
    connections_closed: BTreeMap<&'static str, u64>,
    bytes_to_upstream: u64,
    bytes_to_client: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    hash: String,
    source: String,
    generation: u64,
    refused: u64,
    last_error: Option<LastError>,
    waiting_for_restart: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LastError {
    message: String,
    line: Option<usize>,
    field: String,
}

/// Shows the state of the process.
pub(super) async fn statusz(Of(state): Of<Arc<State>>) -> Json<Status> {
    Json(status(&state))
}

fn status(state: &State) -> Status {
    let readiness = state.readiness();
    let phase = state.phase();
    let shared = state.team.shared();
    let backends = state.team.backends();
    let stats = state.team.stats().iter().zip(&backends).enumerate();
    let counted = state.team.counted();
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    Status {
        version: crate::VERSION,
        commit: crate::COMMIT,
        uptime_seconds: state.epoch.elapsed().as_secs_f64(),
        phase: match phase {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Draining => "draining",
        },
        ready: readiness.ready,
        reason: readiness.reason,
        alive: state.liveness().ready,
        readiness_flips: state.readiness_flips(),
        draining: phase == Phase::Draining,
        connections_open: counted.iter().map(RelayCounts::connections_open).sum(),
        connections_limit: state.team.settings().accept.max_connections,
        descriptors_open: shared.descriptors_open.load(relaxed),
        descriptors_limit: shared.descriptor_limit.load(relaxed),
        log_level: state.log_level(),
        workers: stats
            .map(|(index, (stats, report))| worker(state, index, stats, report))
            .collect(),
        relays: relays(state, &counted),
        settings: settings(state),
        controller: controller::controller(state),
    }
}

fn worker(state: &State, index: usize, stats: &WorkerStats, report: &BackendReport) -> Worker {
    let now = state.now().as_nanos();
    let seconds_since = |nanos: u64| now.saturating_sub(nanos) as f64 / 1e9;
    let pause = stats.accept_pause.get().checked_sub(1);
    let (_, backoffs, backoff_seconds) = stats.backoff.read();
    Worker {
        index,
        backend: report.name,
        reason: report.reason.clone(),
        ready: stats.unready.get() == 0,
        connections: stats.connections_open.get(),
        pushback_percent: stats.pushback_percent.get(),
        pushed_back_for_seconds: stats
            .sustained_since
            .get()
            .checked_sub(1)
            .map(seconds_since),
        rung: Rung::ALL
            .get(stats.rung.get() as usize)
            .map_or("unknown", |rung| rung.label()),
        accept_paused: pause.is_some(),
        accept_pause_reason: pause
            .and_then(|index| PauseReason::ALL.get(index as usize))
            .map(|reason| reason.label()),
        batch_limit: stats.batch_limit.get(),
        operations_in_flight: stats.operations_in_flight.get(),
        operations_budget: stats.operations_budget.get(),
        submissions: Outcome::ALL
            .iter()
            .map(|outcome| (outcome.label(), stats.submissions[outcome.index()].get()))
            .collect(),
        backoffs,
        backoff_seconds,
        stalls: stats.stalls.get(),
        buffer_shortages: stats.buffer_shortages.get(),
        pool_allocated_bytes: stats.pool_allocated_bytes.get(),
        pool_pinned_bytes: stats.pool_pinned_bytes.get(),
        pool_limit_bytes: stats.pool_limit_bytes.get(),
        queued_bytes: stats.queued_bytes.get(),
        spliced_bytes: stats.spliced_bytes.get(),
        pipes_held: stats.pipes_held.get(),
        pipes_limit: stats.pipes_limit.get(),
        backend_rebuilds: stats.backend_rebuilds.get(),
        access_log_dropped: stats.access_log_dropped.get(),
        last_turn_seconds_ago: seconds_since(stats.last_turn_nanos.get()),
    }
}

/// Those that run, those that should, and those that are gone but for their connections.
fn relays(state: &State, counted: &[RelayCounts]) -> Vec<Relay> {
    let (running, unopened) = (state.team.relays(), state.relays.unopened());
    let is_shown = |counts: &&RelayCounts| {
        counts.connections_open() > 0
            || state.phase() == Phase::Draining
            || running.iter().any(|r| r.relay.name == counts.name)
    };
    let mut relays: Vec<Relay> = counted
        .iter()
        .filter(is_shown)
        .map(|counts| relay(state, counts, &running))
        .collect();
    for missing in unopened.iter() {
        let (name, error) = (&missing.relay.name, Some(missing.error.clone()));
        match relays.iter_mut().find(|relay| relay.name == *name) {
            Some(relay) => relay.error = error,
            None => {
                let counts = RelayCounts {
                    name: name.clone(),
                    stats: Vec::new(),
                };
                relays.push(Relay {
                    error,
                    target: Some(missing.relay.target.to_string()),
                    ..relay(state, &counts, &running)
                });
            }
        }
    }
    relays
}

fn relay(state: &State, counts: &RelayCounts, running: &[RunningRelay]) -> Relay {
    let mine: Vec<&RunningRelay> = running
        .iter()
        .filter(|running| running.relay.name == counts.name)
        .collect();
    let newest = mine.last();
    let sum = |value: &dyn Fn(&crate::worker::stats::RelayStats) -> u64| {
        counts.stats.iter().map(|stats| value(stats)).sum()
    };
    let addresses = newest.map(|running| running.relay.addresses.load_full());
    Relay {
        name: counts.name.clone(),
        listen: mine.iter().map(|r| r.address.to_string()).collect(),
        target: newest.map(|running| running.wanted.target.to_string()),
        addresses: addresses.iter().flat_map(|a| a.iter()).map(shown).collect(),
        listening: mine.iter().any(|running| running.listens()),
        target_state: match newest.map(|running| running.checked.reach.verdict()) {
            Some(Verdict::Taking) => "taking connections",
            Some(Verdict::Refusing) => "refusing connections",
            Some(Verdict::Unknown) | None => "unknown",
        },
        error: None,
        lookup_error: newest
            .and_then(|running| state.relays.resolver().name(&running.wanted.target))
            .and_then(|name| name.error),
        connections_open: counts.connections_open(),
        connections_opened: sum(&|stats| stats.opened.get()),
        connections_closed: CloseReason::ALL
            .iter()
            .map(|reason| {
                let closed = sum(&|stats| stats.closed[reason.index()].get());
                (reason.label(), closed)
            })
            .collect(),
        bytes_to_upstream: sum(&|stats| stats.relayed_bytes[0].get()),
        bytes_to_client: sum(&|stats| stats.relayed_bytes[1].get()),
    }
}

fn shown(address: &SockAddr) -> String {
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => address.to_string(),
        (None, Some(path)) => format!("unix:{}", path.display()),
        (None, None) => "unknown".to_owned(),
    }
}

fn settings(state: &State) -> Settings {
    let now = state.live.now();
    Settings {
        hash: now.resolved.settings.hash(),
        source: origin(&now.origin),
        generation: now.generation,
        refused: now.refusals_total,
        last_error: now.last_refusal.as_ref().map(|refusal| LastError {
            message: refusal.sentence.clone(),
            line: refusal.line,
            field: refusal.field.clone(),
        }),
        waiting_for_restart: now.waiting_for_restart.clone(),
    }
}
