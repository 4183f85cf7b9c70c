//! The real kubectl against an API server, as a user would run it, and namespaces that it makes.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use std::{fmt, process, thread};

use ringside::backend::inject;
use serde_json::json;

use super::ApiServer;
use crate::PATIENCE;

/// What kubectl said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error: refusals, and warnings.
    pub err: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}\n{}{}", self.status, self.out, self.err)
    }
}

impl ApiServer {
    /// Runs kubectl, which must succeed, and returns its standard output.
    ///
    /// # Panics
    /// If it fails, with what it said.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        succeed(arguments, self.try_kubectl(arguments))
    }

    /// Applies objects, in YAML or JSON, which must succeed, and returns what was said.
    ///
    /// # Panics
    /// If it fails, with what it said.
    #[track_caller]
    pub fn apply(&self, objects: &str) -> String {
        let arguments = ["apply", "-f", "-"];
        succeed(&arguments, self.try_kubectl_with(&arguments, objects))
    }

    /// Runs kubectl, whatever comes of it.
    #[track_caller]
    pub fn try_kubectl(&self, arguments: &[&str]) -> Answer {
        self.try_kubectl_with(arguments, "")
    }

    /// Runs kubectl with `input`, such as objects for `apply -f -`.
    #[track_caller]
    pub fn try_kubectl_with(&self, arguments: &[&str], input: &str) -> Answer {
        self.run_kubectl(self.kubeconfig(), arguments, input)
    }

    /// Runs kubectl as somebody else, or by another way.
    #[track_caller]
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Answer {
        self.run_kubectl(kubeconfig, arguments, "")
    }

    #[track_caller]
    fn run_kubectl(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> Answer {
        let file = || tempfile::tempfile().expect("a file for kubectl");
        let (mut stdin, mut out, mut err) = (file(), file(), file());
        let given = stdin
            .write_all(input.as_bytes())
            .and_then(|()| stdin.rewind());
        given.expect("kubectl's input can be written");
        let same = |file: &File| Stdio::from(file.try_clone().expect("a second descriptor"));

        let mut command = Command::new(&self.kubectl);
        command
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            // What it knows of the server's kinds is kept there, and goes with the server.
            .env("KUBECACHEDIR", self.folder.path().join("kubectl"))
            .stdin(stdin)
            .stdout(same(&out))
            .stderr(same(&err));
        inject::end_with_parent(&mut command);
        let mut child = command.spawn().expect("kubectl can be started");
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if begin.elapsed() > PATIENCE {
                // The child of this very call.
                let _ = child.kill();
                let _ = child.wait();
                panic!("kubectl {arguments:?} did not end within {PATIENCE:?}");
            }
            thread::sleep(std::time::Duration::from_millis(3));
        };
        let text = |file: &mut File| {
            let mut text = String::new();
            let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
            read.expect("kubectl writes UTF-8");
            text
        };
        Answer {
            status,
            out: text(&mut out),
            err: text(&mut err),
        }
    }

    /// A new namespace with the service account `default`, whose name begins with `prefix`. In a cluster that was given it
    /// is deleted when dropped; in one of the tests' own it goes with the cluster.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn namespace(&self, prefix: &str) -> Namespace<'_> {
        let name = unique(prefix);
        let answer = self.try_kubectl(&["create", "namespace", &name]);
        succeed(&["create", "namespace", &name], answer);
        // A cluster with a controller manager makes it by itself, at about the same time.
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": &name},
        });
        let arguments = ["apply", "--server-side", "-f", "-"];
        let answer = self.try_kubectl_with(&arguments, &account.to_string());
        succeed(&arguments, answer);
        Namespace { server: self, name }
    }
}

#[track_caller]
fn succeed(arguments: &[&str], answer: Answer) -> String {
    assert!(
        answer.status.success(),
        "kubectl {arguments:?} failed: {answer}"
    );
    answer.out
}

/// A name that no other test has, of this run or another.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{next}", process::id())
}

/// A namespace of a test's own.
#[derive(Debug)]
pub struct Namespace<'s> {
    server: &'s ApiServer,
    name: String,
}

impl Namespace<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in it, which must succeed, and returns its standard output.
    ///
    /// # Panics
    /// If it fails, with what it said.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments = [&["--namespace", &self.name], arguments].concat();
        self.server.kubectl(&arguments)
    }

    /// Runs kubectl in it with `input`, whatever comes of it.
    #[track_caller]
    pub fn try_kubectl_with(&self, arguments: &[&str], input: &str) -> Answer {
        let arguments = [&["--namespace", &self.name], arguments].concat();
        self.server.try_kubectl_with(&arguments, input)
    }

    /// Applies objects in it, in YAML or JSON, which must succeed, and returns what was said.
    ///
    /// # Panics
    /// If it fails, with what it said.
    #[track_caller]
    pub fn apply(&self, objects: &str) -> String {
        let arguments = ["apply", "-f", "-"];
        succeed(&arguments, self.try_kubectl_with(&arguments, objects))
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if self.server.processes.is_none() {
            // Whatever is in it goes as well; nobody has to wait for it.
            let arguments = ["delete", "namespace", &self.name, "--wait=false"];
            let answer = self.server.try_kubectl(&arguments);
            if !answer.status.success() {
                eprintln!("the namespace {} is left behind: {answer}", self.name);
            }
        }
    }
}
