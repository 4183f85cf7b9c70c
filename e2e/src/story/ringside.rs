//! Ringside on the cluster of the stories, as a user installs it: images loaded into every node, the chart by Helm, and awaited until it injects.
//! It owns the values that stories install with; the release stays, so that the next story finds it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use ringside_tests::http;
use serde_json::{Value, json};

use super::await_within;
use crate::chart::{self, NAMESPACE};
use crate::cluster::Cluster;

/// The release's name, and its namespace's.
pub const RELEASE: &str = NAMESPACE;

/// How long an installation may take that takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// The release on a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Ringside {
    cluster: &'static Cluster,
}

impl Ringside {
    /// Installs it, or upgrades to these values what is there, and waits until pods are injected. Does nothing slowly twice.
    ///
    /// # Panics
    /// If the images are not built, or it does not become ready.
    #[track_caller]
    pub fn installed(cluster: &'static Cluster) -> Self {
        Self::installed_with(cluster, &[])
    }

    /// The same with more flags for Helm, such as `--set=replicaCount=2`.
    ///
    /// # Panics
    /// As [`installed`](Self::installed).
    #[track_caller]
    pub fn installed_with(cluster: &'static Cluster, flags: &[&str]) -> Self {
        Self::load_images(cluster);
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut arguments = Self::arguments(&["upgrade", "--install"]);
        arguments.extend(flags);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        cluster.helm().run(&arguments);
        let ringside = Self { cluster };
        ringside.await_the_last();
        ringside.await_injection();
        ringside
    }

    /// Waits until all replicas are what they are to be.
    fn await_rollout(&self) {
        self.cluster.kubectl(&[
            "--namespace",
            RELEASE,
            "rollout",
            "status",
            "deployment/ringside-controller",
            "--timeout=120s",
        ]);
    }

    /// Waits until no replica is left that is to end: it answers webhooks for a while, as it was told to before.
    fn await_the_last(&self) {
        let ends = "jsonpath={.items[*].metadata.deletionTimestamp}";
        self.await_rollout();
        await_within(PATIENCE, "the end of the replicas before", || {
            self.ask_of_pods(ends).is_empty().then_some(())
        });
    }

    /// The release that a story has installed by itself.
    pub fn of(cluster: &'static Cluster) -> Self {
        Self { cluster }
    }

    /// The words for Helm that install it: `verb`, the release, the chart, and the stories' values.
    pub fn arguments(verb: &[&str]) -> Vec<String> {
        let chart = chart::folder();
        let mut words: Vec<String> = verb.iter().map(|word| (*word).to_owned()).collect();
        words.extend([
            RELEASE.to_owned(),
            chart.display().to_string(),
            format!("--namespace={RELEASE}"),
            "--create-namespace".to_owned(),
            "--wait".to_owned(),
            format!("--timeout={}s", PATIENCE.as_secs()),
            "--set=image.registry=localhost,sidecar.image.registry=localhost".to_owned(),
            "--set=metrics.annotations=true,readinessProbe.periodSeconds=1".to_owned(),
            // Nodes that are drained or lost are those of applications, unless a story says otherwise.
            r"--set=nodeSelector.kubernetes\.io/hostname=n1".to_owned(),
            // Images that were built anew have the same name: the controller is rolled over by this.
            format!("--set-string=podAnnotations.images={}", images_built()),
        ]);
        words
    }

    /// Loads both images into every node, once for each program of tests.
    ///
    /// # Panics
    /// If they are not built.
    #[track_caller]
    pub fn load_images(cluster: &Cluster) {
        static LOADED: OnceLock<()> = OnceLock::new();
        LOADED.get_or_init(|| {
            for archive in archives() {
                cluster.load(&archive);
            }
        });
    }

    /// Waits until the webhook injects: a pod that asks for it is made for trial, and not kept.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn await_injection(&self) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "trial", "namespace": "default", "labels": {"ringside.dev/inject": "enabled"}},
            "spec": {"containers": [{"name": "app", "image": "trial", "ports": [{"containerPort": 8080}]}]},
        })
        .to_string();
        let trial = ["create", "--dry-run=server", "--output=json", "-f", "-"];
        await_within(PATIENCE, "the webhook to inject", || {
            let made = self.cluster.try_kubectl_with(&trial, &pod).out;
            made.contains("ringside.dev/injected").then_some(())
        });
    }

    /// What kubectl prints of the controller's pods.
    #[track_caller]
    fn ask_of_pods(&self, output: &str) -> String {
        self.cluster.kubectl(&[
            "--namespace",
            RELEASE,
            "get",
            "pods",
            "--selector=app.kubernetes.io/component=controller",
            "--output",
            output,
        ])
    }

    /// The addresses of the controller's pods that are Ready, for probes, metrics and pages.
    #[track_caller]
    pub fn controllers(&self) -> Vec<SocketAddr> {
        let pods: Value =
            serde_json::from_str(&self.ask_of_pods("json")).expect("kubectl prints JSON");
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = pods.iter().filter(|pod| super::application::is_ready(pod));
        let addresses = ready.filter_map(|pod| pod["status"]["podIP"].as_str());
        let addresses = addresses.filter_map(|address| format!("{address}:8080").parse().ok());
        addresses.collect()
    }

    /// GETs a page of the controller, such as `/readyz/policies`: of the replica that leads.
    ///
    /// # Panics
    /// If nobody answers.
    #[track_caller]
    pub fn ask(&self, path: &str) -> http::Answer {
        let question = format!("the controller's answer about {path}");
        await_within(PATIENCE, &question, || {
            let controllers = self.controllers();
            let mut answers = controllers
                .into_iter()
                .filter_map(|address| self.cluster.inside(|| http::get(address, path)).ok());
            answers.find(|answer| answer.status != 421)
        })
    }

    /// Runs as many replicas of the controller, and waits until they are there or gone.
    ///
    /// # Panics
    /// If they do not come or go.
    #[track_caller]
    pub fn scale(&self, replicas: u32) {
        let deployment = "deployment/ringside-controller";
        let count = format!("--replicas={replicas}");
        self.cluster
            .kubectl(&["--namespace", RELEASE, "scale", deployment, &count]);
        let selector = "--selector=app.kubernetes.io/component=controller";
        if replicas == 0 {
            self.cluster.kubectl(&[
                "--namespace",
                RELEASE,
                "wait",
                "pod",
                selector,
                "--for=delete",
                "--timeout=120s",
            ]);
        } else {
            self.await_rollout();
            self.await_injection();
        }
    }
}

/// Where `make images` puts them.
fn archives() -> [PathBuf; 2] {
    ["ringside", "ringside-controller"].map(|name| {
        let archive = chart::project().join(format!("target/images/{name}.tar"));
        let missing = "there is no";
        assert!(
            archive.is_file(),
            "{missing} {}: `make images` builds it, and `make e2e` does so by itself",
            archive.display()
        );
        archive
    })
}

/// When the images were built, in seconds since 1970.
fn images_built() -> String {
    let times = archives().map(|archive| {
        let modified = fs::metadata(archive).and_then(|file| file.modified());
        let since = modified
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_secs())
    });
    format!("t{}", times.into_iter().max().unwrap_or_default())
}
