//! Figures of each relay, under the label `relay`, summed over workers.

use super::families::{Families, Kind};
use crate::backend::handshake::Answer;
use crate::flow::CloseReason;
use crate::process::State;
use crate::target_check::reach::Verdict;
use crate::worker::stats::RelayStats;
use crate::worker::team::{RelayCounts, RunningRelay};

/// The two directions, in the order in which they are counted.
const DIRECTIONS: [&str; 2] = ["to_upstream", "to_client"];

pub(super) fn add(families: &mut Families, state: &State) {
    let counted = state.team.counted();
    let family = families.family(
        "ringside_connections_opened_total",
        "Connections accepted.",
        Kind::Counter,
    );
    for counts in &counted {
        let opened = sum(counts, |stats| stats.opened.get());
        family.add(&[("relay", &counts.name)], opened);
    }
    let family = families.family(
        "ringside_connections_closed_total",
        "Connections ended, by reason; each has exactly one.",
        Kind::Counter,
    );
    for counts in &counted {
        for reason in CloseReason::ALL {
            let labels = [("relay", counts.name.as_str()), ("reason", reason.label())];
            let closed = sum(counts, |stats| stats.closed[reason.index()].get());
            family.add(&labels, closed);
        }
    }
    let family = families.family(
        "ringside_relayed_bytes_total",
        "Bytes passed on, by direction.",
        Kind::Counter,
    );
    for counts in &counted {
        for (index, direction) in DIRECTIONS.iter().enumerate() {
            let labels = [("relay", counts.name.as_str()), ("direction", *direction)];
            let bytes = sum(counts, |stats| stats.relayed_bytes[index].get());
            family.add(&labels, bytes);
        }
    }
    let running = state.team.relays();
    let family = families.family(
        "ringside_relay_listening",
        "Whether the relay listens (1), or is closed because its target refuses, or was removed and has connections left (0).",
        Kind::Gauge,
    );
    for counts in &counted {
        let listens = running
            .iter()
            .any(|r| r.relay.name == counts.name && r.listens());
        let value = f64::from(u8::from(listens));
        family.add(&[("relay", &counts.name)], value);
    }
    let family = families.family(
        "ringside_target_addresses",
        "Addresses that the relay's target has now; with none its connections are closed with the reason no_address.",
        Kind::Gauge,
    );
    for relay in &running {
        let addresses = relay.relay.addresses.load().len() as f64;
        family.add(&[("relay", &relay.relay.name)], addresses);
    }
    checks(families, &running);
}

fn checks(families: &mut Families, running: &[RunningRelay]) {
    let family = families.family(
        "ringside_target_reachable",
        "Whether the relay's target takes connections (1) or refuses them (0), by checks (targetCheck); not there before the first one.",
        Kind::Gauge,
    );
    for relay in running {
        let value = match relay.checked.reach.verdict() {
            Verdict::Unknown => continue,
            Verdict::Taking => 1.0,
            Verdict::Refusing => 0.0,
        };
        family.add(&[("relay", &relay.relay.name)], value);
    }
    let family = families.family(
        "ringside_target_checks_total",
        "Checks of the relay's target since the relay listens there, by outcome; only refused ones close its listener.",
        Kind::Counter,
    );
    for relay in running {
        for answer in Answer::ALL {
            let labels = [
                ("relay", relay.relay.name.as_str()),
                ("outcome", answer.label()),
            ];
            family.add(&labels, relay.checked.answers[answer.index()] as f64);
        }
    }
}

fn sum(counts: &RelayCounts, value: impl Fn(&RelayStats) -> u64) -> f64 {
    let all = counts.stats.iter().map(|stats| value(stats));
    all.sum::<u64>() as f64
}
