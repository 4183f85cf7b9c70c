//! Injection into whatever JSON there is: nothing panics, nothing is lost, and a second time changes nothing.

use json_patch::PatchOperation;
use proptest::prelude::*;
use ringside_api::{Config, Target};
use serde_json::{Value, json};

use super::*;

fn injection() -> Injection {
    Injection {
        controller: Some(Controller {
            name: "ringside-controller.ringside.svc".to_owned(),
            port: 443,
            address: Some("10.96.0.7:443".parse().unwrap()),
            ca_pem: "PEM".to_owned(),
        }),
        unlabelled: Unlabelled::InjectAndLabel,
        ..Injection::new("1", "ringside:1")
    }
}

/// Whether all of `before` is in `after`; null is nothing, and what is stamped is the injector's.
fn holds(after: &Value, before: &Value) -> bool {
    match (before, after) {
        (Value::Null, _) => true,
        (Value::Object(before), Value::Object(after)) => before.iter().all(|(key, value)| {
            [INJECTED_ANNOTATION, SETTINGS_ANNOTATION, CA_ANNOTATION].contains(&key.as_str())
                || after
                    .get(key)
                    .map_or(value.is_null(), |after| holds(after, value))
        }),
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            before
                .iter()
                .all(|member| rest.any(|other| other == member))
        }
        _ => before == after,
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1_i64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9./=:,-]{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..3).prop_map(|fields| json!(fields)),
        ]
    })
}

/// Ports where collisions are likely.
fn a_port() -> impl Strategy<Value = u64> {
    prop_oneof![15_078_u64..15_084, 15_489_u64..15_492, 0_u64..70_000]
}

fn a_container() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["app", "web", "db", "api", "x", "y", "z", "ringside"]);
    let port_name = prop::sample::select(vec!["web", "ringside-8080", "ringside-admin", "http"]);
    let port =
        (a_port(), port_name).prop_map(|(port, name)| json!({"containerPort": port, "name": name}));
    (
        name,
        prop::collection::vec(port, 0..10),
        a_port(),
        any_json(),
        any::<bool>(),
    )
        .prop_map(|(name, ports, probe, odd, always)| {
            let policy = if always { json!("Always") } else { odd.clone() };
            json!({
                "name": name, "ports": ports, "restartPolicy": policy, "resources": odd,
                "livenessProbe": {"httpGet": {"port": probe}},
                "volumeMounts": [{"name": "run", "mountPath": "/run"}, odd],
            })
        })
}

fn an_annotation() -> impl Strategy<Value = (String, Value)> {
    let key = prop::sample::select(vec![
        "relay",
        "proxy-protocol",
        "intercept",
        "backend",
        "workers",
        "log-level",
        "image",
        "cpu-request",
        "cpu-limit",
        "memory-request",
        "memory-limit",
        "injected",
        "typo",
    ]);
    let item = (
        prop::sample::select(vec!["web", "http", "api", "A", ""]),
        a_port(),
        a_port(),
    )
        .prop_map(|(name, listen, target)| format!("{name}={listen}:{target}"));
    let socket = a_port().prop_map(|listen| format!("db={listen}:unix:/run/$(HOME)/db.sock"));
    let relays = prop::collection::vec(prop_oneof![item, socket, "[ -~]{0,20}"], 0..5)
        .prop_map(|items| json!(items.join(",")));
    let ports = prop::collection::vec(a_port().prop_map(|port| port.to_string()), 1..4)
        .prop_map(|ports| json!(ports.join(", ")));
    let value = prop_oneof![
        relays,
        ports,
        prop::sample::select(vec!["ring", "2", "64Mi", "1", "debug", "web"]).prop_map(Value::from),
        any_json(),
    ];
    (key, value).prop_map(|(key, value)| (format!("ringside.dev/{key}"), value))
}

fn a_pod() -> impl Strategy<Value = Value> {
    let annotations = prop::collection::vec(an_annotation(), 0..6);
    let list = |least| prop::collection::vec(a_container(), least..3_usize);
    let containers = prop::option::weighted(0.9, list(1));
    let init = prop::option::of(list(0));
    let odd = prop::option::weighted(
        0.2,
        (
            prop::sample::select(vec![
                "/metadata",
                "/metadata/annotations",
                "/metadata/labels",
                "/spec",
                "/spec/containers",
                "/spec/volumes",
                "/spec/initContainers",
                "/spec/securityContext",
                "/spec/os",
            ]),
            any_json(),
        ),
    );
    (annotations, containers, init, odd).prop_map(|(annotations, containers, init, odd)| {
        let annotations: Map<String, Value> = annotations.into_iter().collect();
        let mut pod = json!({
            "metadata": {"annotations": annotations, "labels": {}},
            "spec": {"containers": containers, "initContainers": init, "volumes": [{"name": "ringside"}], "securityContext": {}, "os": {}},
        });
        if let Some((path, value)) = odd {
            *pod.pointer_mut(path).unwrap() = value;
        }
        pod
    })
}

/// The relays and the admin address of a pod that was injected, as the sidecar reads them.
fn as_the_sidecar_reads(pod: &Value) -> Config {
    let env = pod["spec"]["initContainers"][0]["env"].as_array().unwrap();
    let value = |name: &str| {
        let variable = env
            .iter()
            .find(|variable| variable["name"] == name)
            .unwrap();
        variable["value"].as_str().unwrap().replace("$$", "$")
    };
    let relays = value("RINGSIDE_RELAY");
    let mut config = Config::of_relays(
        relays
            .split(',')
            .map(|relay| relay.parse().unwrap())
            .collect(),
    );
    config.admin = value("RINGSIDE_ADMIN").parse().unwrap();
    config
}

/// What the init container redirects is what the sidecar's relays take, and no port of the sidecar's.
fn check_redirects(pod: &Value, config: &Config) -> Result<(), TestCaseError> {
    let second = &pod["spec"]["initContainers"][1];
    let written = match second["name"] == INTERCEPT_CONTAINER_NAME {
        true => second["env"][0]["value"].as_str().unwrap_or_default(),
        false => "",
    };
    let redirects: Vec<&str> = written.split(',').filter(|one| !one.is_empty()).collect();
    let taken = config.relays.iter().filter_map(|relay| match relay.target {
        Target::Original { port } => Some(format!("{port}:{}", relay.listen.0.port())),
        _ => None,
    });
    prop_assert_eq!(taken.collect::<Vec<_>>(), redirects.clone());
    let own: Vec<u16> = config.relays.iter().map(|r| r.listen.0.port()).collect();
    for redirect in redirects {
        let from: u16 = redirect.split(':').next().unwrap().parse().unwrap();
        prop_assert!(
            !own.contains(&from) && config.admin.port() != from,
            "{redirect}"
        );
    }
    Ok(())
}

fn check(before: &Value) -> Result<(), TestCaseError> {
    let injected = inject(before, &injection(), &Assigned::default());
    let mut after = before.clone();
    for operation in injected.patch() {
        prop_assert!(matches!(operation, PatchOperation::Add(_)), "{operation}");
    }
    json_patch::patch(&mut after, injected.patch()).unwrap();
    prop_assert!(holds(&after, before), "{after}");
    if let Outcome::Patch(patch) = &injected.outcome {
        prop_assert!(!patch.is_empty());
        let again = inject(&after, &injection(), &Assigned::default());
        prop_assert_eq!(again.outcome, Outcome::Skipped(Skip::AlreadyInjected));
        let config = as_the_sidecar_reads(&after);
        prop_assert!(config.check().is_ok(), "{:?}", config.check());
        check_redirects(&after, &config)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_pod_only_grows_and_only_once(pod in a_pod()) {
        check(&pod)?;
    }

    #[test]
    fn any_json_is_taken(value in any_json()) {
        check(&value)?;
        check(&json!({"metadata": value, "spec": {"containers": value}}))?;
    }
}

#[test]
fn a_label_is_asked_for_unless_the_manifest_itself_asks() {
    let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 80}]}]}});
    let by_label = Injection {
        unlabelled: Unlabelled::Skip,
        ..injection()
    };
    let outcome = |pod: &Value, how: &Injection| inject(pod, how, &Assigned::default()).outcome;
    assert_eq!(outcome(&pod, &by_label), Outcome::Skipped(Skip::NotAsked));
    assert!(matches!(outcome(&pod, &injection()), Outcome::Patch(_)));
    pod["metadata"]["labels"] = json!({INJECT_LABEL: "disabled"});
    assert_eq!(
        outcome(&pod, &injection()),
        Outcome::Skipped(Skip::NotAsked)
    );
    pod["metadata"]["labels"] = json!({INJECT_LABEL: "enabled"});
    assert!(matches!(outcome(&pod, &by_label), Outcome::Patch(_)));
}

#[test]
fn what_holds_for_all_pods_gives_way_to_what_a_pod_says() {
    let all = Injection {
        backend: Some(ringside_api::BackendChoice::Epoll),
        scrape_annotations: true,
        ..injection()
    };
    let injected = |annotations: Value| {
        let mut pod = json!({
            "metadata": {"annotations": annotations},
            "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 80}]}]},
        });
        let injected = inject(&pod, &all, &Assigned::default());
        json_patch::patch(&mut pod, injected.patch()).unwrap();
        let sidecar = &pod["spec"]["initContainers"][0]["env"];
        let backend = sidecar.as_array().unwrap().iter();
        let backend = backend
            .filter(|variable| variable["name"] == "RINGSIDE_BACKEND")
            .map(|variable| variable["value"].clone())
            .next();
        (pod["metadata"]["annotations"].clone(), backend)
    };
    let (annotations, backend) = injected(json!({}));
    assert_eq!(backend, Some(json!("epoll")));
    assert_eq!(annotations["prometheus.io/scrape"], "true");
    assert_eq!(annotations["prometheus.io/port"], "15490");
    assert_eq!(annotations["prometheus.io/path"], "/metrics");
    let own = json!({"ringside.dev/backend": "ring", "prometheus.io/port": "9000"});
    let (annotations, backend) = injected(own);
    assert_eq!(backend, Some(json!("ring")));
    assert_eq!(annotations["prometheus.io/port"], "9000");
    assert_eq!(annotations.get("prometheus.io/scrape"), None);
}
