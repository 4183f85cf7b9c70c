//! All sidecars together: started, watched until they are where they should be, made to change.
//!
//! It owns their tasks and the folder of their tokens; all end with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use ringside::settings::controller::{self, Kept};
use ringside_e2e::apiserver::ApiServer;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::controller::Controller;
use crate::pods::Made;
use crate::sidecar::Sidecar;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Sidecars that change in a second while they flap.
const FLAPS_PER_SECOND: usize = 100;

pub(crate) struct Fleet {
    sidecars: Vec<Arc<Sidecar>>,
    ca: Vec<u8>,
    _tasks: JoinSet<()>,
    _folder: TempDir,
}

impl Fleet {
    /// Starts a sidecar for each pod, all at once.
    pub(crate) async fn start(
        server: &ApiServer,
        controller: &Controller,
        release: &str,
        pods: Vec<Made>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let secrets: Api<Secret> = Api::namespaced(server.client(), release);
        let secret = secrets.get("ringside-controller-tls").await;
        let data = secret.expect("the controller's certificates").data;
        let ca = data
            .and_then(|mut data| data.remove("ca.crt"))
            .expect("its CA");
        fs::write(folder.path().join("ca.pem"), &ca.0).expect("the CA is written");
        let epoch = Instant::now();
        let (mut sidecars, mut tasks) = (Vec::new(), JoinSet::new());
        for (index, Made { identity, token }) in pods.into_iter().enumerate() {
            let own = folder.path().join(index.to_string());
            fs::create_dir(&own).expect("a folder of its own");
            fs::write(own.join("token"), token).expect("its token is written");
            symlink("../ca.pem", own.join("ca.pem")).expect("its CA is there");
            let controller = controller::Controller {
                address: format!("https://{}", controller.tls)
                    .parse()
                    .expect("an address of a controller"),
                connect_to: Some(controller.tls),
                pod: identity,
                pod_files: own,
                state: None,
            };
            let sidecar = Arc::new(Sidecar::new(epoch));
            tasks.spawn(controller::work(
                controller,
                Kept::default(),
                sidecar.clone(),
            ));
            sidecars.push(sidecar);
        }
        Self {
            sidecars,
            ca: ca.0,
            _tasks: tasks,
            _folder: folder,
        }
    }

    /// By which the controller is trusted, in PEM.
    pub(crate) fn ca(&self) -> &[u8] {
        &self.ca
    }

    async fn until(&self, what: &str, holds: impl Fn(&Sidecar) -> bool) {
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
        let connected = |sidecar: &Sidecar| sidecar.connected_since().is_some_and(|at| at > begin);
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

    /// Changes the ClusterRelayPolicy; returns after how many seconds each sidecar ran it, counted from when the API server had it.
    pub(crate) async fn change(&self, server: &ApiServer, batch: u32) -> Vec<f64> {
        let begin = Instant::now();
        server.apply(&format!(
            "{{apiVersion: ringside.dev/v1alpha1, kind: ClusterRelayPolicy, metadata: {{name: default}}, spec: {{batch: {{max: {batch}}}}}}}"
        ));
        let applied = Instant::now();
        let runs = |sidecar: &Sidecar| sidecar.runs_since().is_some_and(|since| since > begin);
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
