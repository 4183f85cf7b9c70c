//! Those who need an answering controller all the time: somebody who makes pods that ask for a relay, for trial, and somebody who connects to its
//! Service, as an API server does that goes by kube-proxy's rules. Each owns a thread, and tells every time that it was in vain.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::RELEASE;
use serde_json::json;

/// Between two pods, or two connections.
const PAUSE: Duration = Duration::from_millis(40);

/// How long a connection may take: as long as the API server waits for a webhook.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// One of them, until it is ended or dropped.
pub(crate) struct Admission {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

/// What became of what was tried.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Pods that would have got their relay, or connections.
    pub(crate) good: u64,
    /// What was in vain: when since the begin, and why.
    pub(crate) others: Vec<(Duration, String)>,
}

impl Admission {
    /// Makes pods in a namespace.
    pub(crate) fn of_pods(cluster: &Cluster, namespace: &str) -> Self {
        let (config, namespace) = (cluster.config(), namespace.to_owned());
        Self::begin(move |stop| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for pods on trial");
            runtime.block_on(make_pods(config, &namespace, stop))
        })
    }

    /// Connects to the controller's Service.
    pub(crate) fn of_connections(cluster: &'static Cluster) -> Self {
        let address = "--output=jsonpath={.spec.clusterIP}";
        let words = ["get", "service", "ringside-controller", address];
        let address = cluster.kubectl(&[&["--namespace", RELEASE], &words[..]].concat());
        let address = format!("{address}:443")
            .parse()
            .expect("the Service's address");
        Self::begin(move |stop| cluster.inside(|| connect(address, stop)))
    }

    fn begin(work: impl FnOnce(&AtomicBool) -> Seen + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || work(&stopped));
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

async fn make_pods(config: Config, namespace: &str, stop: &AtomicBool) -> Seen {
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
                    seen.good += 1;
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

fn connect(address: SocketAddr, stop: &AtomicBool) -> Seen {
    let (mut seen, begin) = (Seen::default(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let at = begin.elapsed();
        match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
            Ok(_) => seen.good += 1,
            Err(error) => seen.others.push((at, error.to_string())),
        }
        thread::sleep(PAUSE);
    }
    seen
}
