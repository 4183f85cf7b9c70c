//! Where Kubernetes' programs are: the folder that `KUBEBUILDER_ASSETS` names, or the cache that `make apiserver` fills.
//!
//! It only looks. What is not there is a reason to skip a test, and never a reason to fetch something.

use std::env;
use std::path::{Path, PathBuf};

use ringside_tests::processes;

/// The versions are said once, there.
const GO_MOD: &str = include_str!("../../kubernetes/go.mod");

/// The programs that an API server of the test's own needs.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) etcd: PathBuf,
    pub(super) kube_apiserver: PathBuf,
    pub(super) kubectl: PathBuf,
}

impl Programs {
    /// All three, or the sentence that says what is missing and what to do.
    pub(super) fn find() -> Result<Self, String> {
        let (folder, advice) = folder()?;
        let find = |name: &str| {
            let path = folder.join(name);
            let missing = || format!("there is no {}: {advice}", path.display());
            path.is_file().then(|| path.clone()).ok_or_else(missing)
        };
        Ok(Self {
            etcd: find("etcd")?,
            kube_apiserver: find("kube-apiserver")?,
            kubectl: find("kubectl")?,
        })
    }

    /// kubectl alone, for a cluster that is there already: ours, or else the one that is installed.
    pub(super) fn find_kubectl() -> Result<PathBuf, String> {
        let ours = folder().map(|(folder, _)| folder.join("kubectl"));
        ours.ok()
            .filter(|path| path.is_file())
            .or_else(|| processes::find("kubectl"))
            .ok_or_else(|| "there is no kubectl: `make apiserver` builds it".to_owned())
    }
}

/// Another program of Kubernetes, or the sentence that says what to do about there being none.
pub(crate) fn find_program(name: &str) -> Result<PathBuf, String> {
    let path = folder()?.0.join(name);
    let missing = || {
        format!(
            "there is no {}: `e2e/kubernetes/build {name}` builds it, with Go alone",
            path.display()
        )
    };
    path.is_file().then(|| path.clone()).ok_or_else(missing)
}

/// The version of Kubernetes that the tests build, such as `v1.36.3`.
pub fn version() -> &'static str {
    let required = GO_MOD
        .lines()
        .find_map(|line| line.strip_prefix("require k8s.io/kubernetes "));
    required.expect("e2e/kubernetes/go.mod requires k8s.io/kubernetes on a line of its own")
}

/// Where the programs should be, and what to do if they are not.
fn folder() -> Result<(PathBuf, &'static str), String> {
    if let Some(folder) = set("KUBEBUILDER_ASSETS") {
        return Ok((folder, "KUBEBUILDER_ASSETS names that folder"));
    }
    let folder = cache()?.join("kubernetes").join(version());
    Ok((folder, "`make apiserver` builds it, with Go alone"))
}

/// The folder of what outlives a build: programs, images, clusters.
pub(crate) fn cache() -> Result<PathBuf, String> {
    set("RINGSIDE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("ringside")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/ringside")))
        .ok_or_else(|| {
            "none of RINGSIDE_CACHE, XDG_CACHE_HOME and HOME says where they are kept".to_owned()
        })
}

fn set(variable: &str) -> Option<PathBuf> {
    let value = env::var_os(variable).filter(|value| !value.is_empty())?;
    Some(Path::new(&value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_wrapper_module() {
        assert!(version().starts_with("v1."), "{}", version());
    }
}
