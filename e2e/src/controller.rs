//! A replica of the controller as a process of its own, at a real API server; killed when dropped.
//!
//! It owns how one is started, and asked what it is. What it does is its own.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use ringside_tests::metrics::Metrics;
use ringside_tests::processes::{Process, free_port};
use ringside_tests::setup::program;
use ringside_tests::{await_some, http};
use serde_json::Value;

use crate::apiserver::{ApiServer, Namespace};
use crate::await_that;

/// A replica of the controller.
#[derive(Debug)]
pub struct Controller {
    /// Its process.
    pub process: Process,
    /// Where it answers sidecars and webhooks.
    pub tls: SocketAddr,
    /// Where it answers probes and scrapes.
    pub http: SocketAddr,
}

impl Controller {
    /// Starts the replica `name` of the installation in the namespace `release`, which answers sidecars at the port `tls` of
    /// 127.0.0.1, and waits until it is ready.
    #[track_caller]
    pub fn start(server: &ApiServer, release: &str, tls: u16, name: &str) -> Self {
        let process = Process::start("the controller", |folder| {
            let mut command = Command::new(program().with_file_name("ringside-controller"));
            command
                .env("KUBECONFIG", server.kubeconfig())
                .args(["run", "--http", "127.0.0.1:0", "--pod-ip", "127.0.0.1"])
                .args([
                    "--listen",
                    &format!("127.0.0.1:{tls}"),
                    "--service-address",
                    &format!("127.0.0.1:{tls}"),
                ])
                .args([
                    "--namespace",
                    release,
                    "--webhooks",
                    release,
                    "--pod-name",
                    name,
                ])
                .args(["--certificate-name", "127.0.0.1"])
                .arg("--ports-file")
                .arg(folder.join("ports"));
            command
        });
        let ports = await_some("the controller to listen", || {
            let text = fs::read_to_string(process.folder().join("ports")).ok()?;
            serde_json::from_str::<Value>(&text).ok()
        });
        let address = |name: &str| ports[name].as_str().and_then(|text| text.parse().ok());
        let controller = Self {
            tls: address("tls").expect("an address"),
            http: address("http").expect("an address"),
            process,
        };
        await_that("the controller to be ready", || {
            http::get(controller.http, "/readyz").is_ok_and(|answer| answer.status == 200)
        });
        controller
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.metric("ringside_controller_leads", &[]) == Some(1.0)
    }

    /// The sum of a metric over all samples with these labels; `None` where it does not answer.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let answer = http::get(self.http, "/metrics").ok()?;
        Some(Metrics::parse(&answer.body).sum(name, labels))
    }
}

/// A release with one replica that leads, a namespace for pods, and what their sidecars trust the controller by.
#[derive(Debug)]
pub struct Installation<'a> {
    /// The release's namespace.
    pub release: Namespace<'a>,
    /// The pods'.
    pub shop: Namespace<'a>,
    /// The replica.
    pub controller: Controller,
    /// The certificates, as the webhook would stamp them.
    pub ca: String,
}

impl<'a> Installation<'a> {
    /// Installs it, and waits until it leads. A cluster bears one at a time: two would both write the status of every policy.
    #[track_caller]
    pub fn start(server: &'a ApiServer) -> Self {
        let (release, shop) = (server.namespace("release"), server.namespace("shop"));
        let controller = Controller::start(server, release.name(), free_port(), "one");
        await_that("the controller to lead", || controller.leads());
        let mut ca = String::new();
        await_that("the controller's certificates", || {
            let path = "-o=go-template={{index .data \"ca.crt\" | base64decode}}";
            let get = ["get", "secret", "ringside-controller-tls", path];
            let answer = release.try_kubectl_with(&get, "");
            ca = answer.out;
            answer.status.success() && ca.contains("BEGIN CERTIFICATE")
        });
        Self {
            release,
            shop,
            controller,
            ca,
        }
    }
}
