//! A policy's pods, counted for its status: how many run its settings, take connections, run on which backend, and who is worst off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringside_api::resources::status::WORST_PODS_MOST;
use ringside_api::sync::Leave;

use super::permits::PodId;
use super::pod::Pod;
use super::{Change, Fleet};
use crate::policies::Name;

/// Names that a sentence lists at most.
const NAMES_MOST: usize = 3;

/// A pod under pushback.
#[derive(Clone, Debug, PartialEq)]
pub struct Worst {
    /// Its name, with its namespace before a slash where the policy is the cluster's.
    pub name: String,
    /// Its share of pushback, in percent.
    pub pushback_percent: u32,
    /// Since when, on the clock that the fleet is told.
    pub since: Option<Duration>,
}

/// Pods of which something is said: how many, and the first few by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many.
    pub count: u32,
    /// A few of them.
    pub names: Vec<String>,
}

impl Named {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.names.len() < NAMES_MOST {
            self.names.push(name());
        }
    }
}

impl std::fmt::Display for Named {
    /// Such as `api-1, api-2 and 3 more`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.names.join(", "))?;
        match self.count as usize - self.names.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A policy's pods, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// All of them.
    pub matched: u32,
    /// Those that run its settings.
    pub programmed: u32,
    /// Those that take connections.
    pub ready: u32,
    /// Relays by backend.
    pub backends: BTreeMap<String, u32>,
    /// The most that may be unready at once.
    pub may_be_unready: u32,
    /// The worst off, worst first.
    pub worst: Vec<Worst>,
    /// Pods that have not called, or not for long.
    pub unknown: Named,
    /// Pods that refused the settings, with the first one's reason.
    pub refusing: Named,
    /// The reason of the first of them.
    pub refusal: String,
    /// Pods that are away for pressure.
    pub away: Named,
    /// Pods that want to leave and may not.
    pub held: Named,
    /// Pods that it selects and that obey another policy.
    pub lost: u32,
    /// That other policy, of the first of them.
    pub lost_to: String,
}

impl Fleet {
    /// Moves on whenever something has changed that a [`summary`](Self::summary), or [`pods`](Self::pods) of who leaves, would show.
    pub fn last_change(&self) -> Change {
        self.news.last(None)
    }

    /// A policy's pods, counted; for the ClusterRelayPolicy, all. While nothing changes it is what it was.
    pub fn summary(&self, policy: &Name, now: Duration) -> Arc<Summary> {
        self.news.summary(policy, || self.count(policy, now))
    }

    fn count(&self, policy: &Name, now: Duration) -> Summary {
        let mut summary = Summary::default();
        let of_namespace = self.by_namespace.get(&policy.0).into_iter().flatten();
        let all: Box<dyn Iterator<Item = &PodId>> = if policy.0.is_empty() {
            Box::new(self.pods.keys())
        } else {
            Box::new(of_namespace)
        };
        for pod in all.filter_map(|id| self.pods.get(id)) {
            if policy.0.is_empty() || pod.group.policy == policy.1 {
                summary.add(pod, policy.0.is_empty(), now);
            } else if pod.losers.contains(&policy.1) {
                summary.add_lost(&pod.group.policy);
            }
        }
        summary.finish();
        summary
    }
}

impl Summary {
    pub(super) fn add(&mut self, pod: &Pod, with_namespace: bool, now: Duration) {
        // Of few pods anything is said by name.
        let name = || {
            let identity = &pod.observed.identity;
            if with_namespace {
                format!("{}/{}", identity.namespace, identity.name)
            } else {
                identity.name.clone()
            }
        };
        self.matched += 1;
        if let Some(assignment) = &pod.assignment {
            let percent = assignment.max_unready_percent;
            self.may_be_unready = self.may_be_unready.max(percent);
        }
        let Some(sidecar) = pod.sidecar.as_ref().filter(|sidecar| !sidecar.is_unknown) else {
            self.unknown.add(name);
            return;
        };
        let (report, state) = (&sidecar.report, &sidecar.report.state);
        self.ready += u32::from(sidecar.is_ready() && pod.observed.is_ready);
        match self.backends.get_mut(&state.backend) {
            Some(pods) => *pods += 1,
            None => {
                self.backends.insert(state.backend.clone(), 1);
            }
        }
        if let Some(ringside_api::sync::Offer::Run(assigned)) =
            pod.assignment.as_ref().map(|assignment| &assignment.offer)
        {
            self.programmed += u32::from(report.runs == assigned.hash);
            if let Some(refused) = report
                .refused
                .as_ref()
                .filter(|refused| refused.hash == assigned.hash)
            {
                if self.refusing.count == 0 {
                    self.refusal.clone_from(&refused.why);
                }
                self.refusing.add(name);
            }
        }
        match state.leave {
            Leave::Stays => {}
            Leave::Wants => self.held.add(name),
            Leave::Away => self.away.add(name),
        }
        if let Some(millis) = state.pushed_back_for_millis {
            self.worst.push(Worst {
                name: name(),
                pushback_percent: state.pushback_percent,
                since: now.checked_sub(Duration::from_millis(millis)),
            });
        }
    }

    pub(super) fn add_lost(&mut self, to: &str) {
        if self.lost == 0 {
            to.clone_into(&mut self.lost_to);
        }
        self.lost += 1;
    }

    pub(super) fn finish(&mut self) {
        self.may_be_unready = (self.matched * self.may_be_unready).div_ceil(100);
        self.worst.sort_by(|a, b| {
            (b.pushback_percent, a.since, &a.name).cmp(&(a.pushback_percent, b.since, &b.name))
        });
        self.worst.truncate(WORST_PODS_MOST);
    }
}
