//! A release's life in a real API server, where nobody runs its pods: the controller is run here, with the arguments that its Deployment has and as the
//! service account that the chart makes. It is stopped before Helm does anything, so that nobody puts right what Helm would break.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use ringside_controller::certificates::{Plan, Terms, plan};
use ringside_e2e::apiserver::{ApiServer, Namespace};
use ringside_e2e::chart::{Helm, HelmVersion, NAMESPACE, project};
use ringside_e2e::{await_that, identity};
use ringside_tests::await_some;
use ringside_tests::processes::Process;
use ringside_tests::setup::program;
use serde_json::{Value, json};

use crate::helm;

/// The release, and everything else of its name.
const RELEASE: &str = NAMESPACE;
const DEPLOYMENT: &str = "ringside-controller";
const SECRET: &str = "ringside-controller-tls";
const CHART: &str = "charts/ringside";

struct Cluster<'s> {
    server: &'s ApiServer,
    helm: &'s Helm,
    shop: &'s Namespace<'s>,
}

/// What must outlive whatever Helm does: who is who, and what is trusted.
#[derive(Debug, PartialEq)]
struct Kept {
    definitions: Vec<String>,
    policy: String,
    secret: (String, Value),
}

impl Cluster<'_> {
    fn get(&self, what: &[&str]) -> Value {
        let arguments = [&["--namespace", RELEASE, "get", "-o=json"], what].concat();
        serde_json::from_str(&self.server.kubectl(&arguments)).expect("kubectl prints JSON")
    }

    fn is_there(&self, what: &[&str]) -> bool {
        let arguments = [&["--namespace", RELEASE, "get"], what].concat();
        self.server.try_kubectl(&arguments).status.success()
    }

    fn uid(&self, what: &[&str]) -> String {
        let object = self.get(what);
        object["metadata"]["uid"]
            .as_str()
            .expect("a UID")
            .to_owned()
    }

    fn kept(&self) -> Kept {
        let definition = |name: &str| self.uid(&["crd", &format!("{name}.ringside.dev")]);
        Kept {
            definitions: ["relaypolicies", "clusterrelaypolicies"]
                .map(definition)
                .into(),
            policy: self.uid(&["--namespace", self.shop.name(), "relaypolicy", "api"]),
            secret: (
                self.uid(&["secret", SECRET]),
                self.get(&["secret", SECRET])["data"].clone(),
            ),
        }
    }

    /// The certificates in both webhook configurations.
    fn bundles(&self) -> Vec<String> {
        ["mutating", "validating"]
            .map(|kind| self.get(&[&format!("{kind}webhookconfiguration"), RELEASE]))
            .iter()
            .map(|object| {
                object["webhooks"][0]["clientConfig"]["caBundle"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }

    fn helm(&self, words: &[&str]) -> String {
        self.helm.run(&[words, &["--namespace", RELEASE]].concat())
    }

    /// The controller as its Deployment runs it, until it has written its certificates everywhere; it answers; it ends.
    fn run_controller(&self) {
        let (server, runtime) = (self.server, runtime());
        let token = runtime.block_on(async {
            let life = Duration::from_secs(3600);
            let audience = "https://kubernetes.default.svc";
            let client = server.client();
            identity::token_living(&client, RELEASE, DEPLOYMENT, audience, None, life).await
        });
        let kubeconfig = server.kubeconfig_with_token(&token.expect("a token"));
        let deployment = self.get(&["deployment", DEPLOYMENT]);
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let arguments = of_container(container);
        // The ports here are the kernel's to choose.
        let is_place =
            |word: &&String| !word.starts_with("--listen=") && !word.starts_with("--http=");
        let arguments: Vec<&String> = arguments.iter().filter(is_place).collect();
        let mut process = Process::start("the controller", |folder| {
            let mut command = Command::new(program().with_file_name("ringside-controller"));
            command
                .args(arguments)
                .args(["--listen=127.0.0.1:0", "--http=127.0.0.1:0"])
                .arg("--linger-seconds=0")
                .arg(format!("--ports-file={}", folder.join("ports").display()))
                .env("KUBECONFIG", kubeconfig)
                .env("RINGSIDE_POD_NAME", "one")
                .env("RINGSIDE_POD_IP", "127.0.0.1");
            command
        });
        let tls: SocketAddr = await_some("the controller to listen", || {
            let text = fs::read_to_string(process.folder().join("ports")).ok()?;
            let ports: Value = serde_json::from_str(&text).ok()?;
            ports["tls"].as_str()?.parse().ok()
        });
        await_that("the certificates in both webhook configurations", || {
            self.bundles().iter().all(|bundle| !bundle.is_empty())
        });
        self.ask(tls, process.folder());
        // It gives the Lease back, so that nobody has to wait for it to run out.
        process.signal(libc::SIGTERM);
        let ended = process.await_end();
        assert!(ended.success(), "{ended}");
    }

    /// What `helm test` would run in a pod.
    fn ask(&self, tls: SocketAddr, folder: &Path) {
        let hooks = self.helm(&["get", "hooks", RELEASE]);
        let hooks = ringside_e2e::chart::documents(&hooks);
        let pod = hooks
            .iter()
            .find(|hook| hook["kind"] == "Pod")
            .expect("the test's pod");
        let mounted = &pod["spec"]["volumes"][0]["secret"];
        assert_eq!(mounted["secretName"], SECRET);
        let secret = self.get(&["secret", SECRET]);
        let ca = secret["data"][mounted["items"][0]["key"].as_str().expect("a key")].clone();
        let ca: k8s_openapi::ByteString = serde_json::from_value(ca).expect("the CA");
        let file = folder.join("ca.crt");
        fs::write(&file, ca.0).expect("a file");
        let arguments = of_container(&pod["spec"]["containers"][0]);
        let arguments = arguments
            .iter()
            .filter(|word| !word.starts_with("--ca-file="));
        let mut command = Command::new(program().with_file_name("ringside-controller"));
        command
            .args(arguments)
            .arg(format!("--ca-file={}", file.display()))
            .arg(format!("--address={tls}"));
        let output = command.output().expect("the check can be started");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(
            said.contains("it would inject") && said.contains("ringside:"),
            "{said}"
        );
    }

    /// Install, upgrade, roll back, uninstall, install again, with these values.
    fn live(&self, values: &[&str], has_policy: bool) {
        let is_default_there = || self.is_there(&["clusterrelaypolicy", "default"]);
        let with = |words: &[&str]| self.helm(&[words, values].concat());
        let notes = with(&["install", RELEASE, CHART, "--create-namespace"]);
        for next in ["1. Wait", "2. Give", "3. See"] {
            assert!(notes.contains(next), "{notes}");
        }
        assert_eq!(
            is_default_there(),
            has_policy,
            "the policy of an installation"
        );
        self.shop.apply("{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {name: api}, spec: {podSelector: {}}}");
        assert_eq!(self.bundles(), ["", ""]);
        self.run_controller();
        let (kept, bundles) = (self.kept(), self.bundles());
        let policy = has_policy.then(|| self.uid(&["clusterrelaypolicy", "default"]));
        let replicas = || self.get(&["deployment", DEPLOYMENT])["spec"]["replicas"].clone();
        let before = replicas();
        let running = self.uid(&["deployment", DEPLOYMENT]);

        let changed = [
            "--set",
            "replicaCount=3,logLevel=debug,webhook.timeoutSeconds=3",
        ];
        with(&[&["upgrade", RELEASE, CHART][..], &changed].concat());
        assert_eq!(replicas(), 3);
        assert_eq!(self.bundles(), bundles, "after an upgrade");
        assert_eq!(self.kept(), kept, "after an upgrade");
        let webhook = self.get(&["mutatingwebhookconfiguration", RELEASE]);
        assert_eq!(webhook["webhooks"][0]["timeoutSeconds"], 3);
        // Whoever runs again writes nothing that the next upgrade stumbles over.
        self.run_controller();
        with(&["upgrade", RELEASE, CHART, "--reset-values"]);
        assert_eq!(replicas(), before);
        assert_eq!(self.bundles(), bundles, "after another upgrade");

        self.helm(&["rollback", RELEASE, "2"]);
        assert_eq!(replicas(), 3);
        self.helm(&["rollback", RELEASE, "3"]);
        assert_eq!(replicas(), before);
        assert_eq!(self.bundles(), bundles, "after a rollback");
        assert_eq!(self.kept(), kept, "after a rollback");
        assert_eq!(self.uid(&["deployment", DEPLOYMENT]), running);
        let policy_now = has_policy.then(|| self.uid(&["clusterrelaypolicy", "default"]));
        assert_eq!(policy_now, policy, "the policy is never made anew");

        let goodbye = self.helm(&["uninstall", RELEASE]);
        assert!(
            goodbye.contains("kept due to the resource policy"),
            "{goodbye}"
        );
        let all = "deployment,service,serviceaccount,role,rolebinding,poddisruptionbudget,networkpolicy,configmap";
        let left = self.get(&[all, "--selector=app.kubernetes.io/instance=ringside"]);
        assert_eq!(left["items"], json!([]), "left behind");
        for kind in [
            "mutatingwebhookconfiguration",
            "validatingwebhookconfiguration",
            "clusterrole",
            "clusterrolebinding",
        ] {
            let left = self.get(&[kind, "--selector=app.kubernetes.io/instance=ringside"]);
            assert_eq!(left["items"], json!([]), "{kind}");
        }
        assert!(
            !is_default_there(),
            "the policy of the release goes with it"
        );
        assert_eq!(self.kept(), kept, "after an uninstall");
        // Nothing blocks: pods that ask for a relay are made, policies as well.
        self.shop.apply("{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {ringside.dev/inject: enabled}}, spec: {containers: [{name: app, image: app}]}}");
        self.shop
            .kubectl(&["delete", "pod", "web", "--force", "--grace-period=0"]);

        with(&["install", RELEASE, CHART]);
        assert_eq!(is_default_there(), has_policy);
        self.run_controller();
        assert_eq!(self.kept(), kept, "after another installation");
        assert_eq!(self.bundles(), bundles, "who was trusted is trusted still");
        self.helm(&["uninstall", RELEASE]);
        self.asked_for_nothing_forbidden();
        self.clean();
    }

    fn asked_for_nothing_forbidden(&self) {
        let asked = self
            .server
            .asked_by(RELEASE, DEPLOYMENT)
            .expect("an audit log");
        assert!(!asked.is_empty());
        let forbidden: Vec<_> = asked.iter().filter(|asked| asked.code == 403).collect();
        assert!(forbidden.is_empty(), "{forbidden:?}");
    }

    /// As the notes say.
    fn clean(&self) {
        let secret = format!("secret/{SECRET}");
        let lease = format!("lease/{DEPLOYMENT}");
        self.server
            .kubectl(&["--namespace", RELEASE, "delete", &secret, &lease]);
        let definitions = [
            "relaypolicies.ringside.dev",
            "clusterrelaypolicies.ringside.dev",
        ];
        self.server
            .kubectl(&[&["delete", "crd"], &definitions[..]].concat());
        await_that("the definitions to be gone from the API", || {
            let known = [
                "api-resources",
                "--api-group=ringside.dev",
                "--cached=false",
                "--no-headers",
            ];
            self.server.kubectl(&known).is_empty()
        });
    }
}

fn of_container(container: &Value) -> Vec<String> {
    serde_json::from_value(container["args"].clone()).expect("arguments")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for a test")
}

fn lives(test: &str, version: HelmVersion) {
    let Some(helm) = helm(test, version) else {
        return;
    };
    let Some(server) = ApiServer::own(test) else {
        return;
    };
    let helm = helm.with(server.kubeconfig());
    let cluster = Cluster {
        server: &server,
        helm: &helm,
        shop: &server.namespace("shop"),
    };
    cluster.live(&[], false);
    let production = project().join("charts/ringside/examples/production.yaml");
    let flag = format!("--values={}", production.display());
    cluster.live(&[&flag], true);
}

#[test]
fn a_release_lives_through_all_that_helm_3_does() {
    lives(
        "a_release_lives_through_all_that_helm_3_does",
        HelmVersion::Three,
    );
}

#[test]
fn a_release_lives_through_all_that_helm_4_does() {
    lives(
        "a_release_lives_through_all_that_helm_4_does",
        HelmVersion::Four,
    );
}

#[test]
fn certificates_of_somebody_else_are_read_with_fewer_permissions() {
    let test = "certificates_of_somebody_else_are_read_with_fewer_permissions";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    let Some(server) = ApiServer::own(test) else {
        return;
    };
    let helm = helm.with(server.kubeconfig());
    let cluster = Cluster {
        server: &server,
        helm: &helm,
        shop: &server.namespace("shop"),
    };
    let external = "certificates.source=External,certificates.secretName=ringside-controller-tls";
    cluster.helm(&[
        "install",
        RELEASE,
        CHART,
        "--create-namespace",
        "--set",
        external,
    ]);
    // As cert-manager writes it: without the authority's key.
    let terms = Terms::for_service(DEPLOYMENT, RELEASE, &[]).expect("names");
    let Ok(Plan::Write { contents, .. }) = plan(None, Timestamp::now(), &terms) else {
        panic!("certificates are made where there are none");
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "namespace": RELEASE},
        "stringData": {"ca.crt": contents.ca_crt, "tls.crt": contents.tls_crt, "tls.key": contents.tls_key},
    });
    server.apply(&secret.to_string());
    let before = cluster.get(&["secret", SECRET])["data"].clone();
    cluster.run_controller();
    assert_eq!(cluster.get(&["secret", SECRET])["data"], before);
    for bundle in cluster.bundles() {
        assert_eq!(json!(bundle), before["ca.crt"]);
    }
    cluster.asked_for_nothing_forbidden();
    let user = format!("--as=system:serviceaccount:{RELEASE}:{DEPLOYMENT}");
    for verb in ["create", "update"] {
        let what = format!("secrets/{SECRET}");
        let arguments = ["--namespace", RELEASE, "auth", "can-i", &user, verb, &what];
        assert!(!server.try_kubectl(&arguments).status.success(), "{verb}");
    }
}

#[test]
fn definitions_of_somebody_else_are_taken_over_only_on_order() {
    let test = "definitions_of_somebody_else_are_taken_over_only_on_order";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    let Some(server) = ApiServer::own(test) else {
        return;
    };
    ringside_e2e::definitions::install(&server);
    let helm = helm.with(server.kubeconfig());
    let install = [
        "install",
        RELEASE,
        CHART,
        "--namespace",
        RELEASE,
        "--create-namespace",
    ];
    let said = helm.attempt(&install);
    assert!(
        !said.succeeded && said.err.contains("invalid ownership metadata"),
        "{said}"
    );
    let said = helm.attempt(
        &[
            &install[..],
            &["--dry-run=server", "--set=crds.enabled=false"],
        ]
        .concat(),
    );
    assert!(said.succeeded, "{said}");
    helm.run(&[&install[..], &["--take-ownership"]].concat());
}

/// What the notes print where there is no webhook, as a user would paste it.
#[test]
fn notes_without_webhooks_inject_sidecars_that_call_the_controller() {
    let test = "notes_without_webhooks_inject_sidecars_that_call_the_controller";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    let Some(server) = ApiServer::own(test) else {
        return;
    };
    let helm = helm.with(server.kubeconfig());
    let notes = helm.run(&[
        "install",
        RELEASE,
        CHART,
        "--namespace",
        RELEASE,
        "--create-namespace",
        "--values=charts/ringside/examples/no-webhook.yaml",
        "--set=sidecar.image.registry=localhost",
    ]);
    // As the controller writes it, which nobody runs here.
    let terms = Terms::for_service(DEPLOYMENT, RELEASE, &[]).expect("names");
    let Ok(Plan::Write { contents, .. }) = plan(None, Timestamp::now(), &terms) else {
        panic!("certificates are made where there are none");
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": RELEASE}, "stringData": {"ca.crt": contents.ca_crt},
    });
    server.apply(&secret.to_string());

    let lines: Vec<&str> = notes
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("ca.crt"))
        .collect();
    assert_eq!(lines.len(), 2, "{notes}");
    let folder = tempfile::tempdir().unwrap();
    let manifest = project().join("docs/quick-start/web.yaml");
    fs::copy(manifest, folder.path().join("deployment.yaml")).unwrap();
    let programs = [server.kubectl_program().to_owned(), program()];
    let mut path = std::env::var("PATH").unwrap_or_default();
    for program in programs {
        let folder = program.parent().expect("a program is in a folder");
        path = format!("{}:{path}", folder.display());
    }
    let output = Command::new("bash")
        .args(["-c", &format!("set -eo pipefail\n{}", lines.join("\n"))])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("KUBECONFIG", server.kubeconfig())
        .output()
        .unwrap();
    assert!(output.status.success(), "{lines:?}: {output:?}");

    let web = server.kubectl(&["get", "deployment", "web", "-o=json"]);
    let web: Value = serde_json::from_str(&web).unwrap();
    let pod = &web["spec"]["template"];
    let sidecar = &pod["spec"]["initContainers"][0];
    let image = sidecar["image"].as_str().unwrap();
    assert!(image.starts_with("localhost/ringside:"), "{image}");
    let variables = sidecar["env"].as_array().unwrap();
    let controller = json!({"name": "RINGSIDE_CONTROLLER", "value": "https://ringside-controller.ringside.svc:443"});
    assert!(variables.contains(&controller), "{variables:?}");
    let trusted = &pod["metadata"]["annotations"]["ringside.dev/controller-ca"];
    assert_eq!(
        trusted.as_str().map(str::trim),
        Some(contents.ca_crt.trim())
    );
}
