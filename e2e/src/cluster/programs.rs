//! A cluster's programs and nodes, killed and held back on order.

use std::fmt;

use super::Cluster;

/// A program of a cluster, or a whole node; nodes count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `etcd`. It loses nothing while the cluster lives.
    Etcd,
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `coredns`.
    NameServer,
    /// A node with all that runs there, as if it lost its power. The first one's network stays.
    Node(u32),
    /// A node's containerd; containers live on.
    Containerd(u32),
    /// A node's kubelet; containers live on.
    Kubelet(u32),
    /// A node's kube-proxy; its rules stay.
    KubeProxy(u32),
}

impl fmt::Display for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd => out.write_str("etcd"),
            Self::ApiServer => out.write_str("kube-apiserver"),
            Self::ControllerManager => out.write_str("kube-controller-manager"),
            Self::Scheduler => out.write_str("kube-scheduler"),
            Self::NameServer => out.write_str("coredns"),
            Self::Node(node) => write!(out, "n{node}"),
            Self::Containerd(node) => write!(out, "n{node}/containerd"),
            Self::Kubelet(node) => write!(out, "n{node}/kubelet"),
            Self::KubeProxy(node) => write!(out, "n{node}/kube-proxy"),
        }
    }
}

impl Cluster {
    /// Kills a program by SIGKILL; it is started again at once. An API server answers again after some seconds.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn kill(&self, program: Program) {
        self.scripts.run("program", &["kill", &program.to_string()]);
    }

    /// Kills a program by SIGKILL, and keeps it away until what is returned is dropped.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn stop(&self, program: Program) -> Stopped<'_> {
        self.scripts.run("program", &["stop", &program.to_string()]);
        Stopped {
            cluster: self,
            program,
        }
    }
}

/// A program that is kept away; dropped, it is started again.
#[derive(Debug)]
#[must_use = "the program is started again when this is dropped"]
pub struct Stopped<'c> {
    cluster: &'c Cluster,
    program: Program,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let mut start = self.cluster.scripts.command("program");
        let started = start.args(["start", &self.program.to_string()]).status();
        if !started.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("{} is not started again: {started:?}", self.program);
        }
    }
}
