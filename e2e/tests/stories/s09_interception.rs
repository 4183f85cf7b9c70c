//! Interception: an application's own port goes through the relay, and neither Services nor clients change; the application is told who they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::{Application, Load, Ringside, Story, await_within, container};
use ringside_tests::http;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

/// nginx, which can be told of clients, and says what it was told.
const NGINX_IMAGE: &str = "localhost/nginx:e2e";

/// Its answer: the client by the PROXY header, the port that was meant, and who has connected.
const NGINX: &str = r#"pid /tmp/nginx.pid; error_log stderr; worker_processes 1; events {}
http {
  access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 8080 proxy_protocol; location / { return 200 "$proxy_protocol_addr $proxy_protocol_server_port $remote_addr\n"; } }
}"#;

#[test]
fn s09_interception() {
    let Some(story) = Story::begin(9, "Interception") else {
        return;
    };
    let cluster = story.cluster();
    Ringside::installed(cluster);
    let shop = story.namespace("shop");

    story.step("an application without a relay, and clients of its Service");
    let web = Application::deploy(cluster, &shop, "web", 2, |deployment| {
        let template = &mut deployment["spec"]["template"];
        template["metadata"] = json!({"labels": {"app": "web"}});
        // Where the client meant to go, the relay goes: the loopback alone would not do.
        template["spec"]["containers"] = json!([container(&["serve", "0.0.0.0:8080", "3000"])]);
    });
    shop.apply(&own_port("web").to_string());
    let service = service_spec(&shop, "web");
    let load = Load::start(
        cluster,
        &shop,
        "clients",
        "web:80",
        &["keep=keep:4:20:10000", "each=each:4:20:10000"],
    );
    load.await_more(50);

    story.step("a label and an annotation on its pods, and nothing else");
    let asks = json!({"spec": {"template": {"metadata": {
        "labels": {"ringside.dev/inject": "enabled"},
        "annotations": {"ringside.dev/intercept": "8080", "ringside.dev/workers": "1"},
    }}}});
    shop.kubectl(&["patch", "deployment", "web", "--patch", &asks.to_string()]);
    web.await_rollout();
    load.await_more(200);
    let seen = load
        .assert_no_failures("while the relay came into its way")
        .total();
    assert_eq!(
        service_spec(&shop, "web"),
        service,
        "the Service is as it was"
    );
    story.shown(
        "requests over the rollout to intercepted pods, the Service unchanged",
        format_args!("{} answered, {} failed", seen.answered, seen.failed),
    );
    for pod in web.addresses().keys() {
        let pod = shop.kubectl(&["get", "pod", pod, "--output=json"]);
        let pod: Value = serde_json::from_str(&pod).expect("kubectl prints JSON");
        let initial = &pod["spec"]["initContainers"];
        assert_eq!(initial[0]["name"], "ringside", "{pod}");
        assert_eq!(initial[1]["name"], "ringside-intercept", "{pod}");
        assert_eq!(
            initial[0]["securityContext"]["capabilities"]["drop"][0], "ALL",
            "{pod}"
        );
    }

    story.step("every connection is relayed");
    // Counts of both sides are not of one moment: what clients made lies within the longer while of the relays, and around the shorter one.
    let (outer, then, inner) = (opened(&web), load.report().total(), opened(&web));
    load.await_more(200);
    let (inner, now) = (opened(&web) - inner, load.report().total());
    let made = (now.connections - then.connections) as f64;
    let outer = await_within(PATIENCE, "the relays to count what clients made", || {
        let relayed = opened(&web) - outer;
        (relayed >= made).then_some(relayed)
    });
    // Each client may have one that it has not counted yet.
    assert!(
        made > 0.0 && inner <= made + 8.0,
        "{inner} relayed, {made} made"
    );
    story.shown(
        "connections made by clients in a while, relayed in one that is a little longer, and shorter",
        format_args!("{made}, {outer}, {inner}"),
    );

    story.step("what is not relayed");
    shop.kubectl(&["delete", "pod", "clients"]);
    let (pod, address) = web.addresses().into_iter().next().expect("two pods");
    let admin = SocketAddr::new(address.parse().expect("an address"), 15490);
    let before = opened(&web);
    shop.kubectl(&[
        "exec",
        &pod,
        "--container=app",
        "--",
        "/proc/1/exe",
        "ask",
        "127.0.0.1:8080",
        "5",
        "1",
    ]);
    assert!(
        (opened(&web) - before).abs() < 0.5,
        "the pod's own connections to itself were relayed"
    );
    story.shown(
        "a container of the pod asks localhost",
        "answered, not relayed",
    );
    let relay = SocketAddr::new(admin.ip(), 15080);
    let answer = cluster.inside(|| http::get(relay, "/"));
    assert!(
        answer.is_err(),
        "the relay's own port is no way in: {answer:?}"
    );
    let reason = [("reason", "not_redirected")];
    let metrics = web.metrics();
    assert!(metrics[&pod].sum("ringside_connections_closed_total", &reason) >= 1.0);
    story.shown(
        "a connection to the relay's own port",
        "closed: not_redirected",
    );

    story.step("who the client is, by PROXY protocol");
    cluster.load_made(
        NGINX_IMAGE,
        &["--package", "nginx-light", "--package", "wrk"],
    );
    let told = told(cluster, &shop);
    let load = Load::start(
        cluster,
        &shop,
        "guests",
        "told:80",
        &["each=each:2:50:10000"],
    );
    load.await_more(20);
    let seen = load.assert_no_failures("through PROXY protocol").total();
    let guest = "--output=jsonpath={.status.podIP}";
    let guest = shop.kubectl(&["get", "pod", "guests", guest]);
    let pods: Vec<String> = told.addresses().into_values().collect();
    for said in seen.by_pod.keys() {
        let words: Vec<&str> = said.split(' ').collect();
        assert_eq!(
            words[..2],
            [guest.as_str(), "8080"],
            "who the application was told of: {said}"
        );
        assert!(
            pods.iter().any(|pod| pod == words[2]),
            "and who has connected: {said}"
        );
    }
    story.shown(
        "the client's address as the application is told it, and as its socket has it",
        "the client pod's; the pod's own",
    );

    story.step("a namespace that does not allow it");
    let strict = story.namespace("strict");
    let enforce = "pod-security.kubernetes.io/enforce=baseline";
    cluster.kubectl(&["label", "namespace", strict.name(), enforce]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "labels": {"ringside.dev/inject": "enabled"}, "annotations": {"ringside.dev/intercept": "8080"}},
        "spec": {"containers": [container(&["serve", "0.0.0.0:8080", "0"])]},
    });
    let refused = strict.try_kubectl_with(&["apply", "-f", "-"], &pod.to_string());
    assert!(refused.err.contains("ringside-intercept"), "{refused}");
    assert!(refused.err.contains("NET_ADMIN"), "{refused}");
    story.shown(
        "a pod that asks for it in a namespace with Pod Security \"baseline\"",
        "refused, for NET_ADMIN",
    );
}

/// A Service whose port 80 leads to the application's own port.
fn own_port(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

fn service_spec(namespace: &Namespace<'_>, name: &str) -> Value {
    let service = namespace.kubectl(&["get", "service", name, "--output=json"]);
    let service: Value = serde_json::from_str(&service).expect("kubectl prints JSON");
    service["spec"].clone()
}

/// Connections that all sidecars together have taken.
fn opened(web: &Application) -> f64 {
    let relay = [("relay", "intercept-8080")];
    let metrics = web.metrics();
    metrics
        .values()
        .map(|one| one.sum("ringside_connections_opened_total", &relay))
        .sum()
}

/// nginx with two pods, probed by the kubelet through the relay.
fn told(cluster: &'static Cluster, shop: &Arc<Namespace<'static>>) -> Application {
    let settings = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "told"}, "data": {"nginx.conf": NGINX},
    });
    shop.apply(&settings.to_string());
    let told = Application::apply(cluster, shop, "told", 2, |deployment| {
        let template = &mut deployment["spec"]["template"];
        template["metadata"]["annotations"] = json!({
            "ringside.dev/intercept": "8080", "ringside.dev/proxy-protocol": "intercept-8080", "ringside.dev/workers": "1",
        });
        let spec = &mut template["spec"];
        spec["volumes"] = json!([{"name": "settings", "configMap": {"name": "told"}}]);
        spec["containers"] = json!([{
            "name": "app", "image": NGINX_IMAGE, "imagePullPolicy": "Never",
            "command": ["nginx", "-c", "/settings/nginx.conf", "-g", "daemon off;"],
            "securityContext": {"runAsUser": 1000},
            "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        }]);
    });
    shop.apply(&own_port("told").to_string());
    await_within(PATIENCE, "nginx to be asked through the relay", || {
        (told
            .pods()
            .iter()
            .filter(|pod| ringside_e2e::story::is_ready(pod))
            .count()
            == 2)
            .then_some(())
    });
    told
}
