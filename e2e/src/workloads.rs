//! What makes pods of Deployments and has them run, beside an API server of the tests' own: Kubernetes' controller manager and scheduler, and
//! KWOK in the place of kubelets.
//!
//! It owns these processes and the nodes that KWOK plays. No container runs: pods go through the states that a kubelet would report of them,
//! and where a status is patched by somebody else, it stays as it is patched.

use std::path::{Path, PathBuf};
use std::process::Command;

use ringside_tests::processes::Process;
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, cache, find_program};
use crate::await_that;

/// Whose version is said once, there.
const KWOK_GO_MOD: &str = include_str!("../tools/kwok/go.mod");

/// The programs, which end when this is dropped.
#[derive(Debug)]
pub struct Workloads {
    /// Each with its name.
    pub processes: Vec<(&'static str, Process)>,
}

impl Workloads {
    /// Starts them, and makes `nodes` nodes, which are Ready when it returns.
    ///
    /// # Errors
    /// The sentence that says which program is missing, and how to build it.
    ///
    /// # Panics
    /// If they do not start, or if the server is not the tests' own.
    pub fn start(server: &ApiServer, nodes: usize) -> Result<Self, String> {
        let manager = find_program("kube-controller-manager")?;
        let scheduler = find_program("kube-scheduler")?;
        let (kwok, stages) = kwok()?;
        let kubeconfig = server.kubeconfig();
        let keys = server.folder();
        // Each at once and alone; their own rate limits are for clusters that are shared.
        let kubernetes = |program: &Path| {
            let mut command = Command::new(program);
            command
                .arg(format!("--kubeconfig={}", kubeconfig.display()))
                .args(["--leader-elect=false", "--secure-port=0"])
                .args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
            command
        };
        let processes = vec![
            (
                "kube-controller-manager",
                Process::start("kube-controller-manager", |_| {
                    let mut command = kubernetes(&manager);
                    let file =
                        |flag: &str, name: &str| format!("--{flag}={}", keys.join(name).display());
                    command
                        .arg(file("root-ca-file", "ca.crt"))
                        .arg(file("service-account-private-key-file", "sa.key"))
                        // Nodes on a machine that is busy with all of this are not lost.
                        .arg("--node-monitor-grace-period=10m");
                    command
                }),
            ),
            (
                "kube-scheduler",
                Process::start("kube-scheduler", |_| kubernetes(&scheduler)),
            ),
            (
                "kwok",
                Process::start("kwok", |folder| {
                    let mut command = Command::new(&kwok);
                    command
                        .env("KWOK_WORKDIR", folder)
                        .arg(format!("--kubeconfig={}", kubeconfig.display()))
                        .arg(format!("--config={}", stages.display()))
                        .args([
                            "--manage-all-nodes=true",
                            "--node-lease-duration-seconds=40",
                        ]);
                    command
                }),
            ),
        ];
        let made: Vec<Value> = (0..nodes)
            .map(|index| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{index}")}}))
            .collect();
        server.apply(&json!({"apiVersion": "v1", "kind": "List", "items": made}).to_string());
        await_that("the nodes to be Ready", || {
            let path = "-o=jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].status}{.spec.taints}{'\\n'}{end}";
            let said = server.kubectl(&["get", "nodes", path]);
            said.lines().filter(|line| *line == "True").count() == nodes
        });
        Ok(Self { processes })
    }
}

/// KWOK, and the stages that its pods and nodes go through, of the same version.
fn kwok() -> Result<(PathBuf, PathBuf), String> {
    let version = KWOK_GO_MOD
        .split_whitespace()
        .skip_while(|word| *word != "sigs.k8s.io/kwok")
        .nth(1)
        .ok_or("e2e/tools/kwok/go.mod does not require sigs.k8s.io/kwok")?;
    let folder = cache()?.join("tools").join(format!("kwok-{version}"));
    let files = (folder.join("kwok"), folder.join("stages.yaml"));
    if files.0.is_file() && files.1.is_file() {
        Ok(files)
    } else {
        Err(format!(
            "there is no {}: `e2e/tools/build kwok` builds it, with Go alone",
            files.0.display()
        ))
    }
}
