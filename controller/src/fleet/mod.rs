//! The fleet: every pod with a relay, what its sidecar says, what it is answered, and whether it may leave.
//!
//! Pure: told what was observed and when, it says which pods' answers have changed. It owns all that the controller knows of pods;
//! a pod that has not called is Unknown and never counts as ready. It never waits, writes or asks.

mod news;
pub mod permits;
mod pod;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::core::ObjectMeta;
use ringside_api::resources::PodFacts;
use ringside_api::sync::{Answer, Assigned, Mark, Offer, PodIdentity, Report};

use crate::policies::{Policies, SeenStatus};
pub use news::Change;
use news::News;
use permits::{Permits, PodId};
use pod::{Group, LeaveAnswered, Pod};
pub use pod::{ObservedPod, Sidecar};
pub use summary::{Named, Summary, Worst};

/// A sidecar without a call for so long is Unknown: calls follow one another at once, and a reconnect takes 20 s at most.
pub const SILENT_AFTER: Duration = Duration::from_secs(25);

/// A pod that was called back has so long to become ready: its sidecar hears of it, takes connections, and a kubelet has to see that.
pub const RETURNS_WITHIN: Duration = Duration::from_secs(15);

/// What is to be done with a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// Answer it so.
    Answer(Box<Answer>),
    /// Nothing to say yet: look again at this moment, or when the pod is stirred.
    Wait(Duration),
    /// The pod made another call meanwhile, or is gone.
    Over,
}

/// All pods with a relay.
#[derive(Debug)]
pub struct Fleet {
    session: u64,
    /// When this leadership began; `None` before the first.
    led_at: Option<Duration>,
    /// How long a call is held when there is nothing to say.
    hold: Duration,
    policies: Policies,
    pods: HashMap<PodId, Pod>,
    by_uid: HashMap<String, PodId>,
    by_namespace: HashMap<String, BTreeSet<PodId>>,
    groups: HashMap<Group, Permits>,
    unsettled: BTreeSet<Group>,
    next_pod: PodId,
    calls: u64,
    /// Pods that have called and have no call open.
    quiet: BTreeSet<PodId>,
    /// Pods that were called back and are not ready again, and since when that is known.
    returning: HashMap<PodId, Duration>,
    news: News,
    /// Pods whose answer may have changed and who have not been told.
    stirred: BTreeSet<PodId>,
}

impl Fleet {
    /// An empty fleet. `session` names this leadership: any random number but 0.
    pub fn new(session: u64, hold: Duration) -> Self {
        Self {
            session,
            led_at: None,
            hold,
            policies: Policies::default(),
            pods: HashMap::new(),
            by_uid: HashMap::new(),
            by_namespace: HashMap::new(),
            groups: HashMap::new(),
            unsettled: BTreeSet::new(),
            next_pod: 0,
            calls: 0,
            quiet: BTreeSet::new(),
            returning: HashMap::new(),
            news: News::default(),
            stirred: BTreeSet::new(),
        }
    }

    /// Leads from now on, under a session of its own: what sidecars said to another leader, or to this one before, is not known
    /// any more. Every pod is Unknown until it calls, so that no permit is given twice.
    pub fn lead(&mut self, session: u64, now: Duration) {
        self.session = session;
        self.led_at = Some(now);
        self.news.of_all();
        self.quiet.clear();
        let pods: Vec<PodId> = self.pods.keys().copied().collect();
        for id in pods {
            if let Some(pod) = self.pods.get_mut(&id) {
                pod.sidecar = None;
                let standing = pod.standing();
                if let Some(permits) = self.groups.get_mut(&pod.group) {
                    permits.bring(id, standing, false);
                    self.unsettled.insert(pod.group.clone());
                }
                self.stirred.insert(id);
            }
        }
        self.settle();
    }

    /// The policies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Takes a policy's status as it is now. Returns whether that is all that can have changed, so that no pod is concerned.
    pub fn take_status(&mut self, metadata: &ObjectMeta, status: Option<SeenStatus>) -> bool {
        self.policies.take_status(metadata, status)
    }

    /// Whether pods that have not called are no news yet: all of them lost their controller when this leadership began, and have
    /// [`SILENT_AFTER`] to come back.
    pub fn is_settling(&self, summary: &Summary, now: Duration) -> bool {
        let begun = self.led_at.unwrap_or_default();
        summary.unknown.count > 0 && now < begun + SILENT_AFTER
    }

    /// Pods whose annotation names a policy that is not there, and its name.
    pub fn pods_missing_policy(&self) -> impl Iterator<Item = (&PodIdentity, &str)> {
        self.pods.values().filter_map(|pod| {
            let missing = pod.missing_policy.as_deref()?;
            Some((&pod.observed.identity, missing))
        })
    }

    /// Changes policies, and then what the pods concerned obey: those of a namespace, or all.
    pub fn change_policies(&mut self, namespace: Option<&str>, change: impl FnOnce(&mut Policies)) {
        change(&mut self.policies);
        self.news.of_all();
        let concerned: Vec<PodId> = match namespace {
            Some(namespace) => self
                .by_namespace
                .get(namespace)
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            None => self.pods.keys().copied().collect(),
        };
        for pod in concerned {
            self.assign(pod);
        }
        self.settle();
    }

    /// Changes policies as one of many in a list, whose pods are judged once at its end, by [`judge_all`](Self::judge_all).
    pub fn list_policies(&mut self, change: impl FnOnce(&mut Policies)) {
        change(&mut self.policies);
        self.news.of_all();
    }

    /// Works out anew what every pod obeys.
    pub fn judge_all(&mut self) {
        self.change_policies(None, |_| {});
    }

    /// What policies assign to a pod that is about to be, as far as they are accepted.
    pub fn assigned(&self, namespace: &str, pod: &PodFacts<'_>) -> Assigned {
        let chosen = self.policies.choose(namespace, pod).policy;
        self.policies
            .first_assignment(namespace, chosen.unwrap_or_default())
    }

    /// Takes a pod as the API server has it.
    pub fn observe(&mut self, observed: ObservedPod) {
        if observed.has_ended || !observed.is_injected {
            return self.forget(&observed.identity.uid);
        }
        let uid = &observed.identity.uid;
        let id = match self.by_uid.get(uid) {
            Some(&id) => id,
            None => {
                let id = self.next_pod;
                self.next_pod += 1;
                self.by_uid.insert(uid.clone(), id);
                let namespace = observed.identity.namespace.clone();
                self.by_namespace.entry(namespace).or_default().insert(id);
                id
            }
        };
        match self.pods.get_mut(&id) {
            Some(pod) => pod.observed = observed,
            None => {
                self.pods.insert(id, Pod::new(observed));
            }
        }
        self.assign(id);
        self.settle();
    }

    /// Forgets a pod that is gone.
    pub fn forget(&mut self, uid: &str) {
        let Some(id) = self.by_uid.remove(uid) else {
            return;
        };
        self.quiet.remove(&id);
        if let Some(pod) = self.pods.remove(&id) {
            let namespace = &pod.observed.identity.namespace;
            self.news.of(namespace);
            if let Some(pods) = self.by_namespace.get_mut(namespace) {
                pods.remove(&id);
                if pods.is_empty() {
                    self.by_namespace.remove(namespace);
                    self.news.of_all();
                }
            }
            self.leave_group(id, &pod.group);
            pod.stir();
        }
        self.settle();
    }

    /// Forgets all pods but these, as after a list of all that there are.
    pub fn keep_only(&mut self, uids: &std::collections::HashSet<String>) {
        let gone: Vec<String> = self
            .by_uid
            .keys()
            .filter(|uid| !uids.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.forget(&uid);
        }
    }

    fn leave_group(&mut self, id: PodId, group: &Group) {
        if let Some(permits) = self.groups.get_mut(group) {
            permits.remove(id);
            if permits.is_empty() {
                self.groups.remove(group);
                self.unsettled.remove(group);
            } else {
                self.unsettled.insert(group.clone());
            }
        }
    }

    /// Works out which policy a pod obeys.
    fn assign(&mut self, id: PodId) {
        let Some(pod) = self.pods.get_mut(&id) else {
            return;
        };
        let observed = &pod.observed;
        let namespace = observed.identity.namespace.clone();
        self.news.of(&namespace);
        let facts = PodFacts {
            labels: Some(&observed.labels),
            named_policy: observed.named_policy.as_deref(),
        };
        let choice = self.policies.choose(&namespace, &facts);
        let policy = choice.policy.unwrap_or_default().to_owned();
        pod.losers = choice.losers.into_iter().map(str::to_owned).collect();
        pod.missing_policy = choice.missing.map(str::to_owned);
        let assignment = self.policies.assignment(&namespace, &policy);
        let group = Group { namespace, policy };
        let before = std::mem::replace(&mut pod.group, group.clone());
        if pod
            .assignment
            .as_ref()
            .is_none_or(|known| **known != *assignment)
        {
            self.stirred.insert(id);
        }
        let percent = assignment.max_unready_percent;
        pod.assignment = Some(assignment);
        let standing = pod.standing();
        let mut brings = false;
        if before != group {
            brings = self
                .groups
                .get(&before)
                .is_some_and(|permits| permits.is_given(id));
            self.leave_group(id, &before);
        }
        let permits = self.groups.entry(group.clone()).or_default();
        permits.set_max_unready_percent(percent);
        if brings {
            permits.bring(id, standing, true);
        } else {
            permits.set(id, standing);
        }
        self.unsettled.insert(group);
    }

    /// A pod's number; `None` while the API server has not told of it.
    pub fn find(&self, identity: &PodIdentity) -> Option<PodId> {
        self.by_uid.get(&identity.uid).copied()
    }

    /// What wakes a pod's call when its answer may have changed.
    pub fn waiter(&self, pod: PodId) -> Option<Arc<tokio::sync::Notify>> {
        self.pods.get(&pod).map(|pod| pod.waiter.clone())
    }

    /// A call begins. Returns its number: the one before, if it is still open, is over. `None` where the pod is gone.
    pub fn begin_call(&mut self, id: PodId, report: Report, now: Duration) -> Option<u64> {
        let session = self.session;
        let pod = self.pods.get_mut(&id)?;
        self.calls += 1;
        let call = self.calls;
        // What another leader gave stays given, so that nobody comes back only because the leader is another one.
        let brings = pod.sidecar.is_none() && report.permit;
        if pod.take_report(report, call, session, now) {
            self.news.of(&pod.observed.identity.namespace);
        }
        self.quiet.remove(&id);
        pod.stir();
        let (standing, group) = (pod.standing(), pod.group.clone());
        let permits = self.groups.entry(group.clone()).or_default();
        if brings {
            permits.bring(id, standing, true);
        } else {
            permits.set(id, standing);
        }
        self.unsettled.insert(group);
        self.settle();
        Some(call)
    }

    /// A call has ended without an answer, because the other side is gone.
    pub fn end_call(&mut self, id: PodId, call: u64, now: Duration) {
        let Some(pod) = self.pods.get_mut(&id) else {
            return;
        };
        if pod.end_call(call, now) {
            self.quiet.insert(id);
            self.restand(id);
            self.settle();
        }
    }

    /// Pods that have not called for long are Unknown from now on, and those that were called back and are not ready for long come back no
    /// more.
    pub fn expire(&mut self, now: Duration) {
        let mut returning = HashMap::new();
        for (group, permits) in &mut self.groups {
            let all: Vec<PodId> = permits.returning().collect();
            for id in all {
                let since = self.returning.get(&id).copied().unwrap_or(now);
                if now.saturating_sub(since) < RETURNS_WITHIN {
                    returning.insert(id, since);
                } else {
                    permits.stays_unready(id);
                    self.unsettled.insert(group.clone());
                }
            }
        }
        self.returning = returning;
        let is_silent = |id: &PodId| {
            let pod = self.pods.get(id);
            pod.is_none_or(|pod| pod.is_silent(now, SILENT_AFTER))
        };
        let silent: Vec<PodId> = self.quiet.iter().copied().filter(is_silent).collect();
        for id in silent {
            self.quiet.remove(&id);
            let Some(pod) = self.pods.get_mut(&id) else {
                continue;
            };
            self.news.of(&pod.observed.identity.namespace);
            if let Some(sidecar) = &mut pod.sidecar {
                sidecar.is_unknown = true;
            }
            self.restand(id);
        }
        self.settle();
    }

    fn restand(&mut self, id: PodId) {
        if let Some(pod) = self.pods.get(&id)
            && let Some(permits) = self.groups.get_mut(&pod.group)
        {
            permits.set(id, pod.standing());
            self.unsettled.insert(pod.group.clone());
        }
    }

    /// Settles who has a permit, and wakes the calls of those whose answer may have changed.
    fn settle(&mut self) {
        for group in std::mem::take(&mut self.unsettled) {
            let Some(permits) = self.groups.get_mut(&group) else {
                continue;
            };
            self.stirred.extend(permits.settle());
        }
        for id in std::mem::take(&mut self.stirred) {
            if let Some(pod) = self.pods.get(&id) {
                pod.stir();
            }
        }
    }

    /// What to do with an open call at this moment. An answer ends it.
    pub fn turn(&mut self, id: PodId, call: u64, now: Duration) -> Turn {
        let (session, hold) = (self.session, self.hold);
        let Some(pod) = self.pods.get_mut(&id) else {
            return Turn::Over;
        };
        let Some(permits) = self.groups.get(&pod.group) else {
            return Turn::Over;
        };
        let permit = permits.is_given(id);
        let leave = pod.leave_answer(permit, permits, now);
        let assignment = pod.assignment.clone();
        let Some(sidecar) = pod
            .sidecar
            .as_mut()
            .filter(|sidecar| sidecar.call == Some(call))
        else {
            return Turn::Over;
        };
        let (leave, look_again) = match leave {
            Ok(leave) => (leave, None),
            Err(until) => (None, Some(until)),
        };
        let offer = assignment
            .map(|assignment| assignment.offer.clone())
            .unwrap_or_default();
        let report = &sidecar.report;
        let has_news = match &offer {
            Offer::Keep(_) => false,
            Offer::Run(assigned) => {
                let is_refused = report
                    .refused
                    .as_ref()
                    .is_some_and(|refused| refused.hash == assigned.hash);
                report.runs != assigned.hash && !is_refused
            }
        };
        let due = sidecar.called_at + hold;
        let answer_leave_at = match &leave {
            None => due,
            Some(leave) => sidecar.answer_leave_at(leave, session, now).min(due),
        };
        if !(report.at_once || has_news || report.permit != permit || now >= answer_leave_at) {
            return Turn::Wait(look_again.unwrap_or(due).min(answer_leave_at));
        }
        sidecar.answers += 1;
        let mark = Mark {
            session,
            number: sidecar.answers,
        };
        if permit {
            sidecar.permit_given_by = Some(mark.number);
        }
        sidecar.call = None;
        self.quiet.insert(id);
        sidecar.called_at = now;
        sidecar.leave_answer = leave.clone().map(|answer| LeaveAnswered {
            answer,
            number: mark.number,
            at: now,
        });
        let answer = Answer {
            mark,
            offer,
            permit,
            leave,
            ca: None,
            sidecars: u32::try_from(self.pods.len()).unwrap_or(u32::MAX),
        };
        self.restand(id);
        self.settle();
        Turn::Answer(Box::new(answer))
    }

    /// Every pod, for the page and for metrics: who it is, what it obeys, and what its sidecar last said.
    pub fn pods(&self) -> impl Iterator<Item = (&ObservedPod, &str, Option<&Sidecar>)> {
        self.pods.values().map(|pod| {
            (
                &pod.observed,
                pod.group.policy.as_str(),
                pod.sidecar.as_ref(),
            )
        })
    }
}
