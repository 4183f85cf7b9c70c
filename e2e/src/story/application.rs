//! The application of the stories as objects of Kubernetes: `story-app` behind a relay, a Service before it, and pods of it that are asked what
//! they do. It owns how they look; stories change what they want in the JSON.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ringside_tests::http;
use ringside_tests::metrics::Metrics;
use ringside_tests::skip::build_folder;
use serde_json::{Value, json};

use super::await_within;
use crate::apiserver::Namespace;
use crate::chart::project;
use crate::cluster::Cluster;

/// The image of `story-app`.
pub const APP_IMAGE: &str = "localhost/story-app:e2e";

/// The image of the relay under the fault injector, for the annotation `ringside.dev/image`: the relay's program is that of the shipped image.
pub const INJECTED_SIDECAR_IMAGE: &str = "localhost/ringside-inject:e2e";

/// Where that injector takes orders, among the sidecar's own files.
pub const INJECTOR_SOCKET: &str = "/var/lib/ringside/inject.sock";

/// How long pods may take for what takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// An application with so many pods, and what they are.
#[derive(Clone, Debug)]
pub struct Application {
    cluster: &'static Cluster,
    namespace: Arc<Namespace<'static>>,
    name: String,
}

impl Application {
    /// Makes a Deployment and a Service `name`, with port 80 leading to the relay `web`, and waits until all pods are Ready. `change` may change the
    /// Deployment before.
    ///
    /// # Panics
    /// If it cannot be made, or is not Ready in time.
    #[track_caller]
    pub fn deploy(
        cluster: &'static Cluster,
        namespace: &Arc<Namespace<'static>>,
        name: &str,
        replicas: u32,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let application = Self::apply(cluster, namespace, name, replicas, change);
        application.await_rollout();
        application
    }

    /// The same without the wait.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn apply(
        cluster: &'static Cluster,
        namespace: &Arc<Namespace<'static>>,
        name: &str,
        replicas: u32,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        load_image(cluster);
        let mut deployment = deployment(name, replicas);
        change(&mut deployment);
        let objects =
            json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service(name)]});
        namespace.apply(&objects.to_string());
        Self {
            cluster,
            namespace: Arc::clone(namespace),
            name: name.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until all pods of its newest template are Ready and no others are left.
    ///
    /// # Panics
    /// If they are not in time.
    #[track_caller]
    pub fn await_rollout(&self) {
        let deployment = format!("deployment/{}", self.name);
        let wait = ["rollout", "status", &deployment, "--timeout=180s"];
        self.namespace.kubectl(&wait);
    }

    /// Its pods as the API server has them, also those that are about to go.
    #[track_caller]
    pub fn pods(&self) -> Vec<Value> {
        let selector = format!("--selector=app={}", self.name);
        let pods = ["get", "pods", &selector, "--output=json"];
        let pods: Value =
            serde_json::from_str(&self.namespace.kubectl(&pods)).expect("kubectl prints JSON");
        pods["items"].as_array().cloned().unwrap_or_default()
    }

    /// The names of its pods that are not about to go, with their addresses.
    #[track_caller]
    pub fn addresses(&self) -> BTreeMap<String, String> {
        let pods = self.pods();
        let living = pods
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let addresses = living.map(|pod| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (
                text(&pod["metadata"]["name"]),
                text(&pod["status"]["podIP"]),
            )
        });
        addresses.collect()
    }

    /// The admin ports of its pods' sidecars, by pod.
    #[track_caller]
    pub fn sidecars(&self) -> BTreeMap<String, SocketAddr> {
        let addresses = self.addresses().into_iter();
        let admin = |(pod, address): (String, String)| {
            let address = format!("{address}:15490");
            Some((pod, address.parse().ok()?))
        };
        addresses.filter_map(admin).collect()
    }

    /// GETs `path` of a sidecar.
    ///
    /// # Errors
    /// No answer.
    pub fn ask(&self, sidecar: SocketAddr, path: &str) -> std::io::Result<http::Answer> {
        self.cluster.inside(|| http::get(sidecar, path))
    }

    /// The metrics of each sidecar, by pod.
    ///
    /// # Panics
    /// If one does not answer.
    #[track_caller]
    pub fn metrics(&self) -> BTreeMap<String, Metrics> {
        let sidecars = self.sidecars().into_iter();
        let scrape = |(pod, admin): (String, SocketAddr)| {
            let scraped = self.ask(admin, "/metrics");
            let scraped = scraped.unwrap_or_else(|error| panic!("{pod}: {error}"));
            (pod, Metrics::parse(&scraped.body))
        };
        sidecars.map(scrape).collect()
    }

    /// Where the Service is reached: its cluster's address, and port 80.
    ///
    /// # Panics
    /// If it has none.
    #[track_caller]
    pub fn service(&self) -> String {
        let address = "--output=jsonpath={.spec.clusterIP}";
        let address = self
            .namespace
            .kubectl(&["get", "service", &self.name, address]);
        format!("{address}:80")
    }

    /// Tells the injector of one pod's sidecar what to do, such as `fail-for 30s` or `stop`; the pod runs [`INJECTED_SIDECAR_IMAGE`]. Returns what it
    /// answered.
    ///
    /// # Panics
    /// If it does not obey.
    #[track_caller]
    pub fn order(&self, pod: &str, line: &str) -> String {
        let program = app_program();
        let program = program.to_str().expect("a path in UTF-8");
        let exec = ["exec", pod, "--container=ringside", "--"];
        let order = [program, "order", INJECTOR_SOCKET, line];
        self.namespace.kubectl(&[&exec[..], &order].concat())
    }
}

/// Loads the image of the application into every node, once for each program of tests.
///
/// # Panics
/// If it cannot be made.
#[track_caller]
pub fn load_image(cluster: &Cluster) {
    static LOADED: OnceLock<()> = OnceLock::new();
    LOADED.get_or_init(|| {
        let program = app_program();
        let program = program.to_str().expect("a path in UTF-8");
        cluster.load_made(APP_IMAGE, &["--program", program, "--entrypoint", program]);
    });
}

/// Loads [`INJECTED_SIDECAR_IMAGE`] into every node, once for each program of tests.
///
/// # Panics
/// If it cannot be made.
#[track_caller]
pub fn load_injected_sidecar(cluster: &Cluster) {
    static LOADED: OnceLock<()> = OnceLock::new();
    LOADED.get_or_init(|| {
        let injector = built("ringside-inject");
        let (injector, app) = (text(&injector), app_program());
        let folder = tempfile::tempdir().expect("a folder for a program");
        let relay = folder.path().join("ringside");
        unpack(
            &project().join("target/images/ringside.tar"),
            "usr/bin/ringside",
            &relay,
        );
        let file = format!("{}:/usr/bin/ringside", text(&relay));
        let start = format!("{injector} --control {INJECTOR_SOCKET} -- /usr/bin/ringside");
        let flags = [
            "--program",
            injector,
            "--program",
            text(&app),
            "--file",
            &file,
            "--entrypoint",
            &start,
        ];
        cluster.load_made(INJECTED_SIDECAR_IMAGE, &flags);
    });
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// `story-app`, which keeps its path in the images that it is in.
#[track_caller]
fn app_program() -> PathBuf {
    built("story-app")
}

/// A program of this build without what debuggers want, which is nine tenths of it; made anew where the program is newer.
#[track_caller]
fn built(name: &str) -> PathBuf {
    let path = build_folder().join(name);
    assert!(
        path.is_file(),
        "there is no {}: run `cargo build --workspace` first, or `make e2e`",
        path.display()
    );
    let folder = build_folder().join("stripped");
    let stripped = folder.join(name);
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if changed(&stripped) < changed(&path) {
        fs::create_dir_all(&folder).expect("a folder in the build's");
        let strip = Command::new("strip")
            .arg("-o")
            .args([&stripped, &path])
            .status();
        assert!(
            strip.as_ref().is_ok_and(|status| status.success()),
            "strip {}: {strip:?}",
            path.display()
        );
    }
    stripped
}

/// Takes `file` out of the one layer of an OCI archive, by tar.
fn unpack(archive: &Path, file: &str, to: &Path) {
    // The largest of what the archive holds is the layer.
    let script = r#"set -eo pipefail
layer=$(tar -tvf "$1" | sort -k3 -n | tail -n 1 | awk '{ print $NF }')
tar -xOf "$1" "$layer" | gzip -cd | tar -xO "./$2" >"$3"
chmod 755 "$3"
"$3" --version"#;
    let output = Command::new("/bin/bash")
        .args(["-c", script, "unpack", text(archive), file, text(to)])
        .output()
        .expect("a shell can be started");
    let length = fs::metadata(to).map_or(0, |file| file.len());
    assert!(
        output.status.success() && length > 0,
        "{file} cannot be taken out of {}: {output:?}",
        archive.display()
    );
}

/// A Deployment of `story-app` that asks for a relay `web` from 15080 to its port 8080, on 127.0.0.1 alone.
pub fn deployment(name: &str, replicas: u32) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": {"app": name, "ringside.dev/inject": "enabled"},
                    "annotations": {"ringside.dev/relay": "web=15080:8080", "ringside.dev/workers": "1"},
                },
                "spec": {
                    "terminationGracePeriodSeconds": 20,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": labels},
                    }],
                    "containers": [container(&["serve", "127.0.0.1:8080", "3000"])],
                },
            },
        },
    })
}

/// A container of `story-app` with these arguments, that knows its pod's name.
pub fn container(arguments: &[&str]) -> Value {
    json!({
        "name": "app", "image": APP_IMAGE, "imagePullPolicy": "Never", "args": arguments,
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    })
}

/// A Service `name` whose port 80 leads to the relay `web` of the pods of `name`.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "web"}]},
    })
}

/// Whether a pod, as the API server has it, is Ready.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Waits until a pod of `namespace` has an address and is Ready, and returns it.
#[track_caller]
pub(super) fn await_pod(namespace: &Namespace<'_>, name: &str) -> Value {
    await_within(PATIENCE, &format!("pod {name} to be Ready"), || {
        let pod = namespace.kubectl(&["get", "pod", name, "--output=json"]);
        let pod: Value = serde_json::from_str(&pod).expect("kubectl prints JSON");
        is_ready(&pod).then_some(pod)
    })
}
