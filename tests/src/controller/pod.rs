//! What a pod has of its controller: the projected files, a volume for state, and the flags that name them.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::identity::NAME;

/// A pod's volumes, which outlive its containers.
#[derive(Debug)]
pub struct Pod {
    folder: TempDir,
}

impl Pod {
    /// A pod that trusts `ca` and has the token `first`.
    pub fn new(ca: &str) -> Self {
        let pod = Self {
            folder: tempfile::tempdir().expect("a folder for a pod"),
        };
        for folder in [pod.files(), pod.state()] {
            fs::create_dir(folder).expect("a volume");
        }
        pod.write("ca.pem", ca);
        pod.write("token", "first\n");
        pod
    }

    /// The projected files.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// The volume for state.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Replaces a projected file, at once as the kubelet does.
    pub fn write(&self, name: &str, text: &str) {
        write(&self.files(), name, text);
    }

    /// The flags of a sidecar of this pod.
    pub fn flags(&self, controller: SocketAddr) -> Vec<OsString> {
        let url = format!("https://{NAME}:8443");
        let address = controller.to_string();
        let words = ["--controller", &url, "--controller-address", &address];
        let pod = [
            "--pod-name",
            "web-1",
            "--pod-namespace",
            "shop",
            "--pod-uid",
            "u-1",
        ];
        let mut flags: Vec<OsString> = words.into_iter().chain(pod).map(OsString::from).collect();
        flags.extend(["--pod-files".into(), self.files().into_os_string()]);
        flags.extend(["--state".into(), self.state().into_os_string()]);
        flags
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let new = folder.join(".new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, folder.join(name)))
        .expect("a pod's file");
}
