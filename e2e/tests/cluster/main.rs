//! The cluster of the stories: pods run on its nodes and reach each other, what is killed comes back, and nothing is left of it however it
//! ends. Each test has a cluster of its own. On two cores it takes about a minute, of which bringing clusters up is the most.

mod traces;

use std::net::SocketAddr;
use std::process::Command;

use ringside_e2e::chart::project;
use ringside_e2e::cluster::{Cluster, Program};
use ringside_tests::http;
use ringside_tests::processes::installed;
use ringside_tests::setup::program;
use serde_json::{Value, json};
use traces::{Settings, Traces, clusters};

/// The relay with curl, made of what is on this machine.
const IMAGE: &str = "localhost/e2e-cluster:test";

/// A pod on each of two nodes, with a native sidecar whose probes a Service leads to.
fn objects(relay: &str) -> String {
    let sidecar = json!({
        "name": "relay", "image": IMAGE, "imagePullPolicy": "Never", "restartPolicy": "Always",
        "command": [relay, "relay", "--relay", "web=0.0.0.0:15080:127.0.0.1:8080", "--admin", "0.0.0.0:15490"],
        "startupProbe": {"httpGet": {"path": "/startupz", "port": 15490}, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"httpGet": {"path": "/livez", "port": 15490}, "periodSeconds": 1},
    });
    let spread = json!({
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    let pod = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "topologySpreadConstraints": [spread],
            "initContainers": [sidecar],
            "containers": [{"name": "application", "image": "localhost/pause:e2e", "imagePullPolicy": "Never"}],
        },
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": pod},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 15490}]},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}).to_string()
}

#[test]
fn pods_reach_each_other_across_nodes_and_what_is_killed_comes_back() {
    let test = "pods_reach_each_other_across_nodes_and_what_is_killed_comes_back";
    if !installed(test, &["curl"]) {
        return;
    }
    let settings = Settings::read();
    let Some(cluster) = Cluster::own(test, 2) else {
        return;
    };
    if !cluster.is_ours(test) {
        return;
    }
    let traces = Traces::of(cluster.name());
    assert!(traces.found_all(), "it is looked for in vain: {traces:?}");

    let relay = program();
    let relay = relay.to_str().expect("a path in UTF-8");
    cluster.load_made(IMAGE, &["--program", relay, "--program", "curl"]);
    let namespace = cluster.namespace("shop");
    namespace.apply(&objects(relay));
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);

    let pods: Value = serde_json::from_str(&namespace.kubectl(&["get", "pods", "--output=json"]))
        .expect("JSON of pods");
    let field = |pod: usize, path: &str| {
        pods["items"][pod]
            .pointer(path)
            .and_then(Value::as_str)
            .expect(path)
            .to_owned()
    };
    assert_ne!(field(0, "/spec/nodeName"), field(1, "/spec/nodeName"));
    let names = [0, 1].map(|pod| field(pod, "/metadata/name"));
    let service = namespace.kubectl(&[
        "get",
        "service",
        "web",
        "--output=jsonpath={.spec.clusterIP}",
    ]);
    let service: SocketAddr = format!("{service}:80")
        .parse()
        .expect("the Service's address");
    let url = |address: &str| format!("http://{address}/livez");
    let curl = ["curl", "--silent", "--fail", "--max-time", "30"];

    // From the node: by a thread, and by a program; from a pod, to the Service and to the pod of the other node.
    let answer = cluster
        .inside(|| http::get(service, "/livez"))
        .expect("an answer of the Service");
    assert_eq!(answer.status, 200);
    assert!(
        cluster
            .inside(|| cluster.kubectl(&["get", "nodes"]))
            .contains("n2")
    );
    cluster.run(
        curl[0],
        &[&curl[1..], &[&url(&service.to_string())]].concat(),
    );
    for (from, to) in [(0, 1), (1, 0)] {
        let pod = format!("{}:15490", field(to, "/status/podIP"));
        for address in [service.to_string(), pod] {
            let exec = ["exec", &names[from], "--container=relay", "--"];
            namespace.kubectl(&[&exec[..], &curl, &[&url(&address)]].concat());
        }
        assert!(
            !namespace
                .kubectl(&["logs", &names[from], "--container=relay"])
                .is_empty()
        );
    }

    // A container that is killed from outside is started again.
    let restarts = || {
        let path = "--output=jsonpath={.status.initContainerStatuses[0].restartCount}";
        namespace.kubectl(&["get", "pod", &names[0], path])
    };
    let before = restarts();
    cluster.kill_container(namespace.name(), &names[0], "relay");
    ringside_e2e::await_that("the relay's restart", || restarts() != before);

    // What a story would leave behind when it fails.
    let evidence = tempfile::tempdir().expect("a folder");
    cluster.keep_evidence(evidence.path());
    for (file, text) in [
        ("events", "Started"),
        ("pods", &names[0]),
        ("programs/n2/kubelet.log", "n2"),
    ] {
        let written = std::fs::read_to_string(evidence.path().join(file)).unwrap_or_default();
        assert!(written.contains(text), "{file} without {text}: {written}");
    }

    // A crash of the API server is over by itself.
    cluster.kill(Program::ApiServer);
    ringside_e2e::await_that("the API server's return", || {
        cluster
            .try_kubectl(&["get", "--raw", "/readyz"])
            .status
            .success()
    });

    let wait = |condition: &str| {
        cluster.kubectl(&[
            "wait",
            "--timeout=180s",
            &format!("--for=condition={condition}"),
            "node/n2",
        ])
    };
    let lost = cluster.stop(Program::Node(2));
    wait("Ready=Unknown");
    drop(lost);
    wait("Ready=True");
    namespace.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);

    drop(namespace);
    drop(cluster);
    traces.assert_gone();
    settings.assert_unchanged();
}

/// `e2e/cluster/SCRIPT` on the cluster `name`, which must succeed.
#[track_caller]
fn script(script: &str, name: &str) {
    let output = command(script, name).output().expect("a script can be run");
    assert!(output.status.success(), "{script}: {output:?}");
}

fn command(script: &str, name: &str) -> Command {
    let mut command = Command::new(project().join("e2e/cluster").join(script));
    command.env("CLUSTER", name);
    if script == "up" {
        command.arg("--prepared");
    }
    command
}

/// Ends what a test leaves when it fails.
struct Down(String);

impl Drop for Down {
    fn drop(&mut self) {
        let _ = command("down", &self.0).output();
    }
}

#[test]
fn a_start_that_is_killed_leaves_nothing() {
    let test = "a_start_that_is_killed_leaves_nothing";
    let settings = Settings::read();
    // Whether there can be one here; it is not used.
    let Some(cluster) = Cluster::own(test, 1) else {
        return;
    };
    drop(cluster);
    let name = format!("k{}", std::process::id());
    let down = Down(name.clone());
    // What is there last when it is killed: a group, the first process, a node.
    for stage in ["groups", "pid", "run/n1/pid", "nodes/n1/etc/kubelet.yaml"] {
        let mut up = command("up", &name);
        up.stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        ringside::backend::inject::end_with_parent(&mut up);
        let mut up = up.spawn().expect("a script can be started");
        let reached = clusters().join(&name).join(stage);
        ringside_e2e::await_that(stage, || reached.exists());
        up.kill().expect("a child can be killed");
        up.wait().expect("a child can be waited for");
        let traces = Traces::of(&name);
        script("down", &name);
        traces.assert_gone();
    }
    drop(down);
    settings.assert_unchanged();
}

#[test]
fn a_cluster_whose_first_process_is_killed_is_brought_up_anew_and_leaves_nothing() {
    let test = "a_cluster_whose_first_process_is_killed_is_brought_up_anew_and_leaves_nothing";
    let settings = Settings::read();
    let Some(cluster) = Cluster::own(test, 1) else {
        return;
    };
    if !cluster.is_ours(test) {
        return;
    }
    let name = cluster.name().to_owned();
    let traces = Traces::of(&name);
    assert!(traces.found_all(), "it is looked for in vain: {traces:?}");
    traces.kill_first_process();
    // Processes, namespaces and interfaces go by themselves.
    traces.await_end_of_processes();

    script("up", &name);
    assert!(
        cluster
            .kubectl(&["get", "nodes", "--no-headers"])
            .contains(" Ready ")
    );
    let again = Traces::of(&name);
    drop(cluster);
    traces.assert_gone();
    again.assert_gone();
    settings.assert_unchanged();
}
