//! A real cluster for the stories, with kubelets, containerd and pods that run: as the scripts of `e2e/cluster/` make it, or that of
//! `E2E_KUBECONFIG`.
//!
//! It owns the cluster that it brought up, whose end comes with the test's program at the latest. It never ends one that somebody else
//! started, and installs and builds nothing: `make cluster` does.

mod containers;
mod inside;
mod programs;
mod scripts;

pub use inside::Said;
pub use programs::{Program, Stopped};
pub use scripts::Keeper;

use std::env;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ringside_tests::skip::skip;

use crate::apiserver::{ApiServer, cache};
use crate::chart::{Helm, HelmVersion};
use scripts::{Failure, Scripts};

/// How many nodes the shared cluster has: one can be drained, or lost.
const SHARED_NODES: u32 = 2;

/// A cluster. All that one does through its API server ([`ApiServer::kubectl`], [`ApiServer::apply`], [`ApiServer::namespace`],
/// [`ApiServer::client`]) is done as with any other.
#[derive(Debug)]
pub struct Cluster {
    api: ApiServer,
    scripts: Scripts,
    /// Whether its nodes are namespaces of this machine.
    ours: bool,
    /// Ends it, if it is not to outlive the tests.
    _keeper: Option<Keeper>,
}

impl Deref for Cluster {
    type Target = ApiServer;

    fn deref(&self) -> &ApiServer {
        &self.api
    }
}

impl Cluster {
    /// The one that all tests of this program share, with two nodes, brought up by the first. `CLUSTER` names one that is used instead,
    /// brought up if it is not, and left as it is for the next program; `E2E_KUBECONFIG` one that others made.
    ///
    /// `None` if there can be none here: then `test` has been written down as skipped, and should return.
    ///
    /// # Panics
    /// When it should come up and does not.
    #[track_caller]
    pub fn shared(test: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, Failure>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match set("CLUSTER") {
            Some(name) => Self::up(&name, SHARED_NODES, false),
            None if set("E2E_KUBECONFIG").is_some() => Self::up("given", SHARED_NODES, false),
            None => Self::up(&unique(), SHARED_NODES, true),
        });
        available(test, shared.as_ref())
    }

    /// One of the test's own with so many nodes, which ends when it is dropped. `None` as in [`shared`](Self::shared).
    ///
    /// # Panics
    /// When it should come up and does not.
    #[track_caller]
    pub fn own(test: &str, nodes: u32) -> Option<Self> {
        if set("E2E_KUBECONFIG").is_some() {
            skip(
                test,
                "it wants a cluster of its own, and E2E_KUBECONFIG names one for all",
            );
            return None;
        }
        match Self::up(&unique(), nodes, true) {
            Ok(cluster) => Some(cluster),
            Err(failure) => available(test, Err(&failure)),
        }
    }

    fn up(name: &str, nodes: u32, ends_with_us: bool) -> Result<Self, Failure> {
        let scripts = Scripts::new(name);
        // First, since bringing it up may be interrupted.
        let keeper = ends_with_us.then(|| Keeper::new(&scripts));
        scripts.up(nodes)?;
        let given = set("E2E_KUBECONFIG").map(PathBuf::from);
        let state = cache()
            .map_err(Failure::Broken)?
            .join("clusters")
            .join(name);
        let way = std::fs::read_to_string(state.join("way")).unwrap_or_default();
        let ours = given.is_none() && way.trim() == "namespaces";
        let kubeconfig = given.unwrap_or_else(|| state.join("kubeconfig"));
        Ok(Self {
            api: ApiServer::of_cluster(&kubeconfig).map_err(Failure::Broken)?,
            scripts: scripts.at(state),
            ours,
            _keeper: keeper,
        })
    }

    /// What it is called, as `CLUSTER` has it for the scripts.
    pub fn name(&self) -> &str {
        self.scripts.name()
    }

    /// Its API server, where one is asked for by type.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Whether its nodes are namespaces of this machine, as [`run`](Self::run), [`inside`](Self::inside), [`stop`](Self::stop) and
    /// [`image`](Self::load) want it. If not, `test` is written down as skipped, and should return.
    pub fn is_ours(&self, test: &str) -> bool {
        if !self.ours {
            skip(test, "it needs nodes that are namespaces of this machine");
        }
        self.ours
    }

    /// Helm, with this cluster.
    ///
    /// # Panics
    /// If it is not built.
    #[track_caller]
    pub fn helm(&self) -> Helm {
        let helm = Helm::find(HelmVersion::Three).unwrap_or_else(|error| panic!("{error}"));
        helm.with(self.kubeconfig())
    }

    /// Loads an image into every node, from an OCI or Docker archive that says its name. Pods want `imagePullPolicy: IfNotPresent` or
    /// `Never`.
    ///
    /// # Panics
    /// If it cannot be loaded.
    #[track_caller]
    pub fn load(&self, archive: &Path) {
        self.scripts.run("load", &[path(archive)]);
    }

    /// Makes the image `name` of Debian packages and programs of this machine, as the flags of `e2e/cluster/image` say, and loads it.
    ///
    /// # Panics
    /// If it cannot be made or loaded.
    #[track_caller]
    pub fn load_made(&self, name: &str, flags: &[&str]) {
        let said = self.scripts.run("image", &[&[name], flags].concat());
        self.load(Path::new(said.trim()));
    }

    /// Places a seccomp profile where every kubelet finds it, by the file's name.
    ///
    /// # Panics
    /// If it cannot be placed.
    #[track_caller]
    pub fn place_seccomp(&self, profile: &Path) {
        self.scripts.run("seccomp", &[path(profile)]);
    }

    /// Writes down what tells why a story failed: objects, Events and logs of all pods, `/statusz` of the sidecars, and what the
    /// cluster's programs said. Says on standard error where, and what was not to be had.
    pub fn keep_evidence(&self, folder: &Path) {
        let mut keep = self.scripts.command("evidence");
        if let Err(error) = keep.arg(folder).status() {
            eprintln!(
                "the evidence cannot be kept in {}: {error}",
                folder.display()
            );
        }
    }

    /// The folder with what its programs said: `kube-apiserver.log`, `n1/kubelet.log` and others.
    pub fn logs(&self) -> PathBuf {
        self.scripts.state().join("log")
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

/// A name that no other program's cluster has: at most 12 characters.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "t{}-{}",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// What was found, unless `test` is to be skipped.
#[track_caller]
fn available<T>(test: &str, found: Result<T, &Failure>) -> Option<T> {
    match found {
        Ok(found) => return Some(found),
        Err(Failure::Absent(reason)) => skip(test, reason),
        Err(Failure::Broken(error)) => panic!("no cluster: {error}"),
    }
    None
}
