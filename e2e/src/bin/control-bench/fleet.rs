//! All sidecars together: started, watched until they are where they should be, made to change.
//!
//! It owns them, and they end with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringside::settings::controller::Outcome;
use ringside_e2e::apiserver::ApiServer;
use ringside_e2e::fleet::stub::{Manner, Speaker, Stub, Stubbed};
use ringside_e2e::installation::{Controller, Installation};

use crate::pods::Made;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Which looks more rarely than a real one, of which there is one in a process, and shares no disk with thousands.
const MANNER: Manner = Manner {
    looks_every: Duration::from_secs(1),
    keeps: false,
};

/// Sidecars that change in a second while they flap.
const FLAPS_PER_SECOND: usize = 100;

pub(crate) struct Fleet {
    sidecars: Vec<Arc<Stubbed>>,
    ca: String,
    _stubs: Vec<Stub>,
}

impl Fleet {
    /// Starts a sidecar for each pod, all at once.
    pub(crate) fn start(
        installation: &Installation<'_>,
        controller: &Controller,
        pods: Vec<Made>,
    ) -> Self {
        let ca = installation.ca_pem();
        let runtime = tokio::runtime::Handle::current();
        let speakers = pods.into_iter().map(|Made { identity, token }| Speaker {
            pod: identity,
            token,
            ca: ca.clone(),
            connect_to: controller.tls,
        });
        let stubs: Vec<Stub> = speakers
            .map(|speaker| Stub::start_as(&runtime, &speaker, MANNER))
            .collect();
        Self {
            sidecars: stubs.iter().map(Stub::process).collect(),
            ca,
            _stubs: stubs,
        }
    }

    /// By which the controller is trusted, in PEM.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    async fn until(&self, what: &str, holds: impl Fn(&Stubbed) -> bool) {
        let begin = Instant::now();
        loop {
            let holding = self
                .sidecars
                .iter()
                .filter(|sidecar| holds(sidecar))
                .count();
            if holding == self.sidecars.len() {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{holding} of {} sidecars {what} after {PATIENCE:?}",
                self.sidecars.len()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all have a connection that was made after `begin`, and an answer on it or a call that is held.
    pub(crate) async fn all_connected_since(&self, begin: Instant) {
        let connected = |sidecar: &Stubbed| sidecar.connected_since().is_some_and(|at| at > begin);
        self.until("are connected", connected).await;
    }

    /// Waits until all run something.
    pub(crate) async fn all_run_something(&self) {
        self.until("run what they are told", |sidecar| {
            sidecar.runs_since().is_some()
        })
        .await;
    }

    /// How the connections that there are were made: most in one second.
    pub(crate) fn storm(&self, begin: Instant) -> String {
        let mut seconds = std::collections::BTreeMap::<u64, usize>::new();
        for at in self
            .sidecars
            .iter()
            .filter_map(|sidecar| sidecar.connected_since())
        {
            *seconds
                .entry(at.saturating_duration_since(begin).as_secs())
                .or_default() += 1;
        }
        let most = seconds.values().max().copied().unwrap_or(0);
        format!("at most {most} connections in a second")
    }

    /// How calls came out so far, in the order of [`Outcome::ALL`].
    pub(crate) fn outcomes(&self) -> Vec<u64> {
        let of = |outcome| {
            self.sidecars
                .iter()
                .map(move |sidecar| sidecar.calls(outcome))
        };
        Outcome::ALL.map(|outcome| of(outcome).sum()).to_vec()
    }

    /// What came of the calls since `before` that were not answered.
    pub(crate) fn failed_since(&self, before: &[u64]) -> String {
        let now = self.outcomes();
        let failed = Outcome::ALL.iter().zip(now.iter().zip(before));
        let told: Vec<String> = failed
            .filter(|(outcome, (now, before))| **outcome != Outcome::Answered && now > before)
            .map(|(outcome, (now, before))| format!("{} {}", now - before, outcome.label()))
            .collect();
        told.join(", ")
    }

    /// Changes the ClusterRelayPolicy; returns after how many seconds each sidecar ran it, counted from when the API server had it.
    pub(crate) async fn change(&self, server: &ApiServer, batch: u32) -> Vec<f64> {
        let begin = Instant::now();
        server.apply(&format!(
            "{{apiVersion: ringside.dev/v1alpha1, kind: ClusterRelayPolicy, metadata: {{name: default}}, spec: {{batch: {{max: {batch}}}}}}}"
        ));
        let applied = Instant::now();
        let runs = |sidecar: &Stubbed| sidecar.runs_since().is_some_and(|since| since > begin);
        self.until("run the change", runs).await;
        let since = self
            .sidecars
            .iter()
            .filter_map(|sidecar| sidecar.runs_since());
        since
            .map(|since| since.saturating_duration_since(applied).as_secs_f64())
            .collect()
    }

    /// Has sidecars change between ready and not for a while; returns how many changes there were.
    pub(crate) async fn flap(&self, duration: Duration) -> usize {
        let begin = Instant::now();
        let (mut changes, mut next) = (0, 0);
        while begin.elapsed() < duration {
            for _ in 0..FLAPS_PER_SECOND / 10 {
                self.sidecars[next % self.sidecars.len()].flip();
                // A prime, so that all namespaces have their share.
                next += 7;
                changes += 1;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        changes
    }
}
