//! Events about policies that are not accepted, and about pods: those that leave and come back, name a policy that is not there, or ask for
//! a relay and have none.
//!
//! Only a leader tells. What is told once is told no more while it lasts; what fails is a line at debug, or told again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as StoredEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::core::Status;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};
use ringside_api::resources::RelayPolicy;
use ringside_api::sync::{Leave, PodIdentity};

use super::uninjected::{Uninjected, Why};
use super::writer::{FIELD_MANAGER, Written};
use crate::answered::answered;
use crate::fleet::Change;
use crate::leader::Leadership;
use crate::policies::Name;
use crate::sync::Sync;

/// Events for one look at the fleet at most: a fleet that leaves as a whole is told of in its policy's conditions.
const EVENTS_AT_ONCE: usize = 20;

/// The longest note that an API server takes, in characters.
const NOTE_CHARACTERS_MOST: usize = 1_000;

/// Writes Events, and knows what has been told.
pub(super) struct Events {
    client: Client,
    sync: Arc<Sync>,
    recorder: Recorder,
    away: HashMap<PodIdentity, Leave>,
    /// The fleet's last change when pods were last looked at, and nothing of them was left to tell.
    told_at: Option<Change>,
    /// Pods' UIDs, with the policy that they name and that is not there.
    missing: HashSet<(String, String)>,
    uninjected: Arc<Mutex<Uninjected>>,
    identity: String,
    written: Arc<Written>,
}

impl Events {
    /// Nothing is told yet.
    pub(super) fn new(
        client: Client,
        sync: Arc<Sync>,
        uninjected: Arc<Mutex<Uninjected>>,
        identity: &str,
        written: Arc<Written>,
    ) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            sync,
            away: HashMap::new(),
            told_at: None,
            missing: HashSet::new(),
            uninjected,
            identity: identity.to_owned(),
            written,
        }
    }

    /// Another replica tells now; what it has told is not known here.
    pub(super) fn forget(&mut self) {
        self.away.clear();
        self.told_at = None;
    }

    /// Whether this replica still tells: what was begun may take long.
    fn leads(&self) -> bool {
        self.sync.leadership() == Leadership::Leads
    }

    /// All that is to be told of pods now.
    pub(super) async fn tell(&mut self) {
        let change = self.sync.fleet().last_change();
        if self.told_at != Some(change) {
            // Both, whatever is left of the first.
            let all = self.tell_of_pods().await & self.tell_of_missing_policies().await;
            self.told_at = all.then_some(change);
        }
        self.tell_of_uninjected().await;
    }

    /// A policy that is not accepted, and why.
    pub(super) async fn tell_of_policy(&self, (namespace, name): &Name, uid: &str, problem: &str) {
        let kind = if namespace.is_empty() {
            "ClusterRelayPolicy"
        } else {
            "RelayPolicy"
        };
        let reference = ObjectReference {
            api_version: Some(RelayPolicy::api_version(&()).into_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(name.clone()),
            // By which kubectl describe finds it.
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.publish(&reference, EventType::Warning, "NotAccepted", problem)
            .await;
    }

    /// Pods that left or came back since the last look. Returns whether all is told.
    async fn tell_of_pods(&mut self) -> bool {
        let now: HashMap<PodIdentity, (Leave, String)> = {
            let fleet = self.sync.fleet();
            let leaving = fleet.pods().filter_map(|(observed, _, sidecar)| {
                let state = &sidecar.filter(|sidecar| !sidecar.is_unknown)?.report.state;
                let is_told = state.leave != Leave::Stays;
                is_told.then(|| {
                    (
                        observed.identity.clone(),
                        (state.leave, state.reason.clone()),
                    )
                })
            });
            leaving.collect()
        };
        let mut told = 0;
        for (pod, (leave, reason)) in &now {
            if !self.leads() {
                return false;
            }
            if self.away.get(pod) == Some(leave) || told >= EVENTS_AT_ONCE {
                continue;
            }
            told += 1;
            let (event, note) = match leave {
                Leave::Away => (
                    "LeftService",
                    format!("The relay has taken its pod out of its Services: {reason}"),
                ),
                _ => (
                    "LeaveDenied",
                    format!("The relay stays in its Services although {reason}"),
                ),
            };
            self.publish(&reference(pod), EventType::Warning, event, &note)
                .await;
            self.away.insert(pod.clone(), *leave);
        }
        let back: Vec<PodIdentity> = self
            .away
            .keys()
            .filter(|pod| !now.contains_key(pod))
            .cloned()
            .collect();
        for pod in back {
            if !self.leads() {
                return false;
            }
            let was = self.away.remove(&pod);
            if was == Some(Leave::Away)
                && told < EVENTS_AT_ONCE
                && self.sync.fleet().find(&pod).is_some()
            {
                told += 1;
                self.publish(
                    &reference(&pod),
                    EventType::Normal,
                    "CameBack",
                    "The relay takes connections again",
                )
                .await;
            }
        }
        told < EVENTS_AT_ONCE
    }

    /// Pods that name a policy that is not there: they obey whichever selects them. Returns whether all is told.
    async fn tell_of_missing_policies(&mut self) -> bool {
        let now: Vec<(PodIdentity, String)> = {
            let fleet = self.sync.fleet();
            let missing = fleet.pods_missing_policy();
            missing
                .map(|(pod, policy)| (pod.clone(), policy.to_owned()))
                .collect()
        };
        let there: HashSet<(String, String)> = now
            .iter()
            .map(|(pod, policy)| (pod.uid.clone(), policy.clone()))
            .collect();
        self.missing.retain(|missing| there.contains(missing));
        let mut told = 0;
        for (pod, policy) in now {
            if !self.leads() {
                return false;
            }
            if told >= EVENTS_AT_ONCE || !self.missing.insert((pod.uid.clone(), policy.clone())) {
                continue;
            }
            told += 1;
            let note = format!(
                "Its annotation ringside.dev/policy names the RelayPolicy {policy}, which is not in its namespace: it obeys the one that selects it, if any"
            );
            self.publish(
                &reference(&pod),
                EventType::Warning,
                "PolicyNotFound",
                &note,
            )
            .await;
        }
        told < EVENTS_AT_ONCE
    }

    /// Pods that ask for a relay and have none.
    async fn tell_of_uninjected(&self) {
        let uninjected = || {
            self.uninjected
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let untold = uninjected().untold(EVENTS_AT_ONCE);
        for (pod, why) in untold {
            if !self.leads() {
                return;
            }
            match self.create_once(&pod, &why).await {
                Ok(()) => uninjected().told(&pod.uid, &why),
                Err(error) => {
                    // All of them are tried again.
                    tracing::debug!("an Event could not be written: {error}");
                    return;
                }
            }
        }
    }

    /// An Event that is there once for each pod and reason, also when another replica leads: its name says which it is.
    async fn create_once(&self, pod: &PodIdentity, why: &Why) -> kube::Result<()> {
        let event = StoredEvent {
            metadata: ObjectMeta {
                name: Some(format!(
                    "ringside.{}.{}",
                    pod.uid,
                    why.reason.to_lowercase()
                )),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some("Inject".to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(why.note.chars().take(NOTE_CHARACTERS_MOST).collect()),
            reason: Some(why.reason.to_owned()),
            regarding: Some(reference(pod)),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            type_: Some("Warning".to_owned()),
            ..StoredEvent::default()
        };
        let events: Api<StoredEvent> = Api::namespaced(self.client.clone(), &pod.namespace);
        match answered(events.create(&PostParams::default(), &event)).await {
            Ok(_) => {
                self.written.events.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            // It is there already; or the namespace ends, with the pod in it.
            Err(kube::Error::Api(status)) if is_settled(&status) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn publish(
        &self,
        reference: &ObjectReference,
        kind: EventType,
        reason: &str,
        note: &str,
    ) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE_CHARACTERS_MOST).collect()),
            action: reason.to_owned(),
            secondary: None,
        };
        match answered(self.recorder.publish(&event, reference)).await {
            Ok(()) => {
                self.written.events.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tracing::debug!("an Event could not be written: {error}"),
        }
    }
}

/// Whether an Event that was refused is not to be tried again. A mere 403 is: an API server that has just started knows no roles yet.
fn is_settled(status: &Status) -> bool {
    let ends = status.code == 403 && status.message.contains("is being terminated");
    ends || matches!(status.code, 404 | 409 | 422)
}

fn reference(pod: &PodIdentity) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}
