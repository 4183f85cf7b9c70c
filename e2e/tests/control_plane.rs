//! The control plane as a user has it: a real API server, the real controller, a pod that gets its sidecar by the webhook, and that
//! sidecar, running, with the pod's own settings, token and certificates.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use ringside_e2e::apiserver::Namespace;
use ringside_e2e::definitions::installed;
use ringside_e2e::identity;
use ringside_e2e::installation::Installation;
use ringside_e2e::kubelet::Kubelet;
use ringside_tests::processes::{Process, free_port};
use ringside_tests::setup::program;
use ringside_tests::traffic::{Server, Stream, echo};
use ringside_tests::{await_some, await_that, http};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for a test")
}

/// Held by each test: two installations in one cluster would both write the status of every policy.
static ALONE: Mutex<()> = Mutex::new(());

/// The sidecar of an injected pod, started as a kubelet would.
struct Sidecar {
    process: Process,
    admin: SocketAddr,
}

impl Sidecar {
    async fn start(client: &Client, namespace: &str, pod: &Pod) -> Self {
        let value = serde_json::to_value(pod).unwrap();
        let container = &value["spec"]["initContainers"][0];
        assert_eq!(
            container["name"], "ringside",
            "the pod has no sidecar: {value}"
        );
        let token = identity::token(client, namespace, "default", identity::AUDIENCE, Some(pod))
            .await
            .unwrap();
        let process = Process::start("the sidecar", |folder| {
            let files = folder.join("pod");
            fs::create_dir(&files).unwrap();
            let annotation = |name: &str| {
                value["metadata"]["annotations"][name]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            fs::write(files.join("token"), token).unwrap();
            fs::write(
                files.join("settings.json"),
                annotation("ringside.dev/settings"),
            )
            .unwrap();
            fs::write(
                files.join("ca.pem"),
                annotation("ringside.dev/controller-ca"),
            )
            .unwrap();
            fs::create_dir(folder.join("state")).unwrap();
            let mut command = Command::new(program());
            command.args(
                container["args"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|argument| argument.as_str().unwrap()),
            );
            for variable in container["env"].as_array().unwrap() {
                let name = variable["name"].as_str().unwrap();
                let given = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                    None => variable["value"].as_str().unwrap_or_default(),
                    Some("metadata.name") => value["metadata"]["name"].as_str().unwrap(),
                    Some("metadata.namespace") => value["metadata"]["namespace"].as_str().unwrap(),
                    Some("metadata.uid") => value["metadata"]["uid"].as_str().unwrap(),
                    Some(other) => panic!("the sidecar asks for {other}"),
                };
                command.env(name, given);
            }
            // Several pods share this machine, which have an address each in a cluster; and folders are mounted there.
            command
                .env("RINGSIDE_ADMIN", "127.0.0.1:0")
                .env("RINGSIDE_ADMIN_PORT_FILE", folder.join("admin"))
                .env("RINGSIDE_WORKERS", "1")
                .env("RINGSIDE_POD_FILES", &files)
                .env("RINGSIDE_STATE", folder.join("state"));
            command
        });
        let admin = await_some("the sidecar's admin port", || {
            fs::read_to_string(process.folder().join("admin"))
                .ok()?
                .trim()
                .parse()
                .ok()
        });
        Self { process, admin }
    }

    /// The value of a setting in effect.
    fn setting(&self, group: &str, field: &str) -> Value {
        let answer = http::get(self.admin, "/config").unwrap();
        let config: Value = serde_yaml::from_str(&answer.body)
            .unwrap_or_else(|error| panic!("{error}: {}", answer.body));
        config["settings"][group][field].clone()
    }
}

fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {{name: web}}, spec: {spec}}}"
    )
}

fn apply(namespace: &Namespace<'_>, spec: &str) {
    let answer = namespace.try_kubectl_with(&["apply", "-f", "-"], &policy(spec));
    assert!(answer.status.success(), "{answer}");
}

/// Makes a pod that asks for a relay, until it gets one: the API server's webhook configuration takes effect after a moment.
async fn injected_pod(kubelet: &Kubelet, name: &str, listen: u16, target: u16) -> Pod {
    let fields = |name: &str| {
        json!({
            "metadata": {"name": name, "labels": {"app": "web", "ringside.dev/inject": "enabled"},
                "annotations": {"ringside.dev/relay": format!("web={listen}:{target}")}},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
        })
    };
    for attempt in 0..100 {
        let name = if attempt == 0 {
            name.to_owned()
        } else {
            format!("{name}-{attempt}")
        };
        let pod = kubelet.create(fields(&name)).await.unwrap();
        let has_sidecar = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.init_containers.is_some());
        if has_sidecar {
            return pod;
        }
        kubelet.delete(&name).await.unwrap();
        kubelet.finish(&name).await.ok();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the webhook is never called");
}

#[test]
fn a_policy_is_live_in_a_pod_that_the_webhook_gave_its_sidecar() {
    let Some(server) = installed("a_policy_is_live_in_a_pod_that_the_webhook_gave_its_sidecar")
    else {
        return;
    };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    let controller = release.start("one");
    let webhooks = release.install_webhooks(shop.name(), controller.tls);
    let application = Server::tcp("127.0.0.1:0", echo);
    runtime().block_on(async {
        let client = server.client();
        let kubelet = Kubelet::new(client.clone(), shop.name(), "node");
        apply(
            &shop,
            "{podSelector: {matchLabels: {app: web}}, batch: {max: 64}}",
        );
        let listen = free_port();
        let pod = injected_pod(&kubelet, "web", listen, application.address().port()).await;
        let name = pod.metadata.name.clone().unwrap();
        kubelet.bind(&name).await.unwrap();
        kubelet.start(&name).await.unwrap();
        let sidecar = Sidecar::start(&client, shop.name(), &pod).await;
        kubelet.set_ready(&name, true).await.unwrap();

        // Traffic, and what the policy says, told by the pod and by the policy.
        let stream = Stream::connect(SocketAddr::from(([127, 0, 0, 1], listen))).unwrap();
        await_that("the policy's settings to be live", || {
            sidecar.setting("batch", "max") == 64
        });
        shop.kubectl(&[
            "wait",
            "rlp/web",
            "--for=condition=Programmed",
            "--timeout=60s",
        ]);
        shop.kubectl(&[
            "wait",
            "rlp/web",
            "--for=jsonpath={.status.pods.summary}=1/1",
            "--timeout=60s",
        ]);
        shop.kubectl(&["wait", "rlp/web", "--for=condition=Ready", "--timeout=60s"]);

        // The page for people, and what it is made of.
        let page = http::get(controller.http, "/").unwrap();
        assert!(page.status == 200 && page.body.contains("<title>Ringside controller</title>"));
        let told = http::get(controller.http, "/statusz").unwrap();
        let told: Value = serde_json::from_str(&told.body).unwrap();
        assert_eq!(told["leads"].as_bool(), Some(true));
        // Other tests have theirs at the same server.
        let ours = |list: &str, called: &str| {
            let all = told[list].as_array().unwrap().iter();
            let mut ours =
                all.filter(|one| one["namespace"] == shop.name() && one["name"] == called);
            ours.next()
                .unwrap_or_else(|| panic!("no {called} in {told}"))
                .clone()
        };
        assert_eq!(ours("policies", "web")["ready"], 1);
        assert_eq!(ours("pods", &name)["state"], "ready");
        // All are listed, as there are fewer than may be; and ours is among those that take connections.
        let listed = told["pods"].as_array().unwrap().len();
        assert_eq!(told["podsInAll"].as_u64(), Some(listed as u64), "{told}");
        assert!(told["totals"]["ready"].as_u64() >= Some(1), "{told}");

        // A change is live while the connection stays.
        let begin = Instant::now();
        apply(
            &shop,
            "{podSelector: {matchLabels: {app: web}}, batch: {max: 32}}",
        );
        await_that("a change of the policy to be live", || {
            sidecar.setting("batch", "max") == 32
        });
        println!(
            "a change of the policy was live {:.0} ms after kubectl began",
            begin.elapsed().as_secs_f64() * 1e3
        );
        drop(stream);

        // What is wrong only beside the cluster's settings is refused where it is written.
        let refused = shop.try_kubectl_with(
            &["apply", "-f", "-"],
            &policy("{podSelector: {matchLabels: {app: web}}, batch: {min: 300}}"),
        );
        assert!(
            refused
                .err
                .contains("batch.min is 300, but must be at most batch.max (256)"),
            "{refused}"
        );
        assert_eq!(sidecar.setting("batch", "max"), 32);

        // Gone: the defaults again.
        shop.kubectl(&["delete", "rlp", "web"]);
        await_that("the defaults to be back", || {
            sidecar.setting("batch", "max") == 256
        });
        drop(sidecar.process);
    });
    drop(webhooks);
    drop(controller);
    release.asked_nothing_else();
}

#[test]
fn another_replica_takes_over_and_traffic_never_notices() {
    let Some(server) = installed("another_replica_takes_over_and_traffic_never_notices") else {
        return;
    };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    let first = release.start("one");
    first.await_leading();
    let second = release.start("two");
    let webhooks = release.install_webhooks(shop.name(), second.tls);
    let application = Server::tcp("127.0.0.1:0", echo);
    runtime().block_on(async {
        let client = server.client();
        let kubelet = Kubelet::new(client.clone(), shop.name(), "node");
        apply(&shop, "{podSelector: {}, batch: {max: 64}}");
        let listen = free_port();
        let pod = injected_pod(&kubelet, "web", listen, application.address().port()).await;
        let name = pod.metadata.name.clone().unwrap();
        kubelet.bind(&name).await.unwrap();
        kubelet.start(&name).await.unwrap();
        // It was told the second one's address, which names the leader.
        let sidecar = Sidecar::start(&client, shop.name(), &pod).await;
        kubelet.set_ready(&name, true).await.unwrap();
        shop.kubectl(&[
            "wait",
            "rlp/web",
            "--for=jsonpath={.status.pods.summary}=1/1",
            "--timeout=60s",
        ]);
        assert!(!second.leads());

        first.process.signal(libc::SIGKILL);
        let begin = Instant::now();
        await_that("the second replica to lead", || second.leads());
        println!(
            "the second replica led {:.1} s after the first was killed",
            begin.elapsed().as_secs_f64()
        );
        apply(&shop, "{podSelector: {}, batch: {max: 32}}");
        // It tries ever more slowly while nobody leads, up to every 10 s.
        while sidecar.setting("batch", "max") != 32 {
            assert!(
                begin.elapsed() < ringside_e2e::PATIENCE,
                "a change by the new leader is not live"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shop.kubectl(&[
            "wait",
            "rlp/web",
            "--for=jsonpath={.status.observedGeneration}=2",
            "--timeout=60s",
        ]);
        shop.kubectl(&[
            "wait",
            "rlp/web",
            "--for=condition=Programmed",
            "--timeout=60s",
        ]);
        assert!(Stream::connect(SocketAddr::from(([127, 0, 0, 1], listen))).is_ok());
        drop(sidecar.process);
    });
    drop(webhooks);
    drop(second);
    release.asked_nothing_else();
}

#[test]
fn a_replica_that_is_told_to_end_leads_no_more_and_answers_webhooks_for_a_while() {
    let test = "a_replica_that_is_told_to_end_leads_no_more_and_answers_webhooks_for_a_while";
    let Some(server) = installed(test) else {
        return;
    };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    let mut controller = release.start_flagged("one", &["--linger-seconds=20"]);
    controller.await_leading();
    let webhooks = release.install_webhooks(shop.name(), controller.tls);

    controller.process.signal(libc::SIGTERM);
    await_some("it to lead no more, as it says", || {
        let metrics = controller.metrics()?;
        (metrics.sum("ringside_controller_leads", &[]) == 0.0).then_some(())
    });
    // As an API server asks that has not heard of its end.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "late", "labels": {"ringside.dev/inject": "enabled"}},
        // As the admission plugin of the service accounts would, which this API server runs without.
        "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080}]}]},
    });
    let trial = ["create", "--dry-run=server", "--output=json", "-f", "-"];
    let made = shop.try_kubectl_with(&trial, &pod.to_string());
    assert!(made.out.contains("ringside.dev/injected"), "{made}");
    let ended = controller.process.await_end();
    assert!(ended.success(), "{ended}");
    drop(webhooks);
    release.asked_nothing_else();
}
