//! What the controller asks the API server is what its list of permissions says: nothing else, and all of it.

use hyper::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use ringside_e2e::caller::{self, Caller};
use ringside_e2e::definitions::installed;
use ringside_e2e::identity;
use ringside_e2e::installation::Installation;
use ringside_e2e::kubelet::Kubelet;
use ringside_e2e::proxy::{Fault, Proxy, Requests};
use ringside_tests::await_that;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for a test")
}

#[test]
fn all_that_it_may_do_is_used_and_nothing_else_is_asked() {
    let test = "all_that_it_may_do_is_used_and_nothing_else_is_asked";
    let Some(server) = installed(test) else {
        return;
    };
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    if release.asked().is_none() {
        ringside_tests::skip::skip(test, "the audit log of the cluster is not here to be read");
        return;
    }
    let proxy = Proxy::start(server);
    // A Secret that somebody else is said to have made meanwhile is read again.
    let secrets = Requests::all().method(Method::POST).path("/secrets");
    proxy.fail_times(1, secrets, Fault::Answer(StatusCode::CONFLICT));
    let controller = release.start_by(&proxy.kubeconfig_with_token(release.token()), "one");
    controller.await_leading();
    controller.await_ready();
    let tls = caller::tls(&release.ca_pem());

    // Of both kinds; one that is wrong only beside the defaults, twice, so that its Event recurs.
    let policy = |kind: &str, name: &str, spec: &str| {
        shop.apply(&format!(
            "{{apiVersion: ringside.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}"
        ));
    };
    policy("ClusterRelayPolicy", "default", "{}");
    for generation in ["1", "2"] {
        let spec = format!("{{batch: {{min: 300}}, accept: {{backlog: {generation}28}}}}");
        policy("RelayPolicy", "wrong", &spec);
        let path = format!("--for=jsonpath={{.status.observedGeneration}}={generation}");
        shop.kubectl(&["wait", "rlp/wrong", &path, "--timeout=60s"]);
    }
    server.kubectl(&[
        "wait",
        "clusterrelaypolicy/default",
        "--for=condition=Accepted",
        "--timeout=60s",
    ]);
    await_that("the Event to be counted twice", || {
        let path = "-o=jsonpath={.items[?(@.reason=='NotAccepted')].series.count}";
        let arguments = ["get", "events.events.k8s.io", path];
        shop.kubectl(&arguments) == "2"
    });

    // A sidecar calls.
    let pod: Pod = runtime().block_on(async {
        let kubelet = Kubelet::new(server.client(), shop.name(), "node");
        let pod = json!({
            "metadata": {"name": "web", "labels": {"ringside.dev/inject": "enabled"},
                "annotations": {"ringside.dev/injected": "test"}},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
        });
        kubelet.create(pod).await.unwrap()
    });
    let token = runtime().block_on(async {
        let client = server.client();
        let audience = identity::AUDIENCE;
        identity::token(&client, shop.name(), "default", audience, Some(&pod)).await
    });
    let uid = pod.uid().unwrap();
    let report = caller::report(shop.name(), "web", &uid, "Stays").to_string();
    let mut sidecar = Caller::connect(controller.tls, &tls).unwrap();
    let answer = sidecar.call(Some(&token.unwrap()), &report).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");

    // The certificate's Secret is mended, and webhook configurations get the bundle.
    let webhooks = release.install_webhooks(shop.name(), controller.tls);
    let secret = ["--namespace", release.name(), "patch", "secret"];
    let patch = r#"--patch={"data": {"tls.key": "bm9uZQ=="}}"#;
    server.kubectl(&[&secret[..], &["ringside-controller-tls", patch]].concat());
    await_that("the Secret to be mended", || {
        let path = "-o=jsonpath={.data.tls\\.key}";
        let get = ["get", "secret", "ringside-controller-tls", path];
        let key = server.kubectl(&[&["--namespace", release.name()][..], &get].concat());
        key != "bm9uZQ=="
    });

    await_that("everything to be asked", || {
        release.never_asked().is_empty()
    });
    drop(webhooks);
    drop(controller);
    release.asked_nothing_else();
    server.kubectl(&["delete", "clusterrelaypolicy", "default"]);
}

#[test]
fn without_a_permission_it_fails_and_says_which() {
    let test = "without_a_permission_it_fails_and_says_which";
    let Some(server) = installed(test) else {
        return;
    };
    let release = Installation::new(server);
    // Everything but its Lease: such a replica never leads, and its log says why.
    server.kubectl(&[
        "--namespace",
        release.name(),
        "delete",
        "rolebinding",
        "ringside-controller",
    ]);
    let controller = release.start("one");
    await_that("the log to name what is forbidden", || {
        let log = controller.process.log();
        log.contains("cannot get resource \\\"leases\\\"")
    });
    assert!(!controller.leads());
    if let Some(asked) = release.asked() {
        let forbidden = asked.iter().filter(|asked| asked.code == 403);
        assert!(
            forbidden.count() > 0,
            "the audit log tells of none: {asked:?}"
        );
    }
}
