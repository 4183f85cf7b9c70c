//! Many pods of one namespace with a sidecar each, real or stubbed, at a real API server; a kubelet that probes them; and how many are
//! away at once.
//!
//! It owns the pods, their sidecars, the probing and the sampling, and ends all of them when it is dropped. It says nothing of
//! what should be: that is the tests'.

pub mod crowd;
pub mod sampling;
pub mod stub;

mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use ringside_api::sync::PodIdentity;
use ringside_tests::traffic::{Server, echo};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::apiserver::{ApiServer, Namespace};
use crate::identity;
use crate::kubelet::Kubelet;
pub use pod::{Kind, Member};
use sampling::{Sampler, Subject};
use stub::Speaker;

/// How often the kubelet compares what probes say with what the API server has.
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// Pods that are made at a time.
const AT_ONCE: usize = 8;

/// Pods with sidecars.
pub struct Fleet {
    // Ended in this order: those who look before those who are looked at.
    kubelet: JoinHandle<()>,
    /// Who is away.
    pub sampler: Arc<Sampler>,
    /// By their pods' names.
    pub members: BTreeMap<String, Member>,
    application: Server,
    client: Client,
    namespace: String,
    ca: String,
    /// What all of them run in: no test's own, as those wait by blocking.
    pub runtime: Runtime,
}

impl Fleet {
    /// A fleet without pods in `namespace`, whose sidecars trust a controller by `ca`.
    ///
    /// # Panics
    /// Without a runtime.
    pub fn new(server: &ApiServer, namespace: &Namespace<'_>, ca: &str) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for a fleet");
        let client = {
            let _inside = runtime.enter();
            server.client()
        };
        let sampler = Arc::new(Sampler::start());
        let kubelet = Kubelet::new(client.clone(), namespace.name(), "node");
        Self {
            kubelet: runtime.spawn(probe(kubelet, sampler.clone())),
            sampler,
            members: BTreeMap::new(),
            application: Server::tcp("127.0.0.1:0", echo),
            client,
            namespace: namespace.name().to_owned(),
            ca: ca.to_owned(),
            runtime,
        }
    }

    /// Adds pods of `app`, named `APP-NUMBER`, whose sidecars connect to `controller`.
    ///
    /// # Panics
    /// If the API server refuses them.
    #[track_caller]
    pub fn add(&mut self, app: &str, kinds: &[Kind], controller: SocketAddr) {
        let begun = self.members.len();
        let names: Vec<String> = (0..kinds.len())
            .map(|number| format!("{app}-{}", begun + number))
            .collect();
        let made = self.runtime.block_on(make(
            self.client.clone(),
            self.namespace.clone(),
            app.to_owned(),
            names.clone(),
        ));
        for ((name, kind), (pod, token)) in names.into_iter().zip(kinds).zip(made) {
            let speaker = Speaker {
                pod: PodIdentity {
                    namespace: self.namespace.clone(),
                    name: name.clone(),
                    uid: pod.uid().unwrap_or_default(),
                },
                token,
                ca: self.ca.clone(),
                connect_to: controller,
            };
            let member = Member::start(*kind, speaker, self.runtime.handle(), &self.application);
            member.await_ready();
            self.sampler.watch(&name, member.subject());
            self.members.insert(name, member);
        }
    }

    /// Deletes a pod as a user would: it is no member of its Services from then on.
    ///
    /// # Panics
    /// If there is none of that name.
    #[track_caller]
    pub fn delete(&mut self, name: &str) {
        let kubelet = Kubelet::new(self.client.clone(), &self.namespace, "node");
        // First: the controller may give its place to another as soon as it hears of it, which may be before the call is over.
        self.sampler.forget(name);
        self.runtime
            .block_on(kubelet.delete(name))
            .expect("the pod is deleted");
        assert!(self.members.remove(name).is_some(), "there is no {name}");
        self.runtime
            .block_on(kubelet.finish(name))
            .expect("the pod has ended");
    }

    /// Puts all under pressure, or takes it away.
    pub fn press(&mut self, pressed: bool) {
        self.press_some("", pressed);
    }

    /// Those whose name begins so.
    pub fn press_some(&mut self, prefix: &str, pressed: bool) {
        let some = self.members.iter_mut();
        for (_, member) in some.filter(|(name, _)| name.starts_with(prefix)) {
            member.press(pressed);
        }
    }

    /// Who holds a permit, of those whose name begins so.
    pub fn permits(&self, prefix: &str) -> Vec<String> {
        let some = self
            .members
            .iter()
            .filter(|(name, _)| name.starts_with(prefix));
        some.filter(|(_, member)| member.has_permit())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// How many of those whose name begins so were away at the last step.
    pub fn away(&self, prefix: &str) -> usize {
        let away = self.sampler.away();
        away.iter().filter(|name| name.starts_with(prefix)).count()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

/// Makes pods, running and ready, and a token for each.
async fn make(
    client: Client,
    namespace: String,
    app: String,
    names: Vec<String>,
) -> Vec<(Pod, String)> {
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let tasks: Vec<JoinHandle<(Pod, String)>> = names
        .into_iter()
        .map(|name| {
            let (client, namespace, app) = (client.clone(), namespace.clone(), app.clone());
            let at_once = at_once.clone();
            tokio::spawn(async move {
                let _turn = at_once.acquire().await;
                let kubelet = Kubelet::new(client.clone(), &namespace, "node");
                let fields = json!({
                    "metadata": {"name": name, "labels": {"app": app, "ringside.dev/inject": "enabled"},
                        "annotations": {"ringside.dev/injected": "test"}},
                    "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
                });
                let pod = kubelet.create(fields).await.expect("a pod");
                let token =
                    identity::token(&client, &namespace, "default", identity::AUDIENCE, Some(&pod));
                let token = token.await.expect("a token");
                kubelet.start(&name).await.expect("a running pod");
                (pod, token)
            })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        made.push(task.await.expect("a pod is made"));
    }
    made
}

/// Tells the API server of each change of readiness that `sampler` sees, as a kubelet's probes do; it never ends by itself.
pub async fn probe(kubelet: Kubelet, sampler: Arc<Sampler>) {
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        let away: BTreeSet<String> = sampler.away().into_iter().collect();
        let back = told.difference(&away).map(|name| (name.clone(), true));
        let gone = away.difference(&told).map(|name| (name.clone(), false));
        let changed: Vec<(String, bool)> = back.chain(gone).collect();
        let telling = stream::iter(changed).map(|(name, ready)| {
            let kubelet = &kubelet;
            async move { (kubelet.set_ready(&name, ready).await.is_ok(), name, ready) }
        });
        let mut telling = telling.buffer_unordered(AT_ONCE);
        while let Some((is_told, name, ready)) = telling.next().await {
            // A pod that is gone meanwhile needs no word; any other is told again.
            if is_told && !ready {
                told.insert(name);
            } else {
                told.remove(&name);
            }
        }
    }
}

/// In which order subjects are asked is the sampler's.
impl Member {
    fn subject(&self) -> Subject {
        match self {
            Self::Stubbed(stub) => {
                let process = stub.process();
                Subject::Asked(Box::new(move || process.is_away()))
            }
            Self::Real(real) => Subject::Probed(real.admin()),
        }
    }
}
