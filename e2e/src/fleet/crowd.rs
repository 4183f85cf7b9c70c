//! Thousands of stubbed sidecars in this process, for benchmarks: started, watched until they are where they should be, made to change.
//!
//! It owns them, and they end with it. It makes no pods, and measures nothing but what the sidecars themselves see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringside::settings::controller::Outcome;
use ringside_api::sync::PodIdentity;

use super::stub::{Manner, Speaker, Stub, Stubbed};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Which looks more rarely than a real one, of which there is one in a process, and shares no disk with thousands.
const MANNER: Manner = Manner {
    looks_every: Duration::from_secs(1),
    keeps: false,
};

/// Sidecars that change in a second while they flap.
const FLAPS_PER_SECOND: usize = 100;

/// A pod, and what its sidecar shows.
#[derive(Debug)]
pub struct Made {
    /// The pod.
    pub identity: PodIdentity,
    /// Its token.
    pub token: String,
    /// By which it trusts the controller, in PEM.
    pub ca: String,
}

/// The sidecars of many pods.
#[derive(Debug)]
pub struct Crowd {
    names: Vec<String>,
    sidecars: Vec<Arc<Stubbed>>,
    _stubs: Vec<Stub>,
}

impl Crowd {
    /// Starts a sidecar for each pod, all at once, within the runtime that this is called in.
    ///
    /// # Panics
    /// Without a runtime, or without folders for the pods' volumes.
    pub fn start(controller: SocketAddr, pods: Vec<Made>) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let names = pods.iter().map(|pod| pod.identity.name.clone()).collect();
        let speakers = pods.into_iter().map(|pod| Speaker {
            pod: pod.identity,
            token: pod.token,
            ca: pod.ca,
            connect_to: controller,
        });
        let stubs: Vec<Stub> = speakers
            .map(|speaker| Stub::start_as(&runtime, &speaker, MANNER))
            .collect();
        Self {
            names,
            sidecars: stubs.iter().map(Stub::process).collect(),
            _stubs: stubs,
        }
    }

    /// Each sidecar with its pod's name.
    pub fn sidecars(&self) -> impl Iterator<Item = (&str, &Arc<Stubbed>)> {
        self.names.iter().map(String::as_str).zip(&self.sidecars)
    }

    /// Puts all under pressure, or takes it away.
    pub fn press(&self, pressed: bool) {
        for sidecar in &self.sidecars {
            sidecar.press(pressed);
        }
    }

    /// Waits until `holds` for each sidecar of a pod whose name begins with `prefix`.
    ///
    /// # Panics
    /// After five minutes, with how many `what`.
    pub async fn until(&self, prefix: &str, what: &str, holds: impl Fn(&Stubbed) -> bool) {
        let begin = Instant::now();
        loop {
            let of: Vec<_> = self
                .sidecars()
                .filter(|(name, _)| name.starts_with(prefix))
                .collect();
            let holding = of.iter().filter(|(_, sidecar)| holds(sidecar)).count();
            if holding == of.len() {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{holding} of {} sidecars {what} after {PATIENCE:?}",
                of.len()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all have a connection that was made after `begin`, and an answer on it or a call that is held.
    pub async fn all_connected_since(&self, begin: Instant) {
        let connected = |sidecar: &Stubbed| sidecar.connected_since().is_some_and(|at| at > begin);
        self.until("", "are connected", connected).await;
    }

    /// Waits until all run something.
    pub async fn all_run_something(&self) {
        self.until("", "run what they are told", |sidecar| {
            sidecar.runs_since().is_some()
        })
        .await;
    }

    /// How the connections that there are were made: most in one second.
    pub fn storm(&self, begin: Instant) -> String {
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
    pub fn outcomes(&self) -> Vec<u64> {
        let of = |outcome| {
            self.sidecars
                .iter()
                .map(move |sidecar| sidecar.calls(outcome))
        };
        Outcome::ALL.map(|outcome| of(outcome).sum()).to_vec()
    }

    /// What came of the calls since `before` that were not answered.
    pub fn failed_since(&self, before: &[u64]) -> String {
        let now = self.outcomes();
        let failed = Outcome::ALL.iter().zip(now.iter().zip(before));
        let told: Vec<String> = failed
            .filter(|(outcome, (now, before))| **outcome != Outcome::Answered && now > before)
            .map(|(outcome, (now, before))| format!("{} {}", now - before, outcome.label()))
            .collect();
        told.join(", ")
    }

    /// Has `change` change what the sidecars of pods whose name begins with `prefix` are to run; returns after how many seconds each of them ran
    /// it, counted from when `change` was done: from 0 on.
    ///
    /// # Panics
    /// If they do not run it within five minutes.
    pub async fn changed(&self, prefix: &str, change: impl FnOnce()) -> Vec<f64> {
        let begin = Instant::now();
        change();
        let changed = Instant::now();
        let runs = |sidecar: &Stubbed| sidecar.runs_since().is_some_and(|since| since > begin);
        self.until(prefix, "run the change", runs).await;
        let of = self
            .sidecars()
            .filter(|(name, _)| name.starts_with(prefix))
            .filter_map(|(_, sidecar)| sidecar.runs_since());
        of.map(|since| since.saturating_duration_since(changed).as_secs_f64())
            .collect()
    }

    /// Has sidecars change between ready and not for a while; returns how many changes there were.
    pub async fn flap(&self, duration: Duration) -> usize {
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
