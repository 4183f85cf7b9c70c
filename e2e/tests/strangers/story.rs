//! A controller, and a sidecar that it serves, whoever else calls.

use std::fs;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use ringside_e2e::apiserver::{ApiServer, Namespace};
use ringside_e2e::caller::{self, Answer, Caller, report};
use ringside_e2e::identity::{self, AUDIENCE};
use ringside_e2e::installation::{Controller, Installation};
use ringside_e2e::kubelet::Kubelet;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::rustls::ClientConfig;

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for a test")
}

/// A pod of the namespace `shop` that has a relay, and what its sidecar shows and says.
pub(crate) struct Sidecar {
    pub(crate) pod: Pod,
    pub(crate) token: String,
    pub(crate) report: Value,
}

impl Sidecar {
    pub(crate) fn new(server: &ApiServer, shop: &Namespace<'_>, name: &str) -> Self {
        let pod = json!({
            "metadata": {"name": name, "labels": {"ringside.dev/inject": "enabled"},
                "annotations": {"ringside.dev/injected": "test"}},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
        });
        let pod = runtime().block_on(async {
            let kubelet = Kubelet::new(server.client(), shop.name(), "node");
            kubelet.create(pod).await.unwrap()
        });
        let token = another_token(server, shop, &pod);
        let report = report(shop.name(), name, &pod.uid().unwrap(), "Stays");
        Self { pod, token, report }
    }

    pub(crate) fn call(&self, caller: &mut Caller) -> Answer {
        let answer = caller.call(Some(&self.token), &self.report.to_string());
        answer.expect("an answer to a sidecar")
    }
}

/// A token that nobody has seen.
pub(crate) fn another_token(server: &ApiServer, shop: &Namespace<'_>, pod: &Pod) -> String {
    runtime().block_on(async {
        let client = server.client();
        let token = identity::token(&client, shop.name(), "default", AUDIENCE, Some(pod));
        token.await.unwrap()
    })
}

/// The controller, and a sidecar that it serves.
pub(crate) struct Story {
    pub(crate) controller: Controller,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) honest: Sidecar,
    pub(crate) caller: Caller,
}

impl Story {
    pub(crate) fn begin(
        server: &ApiServer,
        release: &Installation<'_>,
        shop: &Namespace<'_>,
    ) -> Self {
        Self::of(server, release, shop, release.start("one"))
    }

    /// The same with a replica that has been started.
    pub(crate) fn of(
        server: &ApiServer,
        release: &Installation<'_>,
        shop: &Namespace<'_>,
        controller: Controller,
    ) -> Self {
        controller.await_leading();
        controller.await_ready();
        let tls = caller::tls(&release.ca_pem());
        let honest = Sidecar::new(server, shop, "honest");
        let mut caller = Caller::connect(controller.tls, &tls).unwrap();
        assert_eq!(honest.call(&mut caller).status, 200);
        Self {
            controller,
            tls,
            honest,
            caller,
        }
    }

    pub(crate) fn connect(&self) -> Caller {
        Caller::connect(self.controller.tls, &self.tls).expect("a connection to the controller")
    }

    /// That the sidecar is served as ever.
    #[track_caller]
    pub(crate) fn honest_is_served(&mut self) {
        let answer = self.honest.call(&mut self.caller);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// What the controller counts.
    pub(crate) fn count(&self, name: &str) -> f64 {
        let metrics = self.controller.metrics().expect("metrics");
        metrics.sum(&format!("ringside_controller_{name}"), &[])
    }

    /// The most memory that the controller has had, in bytes.
    pub(crate) fn most_resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.controller.process.pid());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
        kibibytes.parse::<u64>().unwrap() << 10
    }
}
