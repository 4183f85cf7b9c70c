//! The controller as somebody has installed it: a namespace, a service account that may do what `permissions` lists and nothing else, replicas,
//! and webhooks of the pods of one namespace.
//!
//! It owns what it made in the cluster, and what the controller asked must be what it may ask: that is judged when a test says so.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringside_controller::admission::configuration::{Reach, Webhooks};
use ringside_controller::generated::roles;
use ringside_controller::permissions::{self, PERMISSIONS, Permission, Scope};
use ringside_tests::metrics::Metrics;
use ringside_tests::processes::{Process, free_port};
use ringside_tests::setup::program;
use ringside_tests::{await_some, await_that, http};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, Asked, Namespace};
use crate::identity;

/// The audience of the API server's own.
const API_AUDIENCE: &str = "https://kubernetes.default.svc";

/// An installation of its own; of several in a cluster each writes the status of every policy, so one at a time.
#[derive(Debug)]
pub struct Installation<'s> {
    server: &'s ApiServer,
    namespace: Namespace<'s>,
    names: permissions::Installation,
    /// Who the replicas are to the API server.
    token: String,
}

/// The flag of a replica that lingers for nobody.
const ENDS_AT_ONCE: [&str; 1] = ["--linger-seconds=0"];

impl<'s> Installation<'s> {
    /// Its namespace, roles and service account, known to the API server's authorizer.
    ///
    /// # Panics
    /// If the API server does not take them.
    #[track_caller]
    pub fn new(server: &'s ApiServer) -> Self {
        let namespace = server.namespace("release");
        let names = permissions::Installation {
            namespace: namespace.name().to_owned(),
            webhooks: namespace.name().to_owned(),
            ..permissions::Installation::default()
        };
        server.apply(&roles(&names).expect("roles as YAML"));
        let user = format!(
            "--as=system:serviceaccount:{}:{}",
            names.namespace, names.service
        );
        // The authorizer watches roles: a moment later. One of each role tells for all.
        for asked in [
            &["list", "pods", "--all-namespaces"][..],
            &["create", "secrets", "--namespace", &names.namespace],
        ] {
            let question = [&["auth", "can-i", &user], asked].concat();
            await_that("the roles to be known", || {
                server.try_kubectl(&question).status.success()
            });
        }
        // Not within the caller's runtime, if there is one.
        let token = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime to ask for a token");
                runtime.block_on(async {
                    let client = server.client();
                    let (namespace, account) = (&names.namespace, &names.service);
                    let life = Duration::from_secs(4 * 3600);
                    identity::token_living(&client, namespace, account, API_AUDIENCE, None, life)
                        .await
                })
            });
            let token = asking.join().expect("asking for a token does not panic");
            token.expect("a token of the service account")
        });
        Self {
            server,
            namespace,
            names,
            token,
        }
    }

    /// Its namespace's name, which is also that of its webhook configurations.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Who the replicas are to the API server.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A replica, which reaches the API server directly.
    #[track_caller]
    pub fn start(&self, replica: &str) -> Controller {
        self.start_at(free_port(), replica)
    }

    /// A replica at this port of 127.0.0.1, such as that of one that is gone.
    #[track_caller]
    pub fn start_at(&self, port: u16, replica: &str) -> Controller {
        let kubeconfig = self.server.kubeconfig_with_token(&self.token);
        self.start_with(&kubeconfig, [port, 0], replica, &ENDS_AT_ONCE)
    }

    /// A replica where one was that is gone, for sidecars and for people.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_in_place_of(&self, gone: &Controller, replica: &str) -> Controller {
        let kubeconfig = self.server.kubeconfig_with_token(&self.token);
        self.start_with(
            &kubeconfig,
            [gone.tls.port(), gone.http.port()],
            replica,
            &ENDS_AT_ONCE,
        )
    }

    /// A replica with these flags besides, such as `--linger-seconds=20`; the others end at once.
    #[track_caller]
    pub fn start_flagged(&self, replica: &str, flags: &[&str]) -> Controller {
        let kubeconfig = self.server.kubeconfig_with_token(&self.token);
        self.start_with(&kubeconfig, [free_port(), 0], replica, flags)
    }

    /// A replica, which reaches the API server as `kubeconfig` says, such as through a proxy.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_by(&self, kubeconfig: &Path, replica: &str) -> Controller {
        self.start_with(kubeconfig, [free_port(), 0], replica, &ENDS_AT_ONCE)
    }

    #[track_caller]
    fn start_with(
        &self,
        kubeconfig: &Path,
        [tls, http]: [u16; 2],
        replica: &str,
        flags: &[&str],
    ) -> Controller {
        let [tls, http] = [tls, http].map(|port| format!("127.0.0.1:{port}"));
        let process = Process::start("the controller", |folder| {
            let mut command = Command::new(program().with_file_name("ringside-controller"));
            command
                .env("KUBECONFIG", kubeconfig)
                .args(["run", "--http", &http, "--pod-ip", "127.0.0.1"])
                .args(["--listen", &tls, "--service-address", &tls])
                .args(["--namespace", self.name(), "--webhooks", self.name()])
                .args(["--pod-name", replica, "--certificate-name", "127.0.0.1"])
                .args(flags)
                .arg("--ports-file")
                .arg(folder.join("ports"));
            command
        });
        let ports = await_some("the controller to listen", || {
            let text = fs::read_to_string(process.folder().join("ports")).ok()?;
            serde_json::from_str::<Value>(&text).ok()
        });
        let address = |name: &str| {
            let text = ports[name].as_str().unwrap_or_default();
            text.parse().expect("an address in the ports' file")
        };
        Controller {
            tls: address("tls"),
            http: address("http"),
            process,
        }
    }

    /// The certificates to trust the controller by, once there are any.
    #[track_caller]
    pub fn ca_pem(&self) -> String {
        let path = "-o=go-template={{index .data \"ca.crt\" | base64decode}}";
        await_some("the controller's certificates", || {
            let arguments = [
                "--namespace",
                self.name(),
                "get",
                "secret",
                &self.names.secret,
                path,
            ];
            let answer = self.server.try_kubectl(&arguments);
            answer.status.success().then_some(answer.out)
        })
    }

    /// Tells the API server of the webhooks of the replica at `tls`, for pods and policies of the namespace `of`, and waits until it has
    /// the certificates to trust them by. They are taken away when what is returned is dropped.
    #[track_caller]
    pub fn install_webhooks(&self, of: &str, tls: SocketAddr) -> InstalledWebhooks<'_> {
        let webhooks = Webhooks {
            name: self.name().to_owned(),
            labels: [].into(),
            reach: Reach::Url(format!("https://{tls}")),
            ca_pem: None,
            release_namespace: self.name().to_owned(),
        };
        for mut configuration in [webhooks.mutating(), webhooks.validating()] {
            configuration["webhooks"][0]["namespaceSelector"] =
                json!({"matchLabels": {"kubernetes.io/metadata.name": of}});
            self.server.apply(&configuration.to_string());
        }
        for kind in [
            "mutatingwebhookconfiguration",
            "validatingwebhookconfiguration",
        ] {
            await_that("the certificates in the webhook configuration", || {
                let path = "-o=jsonpath={.webhooks[0].clientConfig.caBundle}";
                let bundle = self.server.kubectl(&["get", kind, self.name(), path]);
                !bundle.is_empty()
            });
        }
        InstalledWebhooks(self)
    }

    /// What its replicas have asked the API server; `None` of a cluster whose audit log is not here.
    pub fn asked(&self) -> Option<Vec<Asked>> {
        let Self { server, names, .. } = self;
        server.asked_by(&names.namespace, &names.service)
    }

    /// Whether a permission allows a request.
    fn allows(&self, permission: &Permission, asked: &Asked) -> bool {
        let name = self.names.name_of(permission.of);
        permission.group == asked.group
            && permission.resource == asked.resource
            && permission.verbs.contains(&asked.verb.as_str())
            && name.is_none_or(|name| name == asked.name)
            && (permission.scope == Scope::Cluster || asked.namespace == self.names.namespace)
    }

    /// That the replicas asked for nothing that is not on the list, and that nothing was forbidden.
    ///
    /// # Panics
    /// With what they asked besides.
    #[track_caller]
    pub fn asked_nothing_else(&self) {
        for asked in self.asked().unwrap_or_default() {
            let is_listed = PERMISSIONS.iter().any(|one| self.allows(one, &asked));
            assert!(is_listed, "not on the list of permissions: {asked:?}");
            assert_ne!(asked.code, 403, "forbidden: {asked:?}");
        }
    }

    /// What is on the list and was never asked for, a line each.
    pub fn never_asked(&self) -> Vec<String> {
        let asked = self.asked().unwrap_or_default();
        let mut never = Vec::new();
        for permission in &PERMISSIONS {
            for (index, verb) in permission.verbs.iter().enumerate() {
                let one = Permission {
                    verbs: &permission.verbs[index..=index],
                    ..*permission
                };
                if !asked.iter().any(|asked| self.allows(&one, asked)) {
                    let name = self.names.name_of(permission.of).unwrap_or_default();
                    never.push(format!(
                        "{verb} {}/{} {name}",
                        permission.group, permission.resource
                    ));
                }
            }
        }
        never
    }
}

impl Drop for Installation<'_> {
    fn drop(&mut self) {
        let name = self.names.cluster_name();
        let arguments = ["delete", "clusterrole,clusterrolebinding", &name];
        let answer = self.server.try_kubectl(&arguments);
        if !answer.status.success() {
            eprintln!("the cluster role {name} is left behind: {answer}");
        }
    }
}

/// Webhooks, until they are dropped.
#[derive(Debug)]
pub struct InstalledWebhooks<'i>(&'i Installation<'i>);

impl Drop for InstalledWebhooks<'_> {
    fn drop(&mut self) {
        let kinds = "mutatingwebhookconfiguration,validatingwebhookconfiguration";
        let answer = self.0.server.try_kubectl(&["delete", kinds, self.0.name()]);
        if !answer.status.success() {
            eprintln!("webhooks of {} are left behind: {answer}", self.0.name());
        }
    }
}

/// A replica, until it is dropped.
#[derive(Debug)]
pub struct Controller {
    /// Its process.
    pub process: Process,
    /// Where sidecars and the API server are answered.
    pub tls: SocketAddr,
    /// Where everybody else is.
    pub http: SocketAddr,
}

impl Controller {
    /// Waits until it has seen pods and policies.
    #[track_caller]
    pub fn await_ready(&self) {
        await_that("the controller to be ready", || {
            http::get(self.http, "/readyz").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Waits until it leads.
    #[track_caller]
    pub fn await_leading(&self) {
        await_that("the replica to lead", || self.leads());
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.metrics()
            .is_some_and(|metrics| metrics.sum("ringside_controller_leads", &[]) == 1.0)
    }

    /// What it counts.
    pub fn metrics(&self) -> Option<Metrics> {
        let answer = http::get(self.http, "/metrics").ok()?;
        Some(Metrics::parse(&answer.body))
    }
}
