//! Things change: the release is upgraded, rolled back, uninstalled and installed again, with traffic running. No request fails; policies, definitions
//! and certificates stay, and whoever makes pods during an upgrade gets relays.

use std::time::Instant;

use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::{RELEASE, Ringside, Story};
use serde_json::{Value, json};

use crate::admission::Admission;
use crate::served::{Served, leader};

/// The image of the newer release: that of the older one, under another tag.
const NEWER: &str = "0.1.0-newer";

/// What has to outlive whatever Helm does: who is who, and what is trusted.
#[derive(Debug, PartialEq)]
struct Kept {
    definitions: Vec<Value>,
    policy: Value,
    secret: (Value, Value),
}

#[test]
fn s07d_upgrade_rollback_uninstall_install() {
    let title = "Things change: upgrade, rollback, uninstall, install again";
    let Some(story) = Story::begin(7, title) else {
        return;
    };
    let cluster = story.cluster();
    story.step("two replicas of the controller, three pods, clients, and somebody who makes pods all the time");
    let ringside = Ringside::installed_with(cluster, &["--set=replicaCount=2"]);
    for node in [1, 2] {
        tag(cluster, node);
    }
    let served = Served::deploy(&story, 3, 5_000, |_| {});
    let load = served.clients();
    let kept = kept(&served);
    let admission = Admission::of_pods(cluster, served.namespace.name());
    let connections = Admission::of_connections(cluster);
    let helm = cluster.helm();

    story.step("helm upgrade");
    let words = Ringside::arguments(&["upgrade"]);
    let image = format!("--set=image.tag={NEWER},replicaCount=2,logLevel=debug");
    let words: Vec<&str> = words.iter().map(String::as_str).chain([&*image]).collect();
    let begin = Instant::now();
    helm.run(&words);
    story.took("`helm upgrade --wait`, two replicas", begin.elapsed());
    assert!(image_of(cluster).ends_with(NEWER), "{}", image_of(cluster));
    served.await_connected(begin);
    story.took("every sidecar is connected to the new one", begin.elapsed());
    assert_eq!(self::kept(&served), kept, "after an upgrade");
    let took = served.change_settings(6_000);
    story.took("a policy is in effect in every sidecar after `apply`", took);

    story.step("helm rollback");
    let begin = Instant::now();
    helm.run(&[
        "rollback",
        RELEASE,
        "--namespace",
        RELEASE,
        "--wait",
        "--timeout=180s",
    ]);
    story.took("`helm rollback --wait`", begin.elapsed());
    assert!(!image_of(cluster).ends_with(NEWER));
    served.await_connected(begin);
    story.took("every sidecar is connected to the old one", begin.elapsed());
    assert_eq!(self::kept(&served), kept, "after a rollback");
    let seen = admission.end();
    assert!(seen.others.is_empty(), "{seen:?}");
    story.shown(
        "pods made for trial meanwhile that got their relay; that did not",
        format_args!("{}; 0", seen.good),
    );
    let seen = connections.end();
    assert!(seen.others.is_empty(), "{seen:?}");
    story.shown(
        "connections to the controller's Service meanwhile; refused",
        format_args!("{}; 0", seen.good),
    );
    load.await_more(100);
    load.assert_no_failures("during an upgrade and a rollback");

    story.step("helm uninstall");
    let said = helm.run(&[
        "uninstall",
        RELEASE,
        "--namespace",
        RELEASE,
        "--wait",
        "--timeout=180s",
    ]);
    assert!(said.contains("kept due to the resource policy"), "{said}");
    assert_eq!(self::kept(&served), kept, "after an uninstall");
    load.await_more(200);
    for (pod, sidecar) in served.sidecars() {
        assert_eq!(sidecar.max_connections, 6_000, "{pod}: {sidecar:?}");
        assert_eq!(sidecar.connected_for, None, "{pod}");
    }
    load.assert_no_failures("without Ringside's controller");
    story.shown(
        "uninstalled: sidecars that relay on with their settings",
        "3 of 3",
    );

    story.step("helm install");
    let words = Ringside::arguments(&["install"]);
    let words = words.iter().map(String::as_str);
    let words: Vec<&str> = words.chain(["--set=replicaCount=2"]).collect();
    let begin = Instant::now();
    helm.run(&words);
    ringside.await_injection();
    story.took(
        "`helm install --wait` until pods are injected",
        begin.elapsed(),
    );
    served.await_connected(begin);
    story.took("every sidecar is connected again", begin.elapsed());
    assert_eq!(self::kept(&served), kept, "after another installation");
    let took = served.change_settings(7_000);
    story.took("a policy is in effect in every sidecar after `apply`", took);
    assert!(!leader(cluster).is_empty());
    load.await_more(100);
    let total = load
        .assert_no_failures("after another installation")
        .total();
    assert_eq!(served.untrusted(), 0.0, "sidecars trust it all the while");
    story.shown(
        "definitions, policies, certificates and who trusts them",
        "as before",
    );
    story.shown(
        "requests and pieces of streams through all of it; failed",
        format_args!("{}; 0", total.answered),
    );
}

/// Gives the controller's image on a node another tag.
fn tag(cluster: &Cluster, node: u32) {
    let image = "localhost/ringside-controller";
    let (from, to) = (format!("{image}:0.1.0"), format!("{image}:{NEWER}"));
    let mut ctr = cluster.node_command(node, "ctr");
    ctr.args(["--namespace", "k8s.io", "images", "tag", "--force"])
        .args([&from, &to]);
    let output = ctr.output().expect("ctr can be started");
    assert!(output.status.success(), "{output:?}");
}

fn image_of(cluster: &Cluster) -> String {
    let image = "--output=jsonpath={.spec.template.spec.containers[0].image}";
    let words = ["get", "deployment", "ringside-controller", image];
    cluster.kubectl(&[&["--namespace", RELEASE], &words[..]].concat())
}

fn kept(served: &Served) -> Kept {
    let get = |words: &[&str]| -> Value {
        let answer = served
            .cluster
            .kubectl(&[&["get", "--output=json"], words].concat());
        serde_json::from_str(&answer).expect("kubectl prints JSON")
    };
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let definition = |name: &str| uid(&get(&["crd", &format!("{name}.ringside.dev")]));
    let namespace = served.namespace.name();
    let secret = get(&["secret", "ringside-controller-tls", "--namespace", RELEASE]);
    Kept {
        definitions: ["relaypolicies", "clusterrelaypolicies"]
            .map(definition)
            .into(),
        policy: uid(&get(&["relaypolicy", "web", "--namespace", namespace])),
        secret: (uid(&secret), json!(secret["data"])),
    }
}
