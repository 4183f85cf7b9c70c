//! Looks at a process once a second: takes the sample, and notes what changed since the last look and is worth a sentence.
//!
//! It reads what workers publish, as a scrape does, and never asks one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{EVERY, Kind, Sample, Told, Totals};
use crate::backend::Outcome;
use crate::pressure::gate::PauseReason;
use crate::process::State;
use crate::worker::stats::WorkerStats;
use crate::worker::team::RelayCounts;

/// Samples and watches until the runtime ends.
pub(in crate::process) async fn watch(state: Arc<State>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut before, mut at) = (totals(&state), Instant::now());
    let mut seen = Seen::of(&state);
    for told in seen.first() {
        state.history.tell(state.now(), told);
    }
    loop {
        ticks.tick().await;
        let (after, now) = (totals(&state), Instant::now());
        let sample = after.since(&before, now - at, state.now());
        (before, at) = (after, now);
        state.history.keep(sample);
        let sees = Seen::of(&state);
        for told in sees.changes(&seen) {
            state.history.tell(state.now(), told);
        }
        seen = sees;
    }
}

fn totals(state: &State) -> Totals {
    let counted = state.team.counted();
    let stats = state.team.stats();
    let of_relays = |value: &dyn Fn(&crate::worker::stats::RelayStats) -> u64| -> u64 {
        let all = counted.iter().flat_map(|relay| &relay.stats);
        all.map(|stats| value(stats)).sum()
    };
    let of_workers =
        |value: &dyn Fn(&WorkerStats) -> u64| stats.iter().map(|stats| value(stats)).sum::<u64>();
    let outcomes = |wanted: &dyn Fn(Outcome) -> bool| {
        of_workers(&|stats| {
            let all = Outcome::ALL.iter().filter(|outcome| wanted(**outcome));
            all.map(|outcome| stats.submissions[outcome.index()].get())
                .sum()
        })
    };
    let highest =
        |value: &dyn Fn(&WorkerStats) -> u64| stats.iter().map(|stats| value(stats)).max();
    Totals {
        bytes_to_upstream: of_relays(&|stats| stats.relayed_bytes[0].get()),
        bytes_to_client: of_relays(&|stats| stats.relayed_bytes[1].get()),
        opened: of_relays(&|stats| stats.opened.get()),
        submissions: outcomes(&|outcome| outcome != Outcome::Nothing),
        pushed_back: outcomes(&Outcome::is_pushback),
        backoff_seconds: stats.iter().map(|stats| stats.backoff.read().2).sum(),
        standing: Sample {
            ready: state.readiness().ready,
            connections_open: counted.iter().map(RelayCounts::connections_open).sum(),
            pushback_percent: highest(&|stats| stats.pushback_percent.get()).unwrap_or(0),
            batch_limit: stats
                .iter()
                .map(|stats| stats.batch_limit.get())
                .min()
                .unwrap_or(0),
            paused_workers: of_workers(&|stats| u64::from(stats.accept_pause.get() > 0)),
            ..Sample::default()
        },
    }
}

/// What is compared from one look to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    workers: Vec<WorkerSeen>,
    /// Relays that are open, and whether they listen.
    relays: BTreeMap<String, bool>,
    /// Relays that cannot be opened.
    unopened: BTreeSet<String>,
    /// Whether the controller is connected, where there is one.
    connected: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct WorkerSeen {
    backend: &'static str,
    reason: String,
    stalls: u64,
    pauses: [u64; PauseReason::ALL.len()],
    rebuilds: u64,
}

impl Seen {
    fn of(state: &State) -> Self {
        let backends = state.team.backends();
        let stats = state.team.stats().iter();
        let workers = stats.zip(&backends).map(|(stats, report)| WorkerSeen {
            backend: report.name,
            reason: report.reason.clone(),
            stalls: stats.stalls.get(),
            pauses: std::array::from_fn(|index| stats.accept_pauses[index].get()),
            rebuilds: stats.backend_rebuilds.get(),
        });
        let relays = state.team.relays();
        let relays = relays
            .iter()
            .map(|running| (running.relay.name.clone(), running.listens()));
        let unopened = state.relays.unopened();
        Seen {
            workers: workers.collect(),
            relays: relays.collect(),
            unopened: unopened.iter().map(|r| r.relay.name.clone()).collect(),
            connected: state.view.as_ref().map(|v| v.seen().connected.is_some()),
        }
    }

    /// What a process begins with: its backends, told once where all workers have the same.
    fn first(&self) -> Vec<Told> {
        let mut told = Vec::new();
        let of = |worker: &WorkerSeen| (worker.backend, worker.reason.clone());
        let kinds: BTreeSet<_> = self.workers.iter().map(of).collect();
        for (backend, reason) in kinds {
            let on = self.workers.iter();
            let count = on.filter(|w| (w.backend, &w.reason) == (backend, &reason));
            let workers = match count.count() {
                1 => "1 worker runs".to_owned(),
                count => format!("{count} workers run"),
            };
            told.push(Told::once(
                Kind::Backend,
                format!("{workers} on {backend}: {reason}"),
            ));
        }
        told
    }

    /// What changed since `before`.
    fn changes(&self, before: &Seen) -> Vec<Told> {
        let mut told = Vec::new();
        for (index, (worker, was)) in self.workers.iter().zip(&before.workers).enumerate() {
            worker.changes(was, index, &mut told);
        }
        for (name, listens) in &self.relays {
            let sentence = match (before.relays.get(name), listens) {
                (Some(was), is) if was == is => continue,
                (_, true) => format!("relay {name} listens"),
                (_, false) => format!("relay {name} is closed: its target refuses connections"),
            };
            told.push(Told::repeated(Kind::Relay, sentence, 1));
        }
        for name in before.relays.keys() {
            if !self.relays.contains_key(name) {
                let sentence = format!("relay {name} no longer listens");
                told.push(Told::once(Kind::Relay, sentence));
            }
        }
        for name in self.unopened.difference(&before.unopened) {
            let sentence = format!("relay {name} cannot be opened; it is tried again");
            told.push(Told::repeated(Kind::Relay, sentence, 1));
        }
        if self.connected != before.connected {
            let sentence = match self.connected {
                Some(true) => "connected to the controller",
                _ => "the connection to the controller is lost; relays go on as they are",
            };
            told.push(Told::repeated(Kind::Controller, sentence, 1));
        }
        told
    }
}

impl WorkerSeen {
    fn changes(&self, was: &WorkerSeen, index: usize, told: &mut Vec<Told>) {
        let more = |now: u64, then: u64| Some(now.saturating_sub(then)).filter(|more| *more > 0);
        if let Some(count) = more(self.stalls, was.stalls) {
            let sentence = format!("worker {index} stalled: pushback outlasted backoff.maxRetries");
            told.push(Told::repeated(Kind::Stall, sentence, count));
        }
        for (reason, (now, then)) in PauseReason::ALL
            .iter()
            .zip(self.pauses.iter().zip(&was.pauses))
        {
            if let Some(count) = more(*now, *then) {
                let sentence = format!("worker {index} paused accepting: {}", reason.label());
                told.push(Told::repeated(Kind::Gate, sentence, count));
            }
        }
        if self.backend != was.backend || self.reason != was.reason {
            let sentence = format!(
                "worker {index} runs on {}, and ran on {}: {}",
                self.backend, was.backend, self.reason
            );
            told.push(Told::repeated(Kind::Backend, sentence, 1));
        } else if let Some(count) = more(self.rebuilds, was.rebuilds) {
            let sentence = format!("worker {index} built its {} anew", self.backend);
            told.push(Told::repeated(Kind::Backend, sentence, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::History;
    use super::*;
    use crate::time::Time;

    fn worker() -> WorkerSeen {
        WorkerSeen {
            backend: "ring",
            reason: "io_uring works here".to_owned(),
            ..WorkerSeen::default()
        }
    }

    fn seen() -> Seen {
        Seen {
            workers: vec![worker(), worker()],
            relays: [("web".to_owned(), true)].into(),
            connected: Some(true),
            ..Seen::default()
        }
    }

    fn sentences(told: Vec<Told>) -> Vec<String> {
        let history = History::default();
        told.into_iter()
            .for_each(|told| history.tell(Time::ZERO, told));
        let events = history.since(0).events.into_iter();
        events
            .map(|event| format!("{} ({})", event.sentence, event.count))
            .collect()
    }

    #[test]
    fn workers_that_are_alike_are_told_together() {
        assert_eq!(
            sentences(seen().first()),
            ["2 workers run on ring: io_uring works here (1)"]
        );
    }

    #[test]
    fn nothing_is_told_where_nothing_changed() {
        assert!(seen().changes(&seen()).is_empty());
    }

    #[test]
    fn every_change_has_its_sentence() {
        let (before, mut after) = (seen(), seen());
        after.workers[1].stalls = 2;
        after.workers[1].pauses[PauseReason::ALL.len() - 1] = 40;
        after.workers[0].backend = "epoll";
        after.workers[0].reason = "the ring is forbidden".to_owned();
        after.relays = [("web".to_owned(), false), ("db".to_owned(), true)].into();
        after.unopened.insert("app".to_owned());
        after.connected = Some(false);
        assert_eq!(
            sentences(after.changes(&before)),
            [
                "worker 0 runs on epoll, and ran on ring: the ring is forbidden (1)",
                "worker 1 stalled: pushback outlasted backoff.maxRetries (2)",
                "worker 1 paused accepting: rate (40)",
                "relay db listens (1)",
                "relay web is closed: its target refuses connections (1)",
                "relay app cannot be opened; it is tried again (1)",
                "the connection to the controller is lost; relays go on as they are (1)",
            ]
        );
        after.relays.clear();
        assert_eq!(
            sentences(after.changes(&before))
                .iter()
                .filter(|s| s.contains("no longer"))
                .count(),
            1
        );
    }
}
