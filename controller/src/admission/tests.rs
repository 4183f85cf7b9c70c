//! Reviews as an API server sends them, answered; and what is no review, refused. Served over a real socket where that matters.

use std::sync::Mutex;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::configuration::{Reach, Webhooks};
use super::*;
use crate::inject::Outcome;

/// A cluster as far as these tests need one.
#[derive(Default)]
struct Cluster {
    settings: Patch,
    policies: Vec<NamedPatch>,
    asked: Mutex<Vec<PodFacts>>,
    answered: Mutex<Vec<(String, String, bool)>>,
}

impl Context for Cluster {
    fn injection(&self) -> Arc<Injection> {
        Arc::new(Injection::new("1", "ringside:1"))
    }

    fn assigned(&self, pod: &PodFacts) -> Assigned {
        self.asked.lock().unwrap().push(pod.clone());
        Assigned::default()
    }

    fn cluster_settings(&self) -> Patch {
        self.settings
    }

    fn policies(&self) -> Vec<NamedPatch> {
        self.policies.clone()
    }

    fn answered(&self, namespace: &str, name: &str, injected: &Injected) {
        let did = matches!(injected.outcome, Outcome::Patch(_));
        let told = (namespace.to_owned(), name.to_owned(), did);
        self.answered.lock().unwrap().push(told);
    }
}

fn patch(yaml: &str) -> Patch {
    serde_yaml::from_str(yaml).unwrap()
}

fn review(kind: &str, operation: &str, object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5", "kind": {"group": "", "version": "v1", "kind": kind},
            "namespace": "shop", "operation": operation, "object": object,
        },
    })
}

fn pod() -> Value {
    json!({
        "metadata": {
            "generateName": "web-7c9-", "labels": {"app": "web", "ringside.dev/inject": "enabled"},
            "annotations": {"ringside.dev/policy": "web"},
        },
        "spec": {"containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080}]}]},
    })
}

fn judged(cluster: &Cluster, kind: &str, spec: Value) -> Value {
    let review = review(kind, "CREATE", json!({"spec": spec}));
    validate(&review, cluster).unwrap()["response"].clone()
}

#[test]
fn a_pod_gets_its_sidecar_by_a_patch() {
    let cluster = Cluster::default();
    let mut object = pod();
    let answer = mutate(&review("Pod", "CREATE", object.clone()), &cluster).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    let response = &answer["response"];
    assert_eq!(
        (&response["uid"], &response["allowed"]),
        (&json!("705ab4f5"), &json!(true))
    );
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = BASE64_STANDARD
        .decode(response["patch"].as_str().unwrap())
        .unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut object, &patch).unwrap();
    assert_eq!(object["spec"]["initContainers"][0]["name"], "ringside");
    // What decides about the pod's policy, and what is told of it afterwards.
    let asked = cluster.asked.lock().unwrap()[0].clone();
    assert_eq!(
        (asked.namespace.as_str(), asked.named_policy.as_deref()),
        ("shop", Some("web"))
    );
    assert_eq!(asked.labels["app"], "web");
    let told = cluster.answered.lock().unwrap().clone();
    assert_eq!(told, [("shop".to_owned(), "web-7c9-".to_owned(), true)]);
    // A second time there is nothing to add.
    let again = mutate(&review("Pod", "CREATE", object), &cluster).unwrap();
    assert_eq!(again["response"]["patch"], Value::Null);
    assert_eq!(again["response"]["allowed"], true);
}

#[test]
fn no_pod_is_ever_denied() {
    let mut odd = pod();
    odd["metadata"]["annotations"]["ringside.dev/workers"] = json!("many");
    odd["metadata"]["annotations"]["ringside.dev/relay"] = json!("x,".repeat(100));
    let objects = [
        odd,
        json!(null),
        json!([]),
        json!({"spec": 1}),
        json!({"spec": {"containers": {}}}),
    ];
    for object in objects {
        for (kind, operation) in [
            ("Pod", "CREATE"),
            ("Pod", "UPDATE"),
            ("Secret", "CREATE"),
            ("", ""),
        ] {
            let answer = mutate(
                &review(kind, operation, object.clone()),
                &Cluster::default(),
            )
            .unwrap();
            let response = &answer["response"];
            assert_eq!(response["allowed"], true);
            let warnings = response["warnings"].as_array().unwrap();
            let lengths = warnings
                .iter()
                .map(|warning| warning.as_str().unwrap().len());
            assert!(
                (1..=13).contains(&warnings.len()) && lengths.max().unwrap() <= 256,
                "{warnings:?}"
            );
        }
    }
}

#[test]
fn a_namespace_that_cannot_be_is_not_looked_for_and_nothing_long_is_told() {
    let cluster = Cluster::default();
    let of = |namespace: &str, name: &str| {
        let mut review = review("Pod", "CREATE", pod());
        review["request"]["namespace"] = json!(namespace);
        review["request"]["name"] = json!(name);
        mutate(&review, &cluster).unwrap()["response"].clone()
    };
    let response = of(&"n".repeat(64), "web");
    assert_eq!(
        (&response["allowed"], &response["patch"]),
        (&json!(true), &Value::Null)
    );
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(warning.contains("more than 63 bytes"), "{warning}");
    assert!(cluster.asked.lock().unwrap().is_empty());
    assert!(cluster.answered.lock().unwrap().is_empty());
    let longest = "n".repeat(63);
    assert_eq!(of(&longest, &"ä".repeat(1 << 20))["patchType"], "JSONPatch");
    let told = cluster.answered.lock().unwrap().clone();
    assert_eq!(told, [(longest, "ä".repeat(126), true)]);
}

#[test]
fn what_has_no_uid_cannot_be_answered() {
    for body in [
        json!(null),
        json!([]),
        json!({}),
        json!({"request": {}}),
        json!({"request": {"uid": ""}}),
        json!({"request": {"uid": 7}}),
    ] {
        let refused = [
            mutate(&body, &Cluster::default()),
            validate(&body, &Cluster::default()),
        ];
        for error in refused.map(Result::unwrap_err) {
            assert!(error.to_string().ends_with("is missing"), "{error}");
        }
    }
}

#[test]
fn a_policy_is_judged_over_the_layer_below() {
    let spec = json!({"podSelector": {}, "batch": {"min": 128}});
    let alone = judged(&Cluster::default(), "RelayPolicy", spec.clone());
    assert_eq!(
        (&alone["allowed"], &alone["warnings"]),
        (&json!(true), &Value::Null)
    );
    let cluster = Cluster {
        settings: patch("{batch: {max: 64}}"),
        ..Cluster::default()
    };
    let merged = judged(&cluster, "RelayPolicy", spec);
    assert_eq!(merged["allowed"], false);
    let message = merged["status"]["message"].as_str().unwrap();
    for told in ["batch.min", "128", "64", "set by: RelayPolicy"] {
        assert!(message.contains(told), "{message}");
    }
    // A layer below that is wrong is told of, and denies nothing.
    let broken = Cluster {
        settings: patch("{batch: {min: 100000}}"),
        ..Cluster::default()
    };
    let allowed = judged(&broken, "RelayPolicy", json!({"batch": {"max": 64}}));
    assert_eq!(allowed["allowed"], true);
    assert!(
        allowed["warnings"][0]
            .as_str()
            .unwrap()
            .contains("judged without it"),
        "{allowed}"
    );
}

#[test]
fn what_is_wrong_in_a_policy_is_named() {
    for (spec, told) in [
        (
            json!({"accept": {"maxPerSecond": 0}}),
            vec!["accept.maxPerSecond", "is 0", "between 1 and 1000000"],
        ),
        (json!({"bach": {}}), vec!["did you mean `batch`?"]),
        (
            json!({"timeouts": {"idle": "1d"}}),
            vec!["us, ms, s, m or h"],
        ),
        (
            json!({"podSelector": {"matchLabels": {"app": "my app"}}}),
            vec!["matchLabels", "`my app`"],
        ),
        (
            json!({"podSelector": {"matchLabels": {"a b/c": ""}}}),
            vec!["matchLabels", "`a b/c`"],
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Near"}]}}),
            vec!["podSelector", "Near"],
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}),
            vec!["In of `app`", "at least one value"],
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]}}),
            vec!["Exists of `app`", "no values"],
        ),
        (json!({"podSelector": 7}), vec!["podSelector"]),
        (json!("text"), vec!["spec is not allowed"]),
    ] {
        let response = judged(&Cluster::default(), "RelayPolicy", spec.clone());
        assert_eq!(response["allowed"], false, "{spec}");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(told.iter().all(|word| message.contains(word)), "{message}");
    }
}

#[test]
fn what_is_odd_is_allowed_with_a_warning() {
    for (spec, told) in [
        (json!({"podSelector": {}}), "sets nothing"),
        (
            json!({"readiness": {"maxUnreadyPercent": 100}}),
            "all pods may leave",
        ),
    ] {
        let response = judged(&Cluster::default(), "RelayPolicy", spec);
        assert_eq!(response["allowed"], true);
        assert!(
            response["warnings"][0].as_str().unwrap().contains(told),
            "{response}"
        );
    }
}

#[test]
fn a_cluster_policy_tells_which_policies_it_breaks() {
    let named = |name: &str, yaml: &str| NamedPatch {
        name: name.to_owned(),
        settings: patch(yaml),
    };
    let mut policies = vec![named("shop/fine", "{tcp: {noDelay: false}}")];
    policies
        .extend((0..7).map(|turn| named(&format!("shop/broken-{turn}"), "{batch: {min: 128}}")));
    let cluster = Cluster {
        policies,
        ..Cluster::default()
    };
    let response = judged(
        &cluster,
        "ClusterRelayPolicy",
        json!({"batch": {"max": 64}}),
    );
    assert_eq!(response["allowed"], true);
    let warnings = response["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 6, "{warnings:?}");
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .starts_with("RelayPolicy shop/broken-0")
    );
    assert!(warnings[5].as_str().unwrap().contains("2 more"));
    let refused = judged(&cluster, "ClusterRelayPolicy", json!({"batch": {"max": 0}}));
    assert_eq!(refused["allowed"], false);
    assert!(
        refused["status"]["message"]
            .as_str()
            .unwrap()
            .contains("set by: ClusterRelayPolicy")
    );
}

#[test]
fn what_does_not_change_is_not_judged_again() {
    let bad = json!({"spec": {"batch": {"max": 0}}});
    let answer = |operation: &str, object: Value, old: Value| {
        let mut review = review("RelayPolicy", operation, object);
        review["request"]["oldObject"] = old;
        validate(&review, &Cluster::default()).unwrap()["response"]["allowed"] == true
    };
    assert!(!answer("UPDATE", bad.clone(), json!({"spec": {}})));
    assert!(answer("UPDATE", bad.clone(), bad.clone()));
    assert!(answer("DELETE", Value::Null, bad.clone()));
    let mut leaving = bad;
    leaving["metadata"] = json!({"deletionTimestamp": "2026-11-22T05:10:00Z"});
    assert!(answer("UPDATE", leaving, json!({"spec": {}})));
}

/// The answer to a request with this body: its status and its text.
async fn post(port: u16, path: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // One that is refused for its length may be answered before it is read.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn the_routes_answer_over_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = router(Arc::new(Cluster::default()));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let body = review("Pod", "CREATE", pod()).to_string();
    let (status, answer) = post(port, INJECT_PATH, body.as_bytes()).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (status, &answer["response"]["patchType"]),
        (200, &json!("JSONPatch"))
    );
    let body = review(
        "RelayPolicy",
        "CREATE",
        json!({"spec": {"batch": {"max": 0}}}),
    )
    .to_string();
    let (status, answer) = post(port, VALIDATE_PATH, body.as_bytes()).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (status, &answer["response"]["allowed"]),
        (200, &json!(false))
    );
    let deep = "[".repeat(100_000);
    for (path, body, expected) in [
        (INJECT_PATH, "{", 400),
        (INJECT_PATH, "", 400),
        (INJECT_PATH, deep.as_str(), 400),
        (VALIDATE_PATH, "{\"request\": {}}", 400),
        ("/other", "{}", 404),
    ] {
        let (status, answer) = post(port, path, body.as_bytes()).await;
        assert_eq!(status, expected, "{answer}");
    }
    let objects = |number: usize| {
        let objects = "{\"\":0},".repeat(number);
        format!("{{\"request\":{{\"uid\":\"u\",\"x\":[{objects}0]}}}}")
    };
    // Besides the objects of the list, each with its comma, there are two objects, a comma and the list.
    let most = (super::routes::PARTS_MOST - 4) / 2;
    let (status, answer) = post(port, INJECT_PATH, objects(most).as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    for too_many in [most + 1, BODY_BYTES_MOST / 8] {
        let (status, answer) = post(port, INJECT_PATH, objects(too_many).as_bytes()).await;
        assert_eq!(status, 413, "{answer}");
        assert!(answer.contains("more than 100000 objects"), "{answer}");
    }
    // Whole before it is answered, so that no reset hides the answer.
    let (status, _) = post(port, INJECT_PATH, &vec![b' '; BODY_BYTES_MOST + 1]).await;
    assert_eq!(status, 413);
    server.abort();
}

#[test]
fn the_configurations_say_what_is_asked_and_what_happens_without_an_answer() {
    let mut webhooks = Webhooks {
        name: "ringside".to_owned(),
        labels: BTreeMap::new(),
        reach: Reach::Service {
            namespace: "ringside".to_owned(),
            name: "ringside-controller".to_owned(),
            port: 443,
        },
        ca_pem: Some("PEM".to_owned()),
        release_namespace: "ringside".to_owned(),
    };
    let mutating = webhooks.mutating();
    let hook = &mutating["webhooks"][0];
    assert_eq!(hook["clientConfig"]["service"]["path"], INJECT_PATH);
    assert_eq!(
        hook["clientConfig"]["caBundle"],
        BASE64_STANDARD.encode("PEM")
    );
    assert_eq!(
        hook["namespaceSelector"]["matchExpressions"][0]["values"],
        json!(["kube-system", "ringside"])
    );
    webhooks.reach = Reach::Url("https://127.0.0.1:9443/".to_owned());
    webhooks.ca_pem = None;
    let validating = webhooks.validating();
    assert_eq!(
        validating["webhooks"][0]["clientConfig"],
        json!({"url": "https://127.0.0.1:9443/validate"})
    );
    // Fields that no API server knows would be dropped by the types on the way.
    use k8s_openapi::api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
    };
    let typed: MutatingWebhookConfiguration = serde_json::from_value(mutating.clone()).unwrap();
    assert_eq!(
        serde_json::to_value(typed).unwrap()["webhooks"],
        mutating["webhooks"]
    );
    let typed: ValidatingWebhookConfiguration = serde_json::from_value(validating.clone()).unwrap();
    assert_eq!(
        serde_json::to_value(typed).unwrap()["webhooks"],
        validating["webhooks"]
    );
    for hook in [hook, &validating["webhooks"][0]] {
        assert_eq!(
            (&hook["failurePolicy"], &hook["sideEffects"]),
            (&json!("Ignore"), &json!("None"))
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(text in "\\PC{0,64}", uid in any::<bool>()) {
        let mut review = serde_json::from_str(&text).unwrap_or_else(|_| json!({"request": {"object": text.clone(), "oldObject": text, "kind": {"kind": "RelayPolicy"}, "operation": "UPDATE"}}));
        if uid && review["request"].is_object() {
            review["request"]["uid"] = json!("u");
        }
        for answer in [mutate(&review, &Cluster::default()), validate(&review, &Cluster::default())] {
            let has_uid = review["request"]["uid"] == "u";
            prop_assert_eq!(answer.is_ok_and(|answer| answer["response"]["uid"] == "u"), has_uid);
        }
    }
}
