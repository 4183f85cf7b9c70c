//! Figures of the whole process: build, readiness, limits that all workers share, settings.

use std::sync::atomic::Ordering;

use super::families::{Families, Kind};
use crate::process::State;
use crate::process::judging::Phase;
use crate::worker::team::RelayCounts;

pub(super) const BUILD_INFO_HELP: &str = "Always 1; the version and commit of this build.";

pub(super) fn add(families: &mut Families, state: &State) {
    families
        .family("ringside_build_info", BUILD_INFO_HELP, Kind::Gauge)
        .add(
            &[("version", crate::VERSION), ("commit", crate::COMMIT)],
            1.0,
        );
    readiness(families, state);
    limits(families, state);
    settings(families, state);
    lookups(families, state);
}

fn level(families: &mut Families, name: &str, help: &str, value: f64) {
    families.family(name, help, Kind::Gauge).add(&[], value);
}

fn count(families: &mut Families, name: &str, help: &str, value: u64) {
    families
        .family(name, help, Kind::Counter)
        .add(&[], value as f64);
}

fn readiness(families: &mut Families, state: &State) {
    level(
        families,
        "ringside_ready",
        "Whether /readyz answers 200 (1) or 503 (0).",
        f64::from(u8::from(state.readiness().ready)),
    );
    level(
        families,
        "ringside_live",
        "Whether /livez answers 200 (1) or 503 (0): every worker's loop turns.",
        f64::from(u8::from(state.liveness().ready)),
    );
    level(
        families,
        "ringside_draining",
        "Whether the process was asked to end and drains (1) or not (0).",
        f64::from(u8::from(state.phase() == Phase::Draining)),
    );
    count(
        families,
        "ringside_readiness_flips_total",
        "Changes from ready to unready and back while serving.",
        state.readiness_flips(),
    );
    count(
        families,
        "ringside_log_lines_dropped_total",
        "Lines of the log that were not written, because nobody read it fast enough.",
        state.log_lines_dropped(),
    );
}

fn limits(families: &mut Families, state: &State) {
    let shared = state.team.shared();
    let settings = state.team.settings();
    level(
        families,
        "ringside_connections_limit",
        "The most connections open at once in the process (accept.maxConnections); ringside_connections_open has those in use.",
        f64::from(settings.accept.max_connections),
    );
    let (sources, most) = shared.sources.occupancy();
    level(
        families,
        "ringside_source_connections_limit",
        "The most connections open at once from one source (accept.perSource; 0 is no limit); ringside_connections_closed_total has those refused as source_limit.",
        f64::from(settings.accept.per_source),
    );
    level(
        families,
        "ringside_source_connections_most",
        "Connections that the source with the most of them has open; counted only while there is a limit.",
        f64::from(most),
    );
    level(
        families,
        "ringside_sources_open",
        "Sources that have connections open; counted only while there is a limit.",
        sources as f64,
    );
    level(
        families,
        "ringside_accept_rate_limit",
        "The most connections accepted per second in the process (accept.maxPerSecond); the rate of ringside_connections_opened_total has those in use.",
        f64::from(settings.accept.max_per_second),
    );
    level(
        families,
        "ringside_accept_backlog_limit",
        "The most arrivals that the kernel holds for each listener, in connections (accept.backlog, which net.core.somaxconn may lower).",
        f64::from(settings.accept.backlog),
    );
    level(
        families,
        "ringside_direction_buffer_limit_bytes",
        "The most bytes that one direction of a connection may hold (buffers.perDirection).",
        settings.buffers.per_direction.bytes() as f64,
    );
    level(
        families,
        "ringside_access_log_rate_limit",
        "The most access log lines per second in the process (accessLog.maxPerSecond); ringside_access_log_dropped_total counts those beyond.",
        f64::from(settings.access_log.max_per_second),
    );
    level(
        families,
        "ringside_descriptors_open",
        "File descriptors that the process counts as in use.",
        f64::from(shared.descriptors_open.load(Ordering::Relaxed)),
    );
    level(
        families,
        "ringside_descriptors_limit",
        "File descriptors that the process may have open (RLIMIT_NOFILE).",
        f64::from(shared.descriptor_limit.load(Ordering::Relaxed)),
    );
    level(
        families,
        "ringside_descriptors_reserve",
        "File descriptors kept back from connections for the process itself (accept.descriptorReserve).",
        f64::from(settings.accept.descriptor_reserve),
    );
}

fn settings(families: &mut Families, state: &State) {
    let now = state.live.now();
    // Not the path, which may be anything: the kind of place.
    let policy = now
        .assignment
        .as_ref()
        .map_or("", |assignment| &assignment.assigned.policy);
    let hash = now.resolved.settings.hash();
    families
        .family(
            "ringside_settings_info",
            "Always 1; where the settings in effect come from, the RelayPolicy that applies (empty where none does), and their fingerprint.",
            Kind::Gauge,
        )
        .add(
            &[("source", now.source()), ("policy", policy), ("hash", &hash)],
            1.0,
        );
    level(
        families,
        "ringside_settings_generation",
        "How many configurations took effect, the first one included.",
        now.generation as f64,
    );
    level(
        families,
        "ringside_settings_last_refused",
        "Whether the last configuration that was offered was refused (1) and an older one is in effect.",
        f64::from(u8::from(now.last_refusal.is_some())),
    );
    count(
        families,
        "ringside_settings_errors_total",
        "Configurations and offers of the controller that were refused, so that the last good one stayed in effect, and relays of taken ones that could not be opened (ringside_relays_unopened has those that still are not).",
        now.refusals_total + state.relays.failures_total(),
    );
    level(
        families,
        "ringside_relays_unopened",
        "Relays that are configured and cannot listen where they should; /statusz says why.",
        state.relays.unopened().len() as f64,
    );
    level(
        families,
        "ringside_relays",
        "Relays that listen or still have connections.",
        state
            .team
            .counted()
            .iter()
            .filter(|counts: &&RelayCounts| {
                counts.connections_open() > 0
                    || state
                        .team
                        .relays()
                        .iter()
                        .any(|running| running.relay.name == counts.name)
            })
            .count() as f64,
    );
}

fn lookups(families: &mut Families, state: &State) {
    let (all, failed) = state.relays.resolver().lookups();
    families
        .family(
            "ringside_target_lookups_total",
            "Look-ups of targets' names, by outcome (ok, failed). While they fail the last good addresses stay in use.",
            Kind::Counter,
        )
        .add(&[("outcome", "ok")], all.saturating_sub(failed) as f64)
        .add(&[("outcome", "failed")], failed as f64);
}
