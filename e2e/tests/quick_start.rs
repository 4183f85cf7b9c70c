//! `docs/quick-start.md`, step by step. Each of its commands is in the list below, with what becomes of it here: run as it stands, run with a change that
//! is told, or left out for a reason. One that is added to the document and not to the list fails.
//!
//! Here are an API server, Helm, a controller, and a sidecar that reports to it; nobody runs pods. So the pod that the document's Deployment would have
//! is made by the test, to see what the webhook adds to it.

use std::path::Path;
use std::process::{Command, Output};

use ringside_e2e::apiserver::ApiServer;
use ringside_e2e::await_that;
use ringside_e2e::chart::{Helm, HelmVersion, project};
use ringside_e2e::fleet::{Fleet, Kind, Member};
use ringside_e2e::installation::Installation;
use ringside_tests::document::{self, Shown};
use ringside_tests::skip::skip;
use serde_json::{Value, json};

const DOCUMENT: &str = "docs/quick-start.md";

/// What becomes of a command.
enum Here {
    /// It is run, and says this.
    Says(&'static str),
    /// It is run, fails, and says this.
    Refuses(&'static str),
    /// It is left out, because.
    Not(&'static str),
}
use Here::{Not, Refuses, Says};

/// Whose images are loaded onto nodes.
const REGISTRY: &str = "localhost";

const MACHINE: &str = "tests/tests/readme.rs runs what it runs";
const IMAGES: &str = "the images have tests of their own, as they take minutes to build";
const CLUSTER: &str = "needs Docker, or a node with a container runtime, or a registry";
const KUBELET: &str = "needs a kubelet";

/// All commands, in the document's order: how each begins, and what becomes of it.
const LIST: [(&str, Here); 35] = [
    ("make demo", Not(MACHINE)),
    ("make images", Not(IMAGES)),
    ("REGISTRY=localhost", Says("")),
    ("kind create cluster", Not(CLUSTER)),
    (
        "kind load image-archive target/images/ringside.tar",
        Not(CLUSTER),
    ),
    (
        "kind load image-archive target/images/ringside-controller.tar",
        Not(CLUSTER),
    ),
    ("minikube start", Not(CLUSTER)),
    (
        "minikube image load target/images/ringside.tar",
        Not(CLUSTER),
    ),
    (
        "minikube image load target/images/ringside-controller.tar",
        Not(CLUSTER),
    ),
    (
        "sudo ctr --namespace k8s.io images import target/images/ringside.tar",
        Not(CLUSTER),
    ),
    (
        "sudo ctr --namespace k8s.io images import target/images/ringside-controller.tar",
        Not(CLUSTER),
    ),
    ("VERSION=$(sed", Says("")),
    (
        "skopeo copy oci-archive:target/images/ringside.tar",
        Not(CLUSTER),
    ),
    (
        "skopeo copy oci-archive:target/images/ringside-controller.tar",
        Not(CLUSTER),
    ),
    (
        "helm install ringside charts/ringside",
        Says("STATUS: deployed"),
    ),
    (
        "helm test ringside",
        Not("its pod needs a kubelet; tests/chart/life.rs runs what the pod would"),
    ),
    (
        "kubectl create namespace shop",
        Says("namespace/shop created"),
    ),
    (
        "kubectl apply --namespace shop -f docs/quick-start/web.yaml",
        Says("deployment.apps/web created"),
    ),
    ("kubectl rollout status", Not(KUBELET)),
    ("kubectl get pods", Says("web-0")),
    (
        "kubectl apply --namespace shop -f docs/quick-start/policy.yaml",
        Says("relaypolicy.ringside.dev/web created"),
    ),
    (
        "kubectl wait --namespace shop --for=condition=Programmed",
        Says("condition met"),
    ),
    ("kubectl get rlp", Says("web")),
    (
        "kubectl port-forward --namespace shop deployment/web 15080 15490",
        Not(KUBELET),
    ),
    (
        "curl -s localhost:15080",
        Not("the application is not there; all other tests relay"),
    ),
    ("curl -s localhost:15490/readyz", Says("ready")),
    (
        "curl -s localhost:15490/metrics",
        Says("ringside_connections_opened_total{"),
    ),
    (
        "kubectl ringside top",
        Not("forwards ports, which needs a kubelet; tests/plugin.rs runs the rest of it"),
    ),
    (
        "kubectl patch relaypolicy web --namespace shop --type merge --patch '{\"spec\": {\"accept\"",
        Says("patched"),
    ),
    (
        "kubectl wait --namespace shop --for=condition=Programmed",
        Says("condition met"),
    ),
    (
        "curl -s localhost:15490/config",
        Says("accept.maxConnections: RelayPolicy web"),
    ),
    (
        "kubectl patch relaypolicy web --namespace shop --type merge --patch '{\"spec\": {\"backoff\"",
        Refuses("backoff.initial"),
    ),
    (
        "helm uninstall ringside",
        Says("release \"ringside\" uninstalled"),
    ),
    (
        "kubectl delete namespace shop ringside",
        Says("namespace \"shop\" deleted"),
    ),
    ("kubectl delete crd", Says("customresourcedefinition")),
];

#[test]
fn each_command_is_on_the_list() {
    let shown = document::commands(&document::read(DOCUMENT));
    for (Shown { command, heading }, (begin, _)) in shown.iter().zip(&LIST) {
        assert!(
            command.starts_with(begin),
            "under {heading:?} stands {command:?}, and the list has {begin:?}"
        );
    }
    assert_eq!(shown.len(), LIST.len(), "commands, and the list of them");
}

/// Where commands are run: with kubectl, Helm and the API server's kubeconfig, in the project's folder.
struct Terminal<'s> {
    server: &'s ApiServer,
    helm: &'s Helm,
    /// The namespace that stands for `shop` wherever it is named by `--namespace`.
    shop: &'s str,
    /// What stands for the sidecar's admin port, forwarded, and for the controller's.
    admin: String,
    controller: String,
}

impl Terminal<'_> {
    fn run(&self, command: &str) -> Output {
        let command = command
            .replace("--namespace shop", &format!("--namespace {}", self.shop))
            .replace("localhost:15490", &self.admin)
            .replace("localhost:8080", &self.controller)
            // Half a minute by default, which a busy machine may need more than.
            .replace("kubectl wait ", "kubectl wait --timeout=180s ")
            // Nobody runs the controller's pod.
            .replace(" --wait", "");
        // Nobody empties namespaces.
        let command = match command.strip_prefix("kubectl delete namespace") {
            Some(rest) => format!("kubectl delete namespace --wait=false{rest}"),
            None => command,
        };
        let mut bash = Command::new("bash");
        bash.args(["-c", &command]).current_dir(project());
        let folders = [self.server.kubectl_program(), self.helm.program()];
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        for folder in folders.iter().filter_map(|program| program.parent()) {
            let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
            path = std::env::join_paths(folders).expect("folders without a colon");
        }
        bash.envs(self.helm.environment())
            .env("PATH", path)
            // As the document sets it, in the one shell of its reader.
            .env("REGISTRY", REGISTRY)
            .env("KUBECONFIG", self.server.kubeconfig())
            .output()
            .expect("bash can be started")
    }

    /// Runs what the list says of a command, and compares.
    fn follow(&self, command: &str, here: &Here) {
        let (says, succeeds) = match here {
            Says(says) => (*says, true),
            Refuses(says) => (*says, false),
            Not(why) => return println!("$ {command}\nleft out: {why}\n"),
        };
        let mut output = self.run(command);
        // What a sidecar tells comes a moment after what it was told.
        if command.starts_with("curl") {
            await_that(&format!("`{says}` from {command}"), || {
                output = self.run(command);
                String::from_utf8_lossy(&output.stdout).contains(says)
            });
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.success(), succeeds, "{command}: {said}");
        assert!(said.contains(says), "{command} says no {says:?}: {said}");
        println!("$ {command}\n{said}");
    }
}

/// The pod that the document's Deployment asks for, as the webhook leaves it.
fn injected(server: &ApiServer, shop: &str) -> Value {
    let deployment = server.kubectl(&["--namespace", shop, "get", "deployment", "web", "-o=json"]);
    let deployment: Value = serde_json::from_str(&deployment).expect("kubectl prints JSON");
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("probe");
    // As the admission plugin of the service accounts would, which this API server runs without.
    pod["spec"]["serviceAccountName"] = json!("default");
    let arguments = [
        "--namespace",
        shop,
        "create",
        "--dry-run=server",
        "-o=json",
        "-f",
        "-",
    ];
    let answer = server.try_kubectl_with(&arguments, &pod.to_string());
    assert!(answer.status.success(), "{answer}");
    serde_json::from_str(&answer.out).expect("kubectl prints JSON")
}

#[test]
fn the_document_can_be_followed() {
    let test = "the_document_can_be_followed";
    let helm = match Helm::find(HelmVersion::Three) {
        Ok(helm) => helm,
        Err(reason) => return skip(test, &reason),
    };
    let Some(server) = ApiServer::own(test) else {
        return;
    };
    let namespace = server.namespace("shop");
    let mut terminal = Terminal {
        server: &server,
        helm: &helm,
        shop: namespace.name(),
        admin: String::new(),
        controller: String::new(),
    };
    let shown = document::commands(&document::read(DOCUMENT));
    let mut steps = shown.iter().zip(&LIST);
    let mut follow_to = |terminal: &Terminal<'_>, last: &str| {
        for (shown, (_, here)) in steps.by_ref() {
            terminal.follow(&shown.command, here);
            if shown.command.starts_with(last) {
                return;
            }
        }
        panic!("no command begins with {last:?}");
    };

    follow_to(&terminal, "helm test");
    let path = "-o=jsonpath={.spec.template.spec.containers[0].image}";
    let image = server.kubectl(&[
        "--namespace",
        "ringside",
        "get",
        "deployment",
        "ringside-controller",
        path,
    ]);
    let named = format!(
        "{REGISTRY}/ringside-controller:{}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(image, named);
    // In the place of the one that its Deployment would run.
    let release = Installation::new(&server);
    let controller = release.start("one");
    controller.await_leading();
    controller.await_ready();
    let webhooks = release.install_webhooks(namespace.name(), controller.tls);

    follow_to(&terminal, "kubectl rollout status");
    let pod = injected(&server, namespace.name());
    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!(
        (&sidecar["name"], &sidecar["restartPolicy"]),
        (&json!("ringside"), &json!("Always"))
    );
    let relay = json!({"name": "web", "containerPort": 15080, "protocol": "TCP"});
    let ports = sidecar["ports"].as_array().expect("ports");
    assert!(ports.contains(&relay), "{ports:?}");
    let service = server.kubectl(&[
        "--namespace",
        namespace.name(),
        "get",
        "service",
        "web",
        "-o=jsonpath={.spec.ports[0].targetPort}",
    ]);
    assert_eq!(service, "15080");

    // What the README and `docs/configuration.md` say besides.
    terminal.follow(
        "kubectl create deployment plain --image=nginx --namespace shop",
        &Says("created"),
    );
    let readme = document::commands(&document::read("README.md"));
    let patch = readme
        .iter()
        .find(|shown| shown.command.starts_with("kubectl patch deployment NAME "));
    let patch = patch
        .expect("the README has it")
        .command
        .replace("NAME ", "plain --namespace shop ");
    terminal.follow(&patch, &Says("deployment.apps/plain patched"));
    terminal.follow(
        "kubectl explain relaypolicy.spec.backoff",
        &Says("maxRetries"),
    );

    let mut fleet = Fleet::new(&server, &namespace, &release.ca_pem());
    fleet.add("web", &[Kind::Real], controller.tls);
    let sidecar = fleet.members.values().find_map(Member::real);
    terminal.admin = sidecar.expect("one was added").admin().to_string();
    follow_to(
        &terminal,
        "kubectl patch relaypolicy web --namespace shop --type merge --patch '{\"spec\": {\"backoff\"",
    );

    // How `docs/alerts.md` looks at both.
    terminal.controller = controller.http.to_string();
    let alerts = document::commands(&document::read("docs/alerts.md"));
    let asked = alerts
        .iter()
        .filter(|shown| shown.command.starts_with("curl"));
    let told = ["pushbackPercent", "ready", "/web"];
    for (shown, told) in asked.zip(told) {
        terminal.follow(&shown.command, &Says(told));
    }

    // `docs/upgrade.md`; `tests/chart/life.rs` looks at what stays.
    let upgrade = document::commands(&document::read("docs/upgrade.md"));
    let told = ["has been upgraded", "restarted", "Rollback was a success"];
    assert_eq!(upgrade.len(), told.len());
    for (shown, told) in upgrade.iter().zip(told) {
        terminal.follow(&shown.command, &Says(told));
    }

    drop((fleet, webhooks, controller));
    follow_to(&terminal, "kubectl delete crd");
}

#[test]
fn what_is_applied_lies_in_the_tree() {
    for Shown { command, .. } in document::commands(&document::read(DOCUMENT)) {
        for word in command.split([' ', ')']) {
            let is_file = word.starts_with("docs/") || word.starts_with("charts/");
            assert!(
                !is_file || Path::new(project()).join(word).exists(),
                "{word}"
            );
        }
    }
}
