//! Somebody who makes pods that ask for a relay all the time, for trial: nothing is kept of them. It owns a thread, and tells each pod that would
//! have been made without a relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use ringside_e2e::cluster::Cluster;
use serde_json::json;

/// Between two pods.
const PAUSE: Duration = Duration::from_millis(40);

/// Pods that are made for trial, until it is ended or dropped.
pub(crate) struct Admission {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Those that would have got their relay.
    pub(crate) injected: u64,
    /// Those that would not, or could not be made: when since the begin, and why.
    pub(crate) others: Vec<(Duration, String)>,
}

impl Admission {
    /// Begins with them in a namespace.
    pub(crate) fn watch(cluster: &Cluster, namespace: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, config, namespace) =
            (Arc::clone(&stop), cluster.config(), namespace.to_owned());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for pods on trial");
            runtime.block_on(go_on(config, &namespace, &stopped))
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("a thread that does not panic")
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn go_on(config: Config, namespace: &str, stop: &AtomicBool) -> Seen {
    let client = Client::try_from(config).expect("a client of a kubeconfig that was read before");
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let trial = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod = json!({
        "metadata": {"name": "trial", "labels": {"ringside.dev/inject": "enabled"}},
        "spec": {"containers": [{"name": "app", "image": "trial", "ports": [{"containerPort": 8080}]}]},
    });
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let (mut seen, begin) = (Seen::default(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let at = begin.elapsed();
        match pods.create(&trial, &pod).await {
            Ok(made) => {
                let annotations = made.metadata.annotations.unwrap_or_default();
                if annotations.contains_key("ringside.dev/injected") {
                    seen.injected += 1;
                } else {
                    seen.others.push((at, "no relay".to_owned()));
                }
            }
            Err(error) => seen.others.push((at, error.to_string())),
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}
