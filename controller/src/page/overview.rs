//! What the page shows, as it is served in JSON: this replica, every policy, and the pods that one looks for first.
//!
//! It owns which pods those are where there are more than a page can show. Pure but for reading the fleet.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use ringside_api::sync::Leave;
use serde::Serialize;

use crate::fleet::{Fleet, ObservedPod, Sidecar};
use crate::http::Sources;
use crate::leader::Leadership;
use crate::policies::Name;
use crate::status::{conditions_of, readiness};

/// Pods that are listed at most: the worst off.
const PODS_MOST: usize = 500;

/// All of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Overview {
    version: &'static str,
    /// Whether this replica answers sidecars and writes statuses; another one knows no pods' state.
    leads: bool,
    /// Where the leader is, if this replica is not it.
    leader: Option<String>,
    calls_open: u64,
    policies: Vec<Policy>,
    pods_in_all: usize,
    totals: Totals,
    pods: Vec<Pod>,
}

/// Every pod with a relay, counted.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    /// Those whose relay takes connections, also where they would leave and may not.
    ready: u32,
    /// Those that are not ready for another reason than pressure.
    not_ready: u32,
    /// Those that left for pressure.
    away: u32,
    /// Those that would leave and may not.
    held: u32,
    /// Those whose sidecar has not called, or not for long.
    unknown: u32,
    connections: u64,
    /// Of the pod that has the highest share.
    pushback_percent: u32,
}

/// A condition of a policy, as its status has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    kind: String,
    is_true: bool,
    reason: String,
    message: String,
}

/// A policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    /// Empty for the cluster's.
    namespace: String,
    name: String,
    /// Why it is not accepted.
    problem: Option<String>,
    is_ready: bool,
    /// The sentence of its condition Ready.
    told: String,
    matched: u32,
    programmed: u32,
    ready: u32,
    away: u32,
    held: u32,
    unknown: u32,
    may_be_unready: u32,
    connections: u64,
    backends: BTreeMap<String, u32>,
    conditions: Vec<Condition>,
}

/// A pod with a relay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    namespace: String,
    name: String,
    /// Empty where it obeys none but the cluster's.
    policy: String,
    state: &'static str,
    /// Why, in the sidecar's words.
    reason: String,
    pushback_percent: u32,
    connections: u64,
    backend: String,
    backend_reason: String,
    version: String,
    /// The hash of the settings that it runs.
    runs: String,
    /// Why it refused the last ones.
    refused: Option<String>,
}

impl Overview {
    pub(super) fn of(sources: &Sources) -> Self {
        let sync = &sources.sync;
        let (leads, leader) = match sync.leadership() {
            Leadership::Leads => (true, None),
            Leadership::Follows { leader } => (false, leader),
        };
        let calls_open = sync.counts.open.load(std::sync::atomic::Ordering::Relaxed);
        let now = sync.now();
        let names = sync.fleet().policies().names();
        // One at a time, so that no sidecar waits for the whole.
        let policies = names
            .into_iter()
            .filter_map(|name| Policy::of(&sync.fleet(), name, now));
        let mut policies: Vec<Policy> = policies.collect();
        policies.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let (totals, connections, pods_in_all, pods) = {
            let fleet = sync.fleet();
            let (totals, connections) = count(&fleet);
            let (pods_in_all, pods) = pods(&fleet);
            (totals, connections, pods_in_all, pods)
        };
        for policy in &mut policies {
            // The cluster's policy is everybody's.
            policy.connections = match policy.namespace.as_str() {
                "" => totals.connections,
                namespace => {
                    let of = (namespace.to_owned(), policy.name.clone());
                    connections.get(&of).copied().unwrap_or(0)
                }
            };
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            leads,
            leader,
            calls_open,
            policies,
            totals,
            pods_in_all,
            pods,
        }
    }
}

impl Policy {
    fn of(fleet: &Fleet, name: Name, now: std::time::Duration) -> Option<Self> {
        let verdict = fleet.policies().verdict(&name)?;
        let summary = fleet.summary(&name, now);
        let (is_ready, told) = readiness(fleet, &name, now);
        let conditions = conditions_of(fleet, &name, &summary, now).into_iter();
        let conditions = conditions.map(|condition| Condition {
            is_true: condition.status == "True",
            kind: condition.type_,
            reason: condition.reason,
            message: condition.message,
        });
        let conditions = conditions.collect();
        let (namespace, name) = name;
        Some(Self {
            namespace,
            name,
            problem: verdict.problem,
            is_ready,
            told,
            matched: summary.matched,
            programmed: summary.programmed,
            ready: summary.ready,
            away: summary.away.count,
            held: summary.held.count,
            unknown: summary.unknown.count,
            may_be_unready: summary.may_be_unready,
            connections: 0,
            backends: summary.backends.clone(),
            conditions,
        })
    }
}

/// All pods counted, and the connections of each policy's.
fn count(fleet: &Fleet) -> (Totals, HashMap<(String, String), u64>) {
    let mut totals = Totals::default();
    let mut connections: HashMap<(&str, &str), u64> = HashMap::new();
    for (observed, policy, sidecar) in fleet.pods() {
        let state = sidecar.map(|sidecar| &sidecar.report.state);
        let is_away = state.is_some_and(|state| state.leave == Leave::Away);
        let takes = sidecar.is_some_and(|sidecar| !sidecar.is_unknown && sidecar.is_ready());
        totals.ready += u32::from(takes && observed.is_ready);
        match urgency(observed, sidecar) {
            0 => {}
            1 => totals.unknown += 1,
            2 => totals.not_ready += 1,
            _ if is_away => totals.away += 1,
            _ => totals.held += 1,
        }
        if let Some(state) = state {
            totals.connections += state.connections;
            totals.pushback_percent = totals.pushback_percent.max(state.pushback_percent);
            let of = (observed.identity.namespace.as_str(), policy);
            *connections.entry(of).or_default() += state.connections;
        }
    }
    let owned = connections
        .into_iter()
        .map(|((namespace, policy), open)| ((namespace.to_owned(), policy.to_owned()), open));
    (totals, owned.collect())
}

/// How many pods there are, and those that are worst off.
fn pods(fleet: &Fleet) -> (usize, Vec<Pod>) {
    let mut all: Vec<_> = fleet.pods().collect();
    let count = all.len();
    let rank = |(observed, _, sidecar): &(&ObservedPod, &str, Option<&Sidecar>)| {
        let pushback = sidecar.map_or(0, |sidecar| sidecar.report.state.pushback_percent);
        (Reverse(urgency(observed, *sidecar)), Reverse(pushback))
    };
    if count > PODS_MOST {
        // The rest need no order.
        all.select_nth_unstable_by_key(PODS_MOST, rank);
        all.truncate(PODS_MOST);
    }
    all.sort_by(|a, b| {
        let (a_name, b_name) = (&a.0.identity, &b.0.identity);
        rank(a).cmp(&rank(b)).then_with(|| a_name.cmp(b_name))
    });
    let pods = all.into_iter();
    let pods = pods.map(|(observed, policy, sidecar)| Pod::of(observed, policy, sidecar));
    (count, pods.collect())
}

/// What is looked for first: 3 away or wanting to go, 2 not ready, 1 unknown, 0 ready.
fn urgency(observed: &ObservedPod, sidecar: Option<&Sidecar>) -> u8 {
    match sidecar {
        None => 1,
        Some(sidecar) if sidecar.is_unknown => 1,
        Some(sidecar) if sidecar.report.state.leave != Leave::Stays => 3,
        Some(sidecar) if sidecar.is_ready() && observed.is_ready => 0,
        Some(_) => 2,
    }
}

impl Pod {
    fn of(observed: &ObservedPod, policy: &str, sidecar: Option<&Sidecar>) -> Self {
        let report = sidecar.map(|sidecar| sidecar.report.clone());
        let report = report.unwrap_or_default();
        let state = match (urgency(observed, sidecar), report.state.leave) {
            (3, Leave::Away) => "away",
            (3, _) => "held",
            (2, _) if report.state.draining => "ending",
            (2, _) => "not ready",
            (1, _) => "unknown",
            _ => "ready",
        };
        Self {
            namespace: observed.identity.namespace.clone(),
            name: observed.identity.name.clone(),
            policy: policy.to_owned(),
            state,
            reason: report.state.reason,
            pushback_percent: report.state.pushback_percent,
            connections: report.state.connections,
            backend: report.state.backend,
            backend_reason: report.state.backend_reason,
            version: report.version,
            runs: report.runs,
            refused: report.refused.map(|refused| refused.why),
        }
    }
}
