//! Containers as this machine's processes, which they are: to be hurt from outside, as by a debugger or the OOM killer.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::Cluster;

impl Cluster {
    /// The first process of a pod's container, by its number on this machine.
    ///
    /// # Panics
    /// If the container does not run, or the cluster's nodes are not this machine's.
    #[track_caller]
    pub fn process(&self, namespace: &str, pod: &str, container: &str) -> u32 {
        let arguments = ["get", "pod", pod, "--namespace", namespace, "--output=json"];
        let status: Value = serde_json::from_str(&self.kubectl(&arguments)).expect("a pod in JSON");
        let kinds = ["initContainerStatuses", "containerStatuses"];
        let mut statuses = kinds
            .iter()
            .filter_map(|kind| status["status"][kind].as_array())
            .flatten();
        let found = statuses.find(|status| status["name"] == container);
        let id = found.and_then(|status| status["containerID"].as_str());
        let id = id.unwrap_or_else(|| panic!("{namespace}/{pod} has no container {container} yet"));
        // Such as `containerd://6aac3f20`, which ends the name of its control groups.
        let end = format!("/{}\n", id.rsplit('/').next().unwrap_or(id));
        let mut processes: Vec<(u32, u32)> = fs::read_dir("/proc")
            .expect("the processes")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"));
                groups.is_ok_and(|groups| groups.contains(&end))
            })
            .filter_map(|pid| Some((number_inside(pid)?, pid)))
            .collect();
        processes.sort_unstable();
        let first = processes.first();
        first
            .unwrap_or_else(|| panic!("no process of {namespace}/{pod}'s {container} is here"))
            .1
    }

    /// Kills the first process of a pod's container by SIGKILL, and so the container.
    ///
    /// # Panics
    /// As [`process`](Self::process) does.
    #[track_caller]
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) {
        let pid = self.process(namespace, pod, container);
        let killed = Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .status();
        assert!(
            killed.is_ok_and(|status| status.success()),
            "{namespace}/{pod}'s {container} (process {pid}) cannot be killed"
        );
    }
}

/// A process's number in the innermost namespace.
fn number_inside(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}
