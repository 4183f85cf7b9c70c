//! The rig itself: an API server that is real, and what tests do to it and around it.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use ringside_e2e::apiserver::{self, ApiServer};
use ringside_e2e::forwarder::{Forwarder, Passage};
use ringside_e2e::identity::{self, AUDIENCE};
use ringside_e2e::kubelet::Kubelet;
use ringside_e2e::proxy::{Fault, Proxy, Requests};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for a test")
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "serviceAccountName": "default",
            "initContainers": [{"name": "sidecar", "image": "sidecar", "restartPolicy": "Always"}, {"name": "once", "image": "once"}],
            "containers": [{"name": "app", "image": "app"}],
        },
    })
}

fn map(name: &str) -> ConfigMap {
    let map = json!({"metadata": {"name": name}, "data": {"key": "value"}});
    serde_json::from_value(map).expect("the fields of a ConfigMap")
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[test]
fn it_is_the_version_that_is_pinned_and_keeps_what_kubectl_makes() {
    let test = "it_is_the_version_that_is_pinned_and_keeps_what_kubectl_makes";
    let Some(server) = ApiServer::shared(test) else {
        return;
    };
    if std::env::var_os("E2E_KUBECONFIG").is_none() {
        let version: Value =
            serde_json::from_str(&server.kubectl(&["version", "-o=json"])).unwrap();
        for side in ["clientVersion", "serverVersion"] {
            assert_eq!(version[side]["gitVersion"], apiserver::version(), "{side}");
        }
    }
    let namespace = server.namespace("kept");
    assert!(
        server
            .kubectl(&["get", "namespaces", "-o=name"])
            .contains(&format!("namespace/{}\n", namespace.name()))
    );
    namespace.kubectl(&["create", "configmap", "one", "--from-literal=key=value"]);
    let kept = namespace.kubectl(&["get", "configmap", "one", "-o=jsonpath={.data.key}"]);
    assert_eq!(kept, "value");
    let refused = namespace.try_kubectl_with(
        &["apply", "-f", "-"],
        r#"{"kind": "Nothing", "apiVersion": "v1", "metadata": {"name": "x"}}"#,
    );
    assert!(!refused.status.success());
    assert!(
        refused.err.contains("no matches for kind \"Nothing\""),
        "{refused}"
    );
}

#[test]
fn a_token_tells_which_pod_has_it_and_is_for_one_audience() {
    let test = "a_token_tells_which_pod_has_it_and_is_for_one_audience";
    let Some(server) = ApiServer::shared(test) else {
        return;
    };
    let namespace = server.namespace("token");
    runtime().block_on(async {
        let client = server.client();
        let kubelet = Kubelet::new(client.clone(), namespace.name(), "n1");
        let bound = kubelet.create(pod("web-1")).await.unwrap();
        let token = identity::token(&client, namespace.name(), "default", AUDIENCE, Some(&bound))
            .await
            .unwrap();

        let reviewed = identity::review(&client, &token, AUDIENCE).await.unwrap();
        assert_eq!(reviewed.authenticated, Some(true), "{reviewed:?}");
        assert_eq!(reviewed.audiences, Some(vec![AUDIENCE.to_owned()]));
        let user = reviewed.user.unwrap();
        assert_eq!(
            user.username,
            Some(format!(
                "system:serviceaccount:{}:default",
                namespace.name()
            ))
        );
        let extra = user.extra.unwrap();
        assert_eq!(extra["authentication.kubernetes.io/pod-name"], ["web-1"]);
        assert_eq!(
            extra["authentication.kubernetes.io/pod-uid"],
            [bound.uid().unwrap()]
        );

        let other = identity::review(&client, &token, "other.example")
            .await
            .unwrap();
        assert_ne!(other.authenticated, Some(true), "{other:?}");
        // Not its last letter, most of whose bits mean nothing.
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        let spoilt = format!("{signed}.{first}{}", &signature[1..]);
        let spoilt = identity::review(&client, &spoilt, AUDIENCE).await.unwrap();
        assert_ne!(spoilt.authenticated, Some(true), "{spoilt:?}");

        // It is good for the controller, and for nothing at the API server.
        let with_token = server.kubectl_as(
            &server.kubeconfig_with_token(&token),
            &["get", "namespaces"],
        );
        assert!(
            with_token.err.contains("Unauthorized") || with_token.err.contains("must be logged in"),
            "{with_token}"
        );
    });
}

#[test]
fn roles_are_enforced() {
    let Some(server) = ApiServer::shared("roles_are_enforced") else {
        return;
    };
    let namespace = server.namespace("roles");
    runtime().block_on(async {
        let client = server.client();
        // The API server's own audience: that of its issuer.
        let token = identity::token(
            &client,
            namespace.name(),
            "default",
            "https://kubernetes.default.svc",
            None,
        )
        .await
        .unwrap();
        let kubeconfig = server.kubeconfig_with_token(&token);
        let list = ["--namespace", namespace.name(), "get", "configmaps"];
        let refused = server.kubectl_as(&kubeconfig, &list);
        assert!(refused.err.contains("forbidden"), "{refused}");

        namespace.kubectl(&[
            "create",
            "role",
            "reader",
            "--verb=list",
            "--resource=configmaps",
        ]);
        let account = format!("--serviceaccount={}:default", namespace.name());
        namespace.kubectl(&["create", "rolebinding", "reader", "--role=reader", &account]);
        // The authorizer watches roles: a moment later.
        ringside_tests::await_that("the role to be known", || {
            server.kubectl_as(&kubeconfig, &list).status.success()
        });
    });
}

#[test]
fn a_restart_keeps_data_and_address() {
    let Some(server) = ApiServer::own("a_restart_keeps_data_and_address") else {
        return;
    };
    let namespace = server.namespace("restart");
    namespace.kubectl(&["create", "configmap", "one", "--from-literal=key=value"]);
    server.kill();
    let refused = server.try_kubectl(&["get", "namespaces"]);
    assert!(refused.err.contains("refused"), "{refused}");
    let begin = Instant::now();
    server.start_again();
    eprintln!("the API server was back after {:?}", begin.elapsed());
    let kept = namespace.kubectl(&["get", "configmap", "one", "-o=jsonpath={.data.key}"]);
    assert_eq!(kept, "value");
}

#[test]
fn a_pod_is_as_the_kubelet_says() {
    let Some(server) = ApiServer::shared("a_pod_is_as_the_kubelet_says") else {
        return;
    };
    let namespace = server.namespace("kubelet");
    namespace.apply(&pod("web-1").to_string());
    let wait = |condition: &str| {
        let condition = format!("--for={condition}");
        namespace.kubectl(&["wait", "pod/web-1", &condition, "--timeout=60s"]);
    };
    let runtime = runtime();
    let kubelet = runtime.block_on(async { Kubelet::new(server.client(), namespace.name(), "n1") });

    let early = namespace.try_kubectl_with(
        &["wait", "pod/web-1", "--for=condition=Ready", "--timeout=0s"],
        "",
    );
    assert!(!early.status.success(), "{early}");
    let started = runtime.block_on(kubelet.start("web-1")).unwrap();
    wait("condition=Ready");
    let shown = namespace.kubectl(&["get", "pod", "web-1", "--no-headers", "-o=wide"]);
    // The native sidecar and the application: two of two.
    assert!(
        shown.contains("2/2") && shown.contains("Running") && shown.contains("n1"),
        "{shown}"
    );

    runtime.block_on(kubelet.set_ready("web-1", false)).unwrap();
    wait("condition=Ready=false");
    let again = runtime.block_on(kubelet.set_ready("web-1", true)).unwrap();
    wait("condition=Ready");
    let address = |pod: &Pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    assert_eq!(address(&started), address(&again));

    let early = runtime.block_on(kubelet.finish("web-1")).unwrap_err();
    assert_eq!(code(&early), Some(409));
    runtime.block_on(kubelet.delete("web-1")).unwrap();
    let ending = namespace.kubectl(&[
        "get",
        "pod",
        "web-1",
        "-o=jsonpath={.metadata.deletionGracePeriodSeconds}",
    ]);
    assert_eq!(ending, "30");
    runtime.block_on(kubelet.finish("web-1")).unwrap();
    wait("delete");
}

#[test]
fn the_proxy_fails_on_command_and_recovers() {
    let Some(server) = ApiServer::shared("the_proxy_fails_on_command_and_recovers") else {
        return;
    };
    let namespace = server.namespace("proxy");
    let proxy = Proxy::start(server);
    runtime().block_on(async {
        let client = proxy.client();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace.name());
        let create = async |name: &str| maps.create(&PostParams::default(), &map(name)).await;
        create("one").await.unwrap();

        let posts = Requests::all().method(Method::POST).path("/configmaps");
        for status in [409, 410, 500] {
            let answer = Fault::Answer(StatusCode::from_u16(status).unwrap());
            proxy.fail(posts.clone(), answer);
            assert_eq!(code(&create("two").await.unwrap_err()), Some(status));
            // Nothing else fails meanwhile.
            assert_eq!(
                maps.list(&ListParams::default()).await.unwrap().items.len(),
                1
            );
            proxy.lift();
        }
        create("two").await.unwrap();
        // After these the client itself asks again.
        for (status, name) in [(429, "throttled"), (503, "unavailable")] {
            let answer = Fault::Answer(StatusCode::from_u16(status).unwrap());
            let before = proxy.count(&posts);
            proxy.fail_times(1, posts.clone(), answer);
            create(name).await.unwrap();
            assert_eq!(proxy.count(&posts), before + 2);
        }

        proxy.fail_times(1, posts.clone(), Fault::Cut);
        assert_eq!(code(&create("three").await.unwrap_err()), None);
        create("three").await.unwrap();
        proxy.fail_times(1, posts.clone(), Fault::LoseAnswer);
        assert_eq!(code(&create("four").await.unwrap_err()), None);
        assert_eq!(
            code(&create("four").await.unwrap_err()),
            Some(409),
            "it was made, and the answer lost"
        );

        proxy.fail(posts.clone(), Fault::Hang);
        let mut hanging = Box::pin(create("five"));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut hanging).await;
        assert!(early.is_err(), "{early:?}");
        proxy.lift();
        hanging.await.unwrap();

        let seen = proxy.count(&Requests::all().path(namespace.name()));
        assert!(seen > 10, "{:?}", proxy.seen());
    });

    // Whoever has a token stays who it is.
    let kubeconfig = proxy.kubeconfig_with_token("nonsense");
    let refused = server.kubectl_as(&kubeconfig, &["get", "namespaces"]);
    assert!(!refused.status.success(), "{refused}");
    let listed = server.kubectl_as(&proxy.kubeconfig(), &["get", "namespaces"]);
    assert!(listed.status.success(), "{listed}");
}

/// A watch of a namespace's ConfigMaps.
struct Watch(kube::client::Body);

impl Watch {
    async fn begin(client: &Client, namespace: &str) -> Self {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps?watch=true");
        let request = hyper::Request::get(path).body(kube::client::Body::empty());
        let response = client.send(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Self(response.into_body())
    }

    /// The next event; nothing if the watch has ended or broken.
    async fn next(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let frame = self.0.frame().await?.ok()?;
            line.extend_from_slice(frame.data_ref()?);
        }
        Some(serde_json::from_slice(&line).unwrap())
    }
}

#[test]
fn watches_go_through_the_proxy_expire_and_are_cut() {
    let Some(server) = ApiServer::shared("watches_go_through_the_proxy_expire_and_are_cut") else {
        return;
    };
    let namespace = server.namespace("watch");
    let proxy = Proxy::start(server);
    runtime().block_on(async {
        let client = proxy.client();
        let maps: Api<ConfigMap> = Api::namespaced(server.client(), namespace.name());

        let mut watch = Watch::begin(&client, namespace.name()).await;
        maps.create(&PostParams::default(), &map("one"))
            .await
            .unwrap();
        let event = watch.next().await.unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!("one"))
        );
        proxy.cut();
        assert_eq!(watch.next().await, None);

        proxy.fail_times(1, Requests::all().watches(), Fault::ExpireWatch);
        let mut watch = Watch::begin(&client, namespace.name()).await;
        let event = watch.next().await.unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["code"]),
            (&json!("ERROR"), &json!(410))
        );
        assert_eq!(watch.next().await, None);

        let mut watch = Watch::begin(&client, namespace.name()).await;
        assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    });
}

#[test]
fn the_forwarder_stalls_slows_and_breaks() {
    let Some(server) = ApiServer::shared("the_forwarder_stalls_slows_and_breaks") else {
        return;
    };
    let (forwarder, kubeconfig) = Forwarder::to(server);
    let list = || server.kubectl_as(&kubeconfig, &["get", "namespaces", "--request-timeout=20s"]);
    assert!(list().status.success(), "{}", list());

    forwarder.set(Passage::Stalled);
    let stalled = server.kubectl_as(
        &kubeconfig,
        &["get", "namespaces", "--request-timeout=300ms"],
    );
    assert!(!stalled.status.success(), "{stalled}");
    forwarder.set(Passage::Closed);
    assert!(!list().status.success());
    forwarder.set(Passage::Slow {
        bytes: 512,
        every: Duration::from_millis(2),
    });
    assert!(list().status.success(), "{}", list());
    forwarder.set(Passage::Open);
    assert!(list().status.success(), "{}", list());

    // A connection that is kept for the next request is not usable any more, and the client makes a new one.
    runtime().block_on(async {
        let mut config = server.config();
        config.cluster_url = format!("https://{}", forwarder.address()).parse().unwrap();
        let client = Client::try_from(config).unwrap();
        client.apiserver_version().await.unwrap();
        forwarder.cut();
        let mut tries = 0;
        while client.apiserver_version().await.is_err() {
            tries += 1;
            assert!(tries < 3, "a new connection is not made");
        }
    });
}
