//! Writes policies' statuses by server-side apply, as often as the pace allows, several at a time.
//!
//! Only a leader writes, which is looked at before each write: a round may take long. What fails is tried again, each policy by itself and
//! ever more slowly.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use ringside_api::resources::{ClusterRelayPolicy, PolicyStatus, RelayPolicy};
use serde_json::json;

use super::conditions::keep_pods;
use super::events::Events;
use super::pace::{Due, Pace};
use super::status;
use super::uninjected::Uninjected;
use crate::answered::answered;
use crate::leader::Leadership;
use crate::policies::{Name, Verdict};
use crate::sync::Sync;

/// Who writes, as the API server knows it.
pub const FIELD_MANAGER: &str = "ringside-controller";

/// How often it is looked whether something is to be written.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(250);

/// After a failed write the policy's next one waits so long, then twice as long each time.
const RETRIED_AFTER: Duration = Duration::from_secs(1);
const RETRIED_AFTER_MOST: Duration = Duration::from_secs(60);

/// Statuses that are being written at a time: a thousand policies that come at once are told of in seconds, and of an API server's hundreds
/// of places most are left to others.
const WRITES_AT_ONCE: usize = 32;

/// What was written, for metrics.
#[derive(Debug, Default)]
pub struct Written {
    /// Statuses.
    pub statuses: AtomicU64,
    /// Writes that failed.
    pub failed: AtomicU64,
    /// Events.
    pub events: AtomicU64,
}

/// A policy whose last write failed.
#[derive(Clone, Copy, Debug)]
struct Failing {
    next_at: Duration,
    wait: Duration,
}

/// What is to be said of a policy.
struct Said {
    verdict: Verdict,
    status: PolicyStatus,
    due: Due,
    object: Object,
}

/// What came of it.
struct Outcome {
    said: Said,
    /// The version of the object that has the status, where it was due.
    written: Option<kube::Result<u64>>,
    /// Whether there is an Event that it is not accepted.
    is_told: bool,
}

/// A policy, and the UID of the object that has its name now.
type Object = (Name, String);

/// Writes statuses, and Events when a policy or its pods call for them.
pub struct Writer {
    client: Client,
    sync: Arc<Sync>,
    pace: Pace<Object>,
    failing: HashMap<Name, Failing>,
    /// Policies that are not accepted and have been told so: as which object, of which generation.
    invalid: HashMap<Name, (String, i64)>,
    events: Events,
    written: Arc<Written>,
}

impl Writer {
    /// Nothing is written yet.
    pub fn new(
        client: Client,
        sync: Arc<Sync>,
        uninjected: Arc<Mutex<Uninjected>>,
        identity: &str,
        written: Arc<Written>,
    ) -> Self {
        let events = Events::new(
            client.clone(),
            sync.clone(),
            uninjected,
            identity,
            written.clone(),
        );
        Self {
            client,
            sync,
            pace: Pace::default(),
            failing: HashMap::new(),
            invalid: HashMap::new(),
            events,
            written,
        }
    }

    /// Writes for ever, while this replica leads.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOKED_AT_EVERY).await;
            if self.leads() {
                self.round().await;
            } else {
                // Another one writes now; what it wrote is not known here.
                self.pace = Pace::default();
                self.events.forget();
            }
        }
    }

    fn leads(&self) -> bool {
        self.sync.leadership() == Leadership::Leads
    }

    async fn round(&mut self) {
        let now = self.sync.now();
        let names = self.sync.fleet().policies().names();
        let said = names
            .clone()
            .into_iter()
            .filter_map(|name| self.say(name, now));
        let outcomes = said.map(|said| self.tell(said));
        let outcomes: Vec<Outcome> = stream::iter(outcomes)
            .buffer_unordered(WRITES_AT_ONCE)
            .collect()
            .await;
        let mut objects = HashSet::with_capacity(outcomes.len());
        for Outcome {
            said,
            written,
            is_told,
        } in outcomes
        {
            objects.insert(said.object.clone());
            let name = said.object.0.clone();
            match written {
                Some(Ok(version)) => {
                    self.written.statuses.fetch_add(1, Ordering::Relaxed);
                    self.failing.remove(&name);
                    self.pace.wrote(said.object, said.status, version, now);
                }
                Some(Err(error)) => self.failed(&name, &error, now),
                None => {}
            }
            if said.verdict.problem.is_none() {
                self.invalid.remove(&name);
            } else if is_told {
                let which = (said.verdict.uid, said.verdict.generation);
                self.invalid.insert(name, which);
            }
        }
        let names: HashSet<&Name> = names.iter().collect();
        self.pace
            .keep_only(|object| objects.contains(object) || self.failing.contains_key(&object.0));
        self.failing.retain(|name, _| names.contains(name));
        self.invalid.retain(|name, _| names.contains(name));
        if self.leads() {
            self.events.tell().await;
        }
    }

    /// What is to be said of a policy now; nothing of one that is gone, or whose last write has failed just now, and nothing any more once
    /// another replica leads.
    fn say(&self, name: Name, now: Duration) -> Option<Said> {
        if !self.leads() {
            return None;
        }
        let waits = |failing: &Failing| now < failing.next_at;
        if self.failing.get(&name).is_some_and(waits) {
            return None;
        }
        let time = Timestamp::now();
        let since = |at: Duration| {
            let ago = SignedDuration::try_from(now.saturating_sub(at)).unwrap_or_default();
            time.checked_sub(ago).unwrap_or(time)
        };
        let fleet = self.sync.fleet();
        let verdict = fleet.policies().verdict(&name)?;
        let summary = fleet.summary(&name, now);
        let seen = fleet.policies().status(&name);
        let object = (name.clone(), verdict.uid.clone());
        let told = seen.and_then(|seen| seen.status.as_ref());
        let before = self.pace.last(&object).or(told);
        let mut status = status(&verdict, &summary, before, time, since);
        if let Some(before) = before.filter(|_| fleet.is_settling(&summary, now)) {
            keep_pods(&mut status, before);
        }
        let due = self.pace.due(&object, &status, seen, now);
        Some(Said {
            verdict,
            status,
            due,
            object,
        })
    }

    /// Writes the status if it is due, and an Event if the policy has become one that is not accepted.
    async fn tell(&self, said: Said) -> Outcome {
        let name = &said.object.0;
        let written = match said.due {
            Due::Now => Some(self.write(name, &said.status).await),
            Due::Nothing | Due::At(_) => None,
        };
        let Verdict {
            uid,
            generation,
            problem,
            ..
        } = &said.verdict;
        let mut is_told = false;
        // The write may have taken long.
        if let Some(problem) = problem
            && self.leads()
            && said.due != Due::Nothing
            && self.invalid.get(name) != Some(&(uid.clone(), *generation))
        {
            self.events.tell_of_policy(name, uid, problem).await;
            is_told = true;
        }
        Outcome {
            said,
            written,
            is_told,
        }
    }

    /// Returns the version of the object that has it. What else is in the object may be unreadable, and is not read.
    async fn write(&self, (namespace, name): &Name, status: &PolicyStatus) -> kube::Result<u64> {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let version = RelayPolicy::api_version(&());
        let metadata = if namespace.is_empty() {
            let patch = Patch::Apply(
                json!({"apiVersion": version, "kind": "ClusterRelayPolicy", "status": status}),
            );
            let policies: Api<PartialObjectMeta<ClusterRelayPolicy>> =
                Api::all(self.client.clone());
            let written = answered(policies.patch_status(name, &parameters, &patch)).await?;
            written.metadata
        } else {
            let patch = Patch::Apply(
                json!({"apiVersion": version, "kind": "RelayPolicy", "status": status}),
            );
            let policies: Api<PartialObjectMeta<RelayPolicy>> =
                Api::namespaced(self.client.clone(), namespace);
            let written = answered(policies.patch_status(name, &parameters, &patch)).await?;
            written.metadata
        };
        let version = metadata
            .resource_version
            .and_then(|version| version.parse().ok());
        Ok(version.unwrap_or_default())
    }

    fn failed(&mut self, name: &Name, error: &kube::Error, now: Duration) {
        self.written.failed.fetch_add(1, Ordering::Relaxed);
        let wait = match self.failing.get(name) {
            Some(failing) => (failing.wait * 2).min(RETRIED_AFTER_MOST),
            None => RETRIED_AFTER,
        };
        tracing::warn!(namespace = name.0, policy = name.1, retried_in = ?wait, "the status could not be written: {error}");
        let next_at = now + wait;
        self.failing.insert(name.clone(), Failing { next_at, wait });
    }
}
