//! What is kept of a story that fails, in files: what kubectl tells of its namespaces and of the release, logs of every container, `/statusz` of every
//! sidecar, and what the cluster's own programs said. It only looks, and what cannot be had is written down as such.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::Path;

use ringside_tests::http;
use serde_json::Value;

use super::ringside::RELEASE;
use crate::cluster::Cluster;

/// Of each of the cluster's own logs only the end is kept: so many bytes.
const LOG_BYTES: u64 = 1 << 20;

/// What kubectl is asked of each namespace, by the file that it goes into.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("events", &["get", "events", "--sort-by=.lastTimestamp"]),
    ("describe", &["describe", "all"]),
    ("pods.yaml", &["get", "pods", "--output=yaml"]),
    ("policies.yaml", &["get", "relaypolicies", "--output=yaml"]),
    (
        "endpoints.yaml",
        &["get", "endpointslices", "--output=yaml"],
    ),
];

/// Keeps the evidence of `namespaces` and of the release in `folder`.
pub(super) fn keep(cluster: &Cluster, folder: &Path, namespaces: &[&str]) {
    for namespace in namespaces.iter().chain([&RELEASE]) {
        let folder = folder.join(namespace);
        for (file, question) in QUESTIONS {
            let arguments = [&["--namespace", namespace], question].concat();
            ask(cluster, &folder, file, &arguments);
        }
        containers(cluster, &folder, namespace);
    }
    let policies = ["get", "clusterrelaypolicies", "--output=yaml"];
    ask(cluster, folder, "clusterrelaypolicies.yaml", &policies);
    let all = ["get", "nodes,pods", "--all-namespaces", "--output=wide"];
    ask(cluster, folder, "nodes-and-pods", &all);
    ends_of_logs(&cluster.logs(), &folder.join("cluster"));
}

fn ask(cluster: &Cluster, folder: &Path, file: &str, arguments: &[&str]) {
    let answer = cluster.try_kubectl(arguments);
    write(folder, file, &format!("{}{}", answer.out, answer.err));
}

fn containers(cluster: &Cluster, folder: &Path, namespace: &str) {
    let question = ["--namespace", namespace, "get", "pods", "--output=json"];
    let pods = cluster.try_kubectl(&question).out;
    let pods: Value = serde_json::from_str(&pods).unwrap_or_default();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let containers = ["initContainers", "containers"];
        let containers = containers.map(|kind| pod["spec"][kind].as_array());
        for container in containers.into_iter().flatten().flatten() {
            let container = container["name"].as_str().unwrap_or_default();
            let which = [
                "--namespace",
                namespace,
                "logs",
                name,
                "--container",
                container,
            ];
            ask(cluster, folder, &format!("{name}.{container}.log"), &which);
            let before = [&which[..], &["--previous"]].concat();
            let previous = cluster.try_kubectl(&before);
            if previous.status.success() {
                let file = format!("{name}.{container}.previous.log");
                write(folder, &file, &previous.out);
            }
            let address = pod["status"]["podIP"].as_str().unwrap_or_default();
            if container == "ringside"
                && let Ok(address) = format!("{address}:15490").parse()
            {
                statusz(cluster, folder, name, address);
            }
        }
    }
}

fn statusz(cluster: &Cluster, folder: &Path, pod: &str, address: SocketAddr) {
    for page in ["statusz", "config", "metrics", "history"] {
        let answer = cluster.inside(|| http::get(address, &format!("/{page}")));
        let text = match answer {
            Ok(answer) => answer.body,
            Err(error) => format!("{address} does not answer: {error}"),
        };
        write(folder, &format!("{pod}.{page}"), &text);
    }
}

/// The logs below `from`, each with its path in its name.
fn ends_of_logs(from: &Path, to: &Path) {
    let Ok(files) = fs::read_dir(from) else {
        return;
    };
    for path in files.flatten().map(|file| file.path()) {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            ends_of_logs(&path, &to.join(name));
        } else if let Ok(text) = end_of(&path) {
            write(to, &name.to_string_lossy(), &text);
        }
    }
}

fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(folder: &Path, file: &str, text: &str) {
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(file), text));
    if let Err(error) = written {
        eprintln!("{}: {error}", folder.join(file).display());
    }
}
