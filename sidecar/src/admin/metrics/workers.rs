//! Figures of each worker, under the label `worker`.

use super::families::{Families, Kind};
use crate::backend::Outcome;
use crate::pressure::gate::PauseReason;
use crate::worker::stats::{Retry, Value, WorkerStats};
use crate::worker::team::Team;

/// A figure that is one number.
struct Figure {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: fn(&WorkerStats) -> u64,
}

const fn level(name: &'static str, help: &'static str, value: fn(&WorkerStats) -> u64) -> Figure {
    let kind = Kind::Gauge;
    Figure {
        name,
        help,
        kind,
        value,
    }
}

const fn count(name: &'static str, help: &'static str, value: fn(&WorkerStats) -> u64) -> Figure {
    let kind = Kind::Counter;
    Figure {
        name,
        help,
        kind,
        value,
    }
}

static FIGURES: [Figure; 17] = [
    level(
        "ringside_submission_batch_limit",
        "The most operations that the next submission offers to the kernel; adapts between batch.min and batch.max.",
        |stats| stats.batch_limit.get(),
    ),
    level(
        "ringside_operations_in_flight",
        "Operations started whose last completion has not come.",
        |stats| stats.operations_in_flight.get(),
    ),
    level(
        "ringside_operations_budget",
        "The most operations that may be in flight.",
        |stats| stats.operations_budget.get(),
    ),
    count(
        "ringside_stalls_total",
        "Times that pushback outlasted backoff.maxRetries and load was shed for it.",
        |stats| stats.stalls.get(),
    ),
    level(
        "ringside_pushback_percent",
        "The share of pushback over the last second, in percent.",
        |stats| stats.pushback_percent.get(),
    ),
    level(
        "ringside_pushback_sustained",
        "Whether pushback is sustained (1) or not (0), whatever readiness makes of it.",
        |stats| u64::from(stats.sustained_since.get() != 0),
    ),
    level(
        "ringside_pressure_rung",
        "The reaction to pushback: 0 calm, 1 reap and wait, 2 smaller batches, 3 accept nothing, 4 receive nothing, 5 end idle connections.",
        |stats| stats.rung.get(),
    ),
    level(
        "ringside_accept_paused",
        "Whether accepting is paused (1) or not (0); ringside_accept_pauses_total has the reasons.",
        |stats| u64::from(stats.accept_pause.get() != 0),
    ),
    count(
        "ringside_spliced_bytes_total",
        "Bytes that were moved by splice(2) and not through the buffer pool; part of ringside_relayed_bytes_total.",
        |stats| stats.spliced_bytes.get(),
    ),
    count(
        "ringside_buffer_shortages_total",
        "Times that a receive found no buffer in the pool.",
        |stats| stats.buffer_shortages.get(),
    ),
    level(
        "ringside_queued_bytes",
        "Bytes received that wait to be sent.",
        |stats| stats.queued_bytes.get(),
    ),
    level(
        "ringside_pipes_held",
        "Pipes that streams hold places for.",
        |stats| stats.pipes_held.get(),
    ),
    level(
        "ringside_pipes_limit",
        "The most pipes that streams may hold places for (buffers.pipes).",
        |stats| stats.pipes_limit.get(),
    ),
    count(
        "ringside_backend_rebuilds_total",
        "Times that the backend broke and was built anew; its connections were lost, counted as closed with the reason backend_lost.",
        |stats| stats.backend_rebuilds.get(),
    ),
    count(
        "ringside_access_log_dropped_total",
        "Access log lines that were not written, because of accessLog.maxPerSecond or a slow log.",
        |stats| stats.access_log_dropped.get(),
    ),
    level(
        "ringside_worker_ready",
        "Whether the worker judges itself ready (1) or not (0).",
        |stats| 1 - stats.unready.get().min(1),
    ),
    level(
        "ringside_buffer_pool_limit_bytes",
        "The most that the pool of receive buffers may take, in bytes (buffers.pool).",
        |stats| stats.pool_limit_bytes.get(),
    ),
];

pub(super) fn add(families: &mut Families, team: &Team) {
    let stats = team.stats();
    let names: Vec<String> = (0..stats.len()).map(|index| index.to_string()).collect();
    let workers: Vec<(&str, &WorkerStats)> = names
        .iter()
        .zip(stats)
        .map(|(name, stats)| (name.as_str(), &**stats))
        .collect();
    for figure in &FIGURES {
        let family = families.family(figure.name, figure.help, figure.kind);
        for &(worker, stats) in &workers {
            family.add(&[("worker", worker)], (figure.value)(stats) as f64);
        }
    }
    connections(families, team, &names);
    submissions(families, &workers);
    pauses(families, &workers);
    retries(families, &workers);
    ranges(families, &workers);
    buffer_pool(families, &workers);
    backends(families, team);
}

/// By the counts of openings and closings, which are never behind: what a worker publishes of itself is as old as its
/// last turn.
fn connections(families: &mut Families, team: &Team, names: &[String]) {
    let counted = team.counted();
    let family = families.family(
        "ringside_connections_open",
        "Connections open now.",
        Kind::Gauge,
    );
    for (index, worker) in names.iter().enumerate() {
        let of_worker = counted.iter().filter_map(|counts| counts.stats.get(index));
        let open: u64 = of_worker.map(|stats| stats.connections_open()).sum();
        family.add(&[("worker", worker)], open as f64);
    }
}

fn submissions(families: &mut Families, workers: &[(&str, &WorkerStats)]) {
    let family = families.family(
        "ringside_submissions_total",
        "Submissions to the kernel, by outcome: nothing was offered, all or some of it was taken, the error that it answered, or `late` where the backend does not see what it answered.",
        Kind::Counter,
    );
    for &(worker, stats) in workers {
        for outcome in Outcome::ALL {
            let labels = [("worker", worker), ("outcome", outcome.label())];
            let submissions: &Value = &stats.submissions[outcome.index()];
            family.add(&labels, submissions.get() as f64);
        }
    }
}

fn pauses(families: &mut Families, workers: &[(&str, &WorkerStats)]) {
    let family = families.family(
        "ringside_accept_pauses_total",
        "Times that accepting was paused, by reason.",
        Kind::Counter,
    );
    for &(worker, stats) in workers {
        for (reason, pauses) in PauseReason::ALL.iter().zip(&stats.accept_pauses) {
            let labels = [("worker", worker), ("reason", reason.label())];
            family.add(&labels, pauses.get() as f64);
        }
    }
}

fn retries(families: &mut Families, workers: &[(&str, &WorkerStats)]) {
    let family = families.family(
        "ringside_kernel_retries_total",
        "Operations that the kernel ended or refused for a reason that passes, and that were started again, by reason.",
        Kind::Counter,
    );
    for &(worker, stats) in workers {
        for (reason, retries) in Retry::ALL.iter().zip(&stats.retries) {
            let labels = [("worker", worker), ("reason", reason.label())];
            family.add(&labels, retries.get() as f64);
        }
    }
}

fn ranges(families: &mut Families, workers: &[(&str, &WorkerStats)]) {
    let family = families.family(
        "ringside_submission_backoff_seconds",
        "Waits in backoff after pushback, as they were meant, in seconds; a completion ends one early.",
        Kind::Histogram,
    );
    for &(worker, stats) in workers {
        family.add_ranges(&[("worker", worker)], stats.backoff.read());
    }
    let family = families.family(
        "ringside_submission_batch_size",
        "Operations that the kernel took in one submission.",
        Kind::Histogram,
    );
    for &(worker, stats) in workers {
        family.add_ranges(&[("worker", worker)], stats.batch_size.read());
    }
    let family = families.family(
        "ringside_connect_seconds",
        "Time from accepting a connection to being connected to its target, in seconds.",
        Kind::Histogram,
    );
    for &(worker, stats) in workers {
        family.add_ranges(&[("worker", worker)], stats.connect.read());
    }
}

fn buffer_pool(families: &mut Families, workers: &[(&str, &WorkerStats)]) {
    let family = families.family(
        "ringside_buffer_pool_bytes",
        "The pool of receive buffers, in bytes: allocated so far (grows to ringside_buffer_pool_limit_bytes), and of that pinned, which cannot be filled before something is sent.",
        Kind::Gauge,
    );
    for &(worker, stats) in workers {
        let states = [
            ("allocated", &stats.pool_allocated_bytes),
            ("pinned", &stats.pool_pinned_bytes),
        ];
        for (state, bytes) in states {
            let labels = [("worker", worker), ("state", state)];
            family.add(&labels, bytes.get() as f64);
        }
    }
}

fn backends(families: &mut Families, team: &Team) {
    let family = families.family(
        "ringside_backend_info",
        "Always 1; the backend that the worker runs on, and why it is this one.",
        Kind::Gauge,
    );
    for (worker, report) in team.backends().iter().enumerate() {
        let worker = worker.to_string();
        let labels = [
            ("worker", worker.as_str()),
            ("backend", report.name),
            ("reason", &report.reason),
        ];
        family.add(&labels, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_help_follow_the_conventions() {
        for (index, figure) in FIGURES.iter().enumerate() {
            assert!(figure.name.starts_with("ringside_"), "{}", figure.name);
            assert!(figure.help.ends_with('.') && figure.help.len() > 15);
            let is_total = figure.name.ends_with("_total");
            assert_eq!(is_total, figure.kind == Kind::Counter, "{}", figure.name);
            assert!(FIGURES[..index].iter().all(|f| f.name != figure.name));
        }
    }
}
