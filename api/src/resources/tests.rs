//! The resources as users write them, and the choice among them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::core::Selector;
use serde_json::{Value, json};

use super::choice::{Candidate, Choice, PodFacts, choose, selector};
use super::{ClusterRelayPolicy, RelayPolicy, definitions};

/// The example of the documentation: every field of a policy.
const WHOLE: &str = r#"
apiVersion: ringside.dev/v1alpha1
kind: RelayPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  backoff: {initial: 50us, max: 50ms, multiplierPercent: 200, jitter: Full, maxRetries: 10}
  batch: {mode: Adaptive, min: 8, max: 256}
  accept: {maxConnections: 4096, maxPerSecond: 5000, backlog: 4096, pauseAbovePercent: 95, resumeBelowPercent: 80}
  buffers: {pool: 8Mi, perDirection: 256Ki}
  timeouts: {connect: 2s, idle: 1h, halfClose: 1m, drain: 30s}
  readiness: {mode: Leave, pushbackPercent: 50, unreadyAfter: 2s, recoverAfter: 10s, maxUnreadyPercent: 50}
  tcp: {keepalive: 1m, userTimeout: 30s, noDelay: true}
  accessLog: {mode: Errors, maxPerSecond: 100}
"#;

#[test]
fn a_policy_is_read_and_written_as_it_was() {
    let written: Value = serde_yaml::from_str(WHOLE).unwrap();
    let policy: RelayPolicy = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(policy.spec.settings.batch.unwrap().max, Some(256));
    assert_eq!(serde_json::to_value(&policy).unwrap(), written);
    let cluster = json!({
        "apiVersion": "ringside.dev/v1alpha1", "kind": "ClusterRelayPolicy",
        "metadata": {"name": "default"}, "spec": {"batch": {"min": 4}},
    });
    let policy: ClusterRelayPolicy = serde_json::from_value(cluster.clone()).unwrap();
    assert_eq!(serde_json::to_value(&policy).unwrap(), cluster);
}

#[test]
fn what_is_wrong_in_a_policy_is_a_sentence() {
    for (spec, told) in [
        (json!({"bach": {}}), "did you mean `batch`?"),
        (json!({"batch": {"min": "8"}}), "leave out the quotes"),
        (json!({"podSelector": []}), "podSelector"),
        (json!({"timeouts": {"idle": "1d"}}), "us, ms, s, m or h"),
    ] {
        let error = serde_json::from_value::<super::RelayPolicySpec>(spec).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
}

/// All values under a key, anywhere.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|value| all(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

#[test]
fn nothing_has_a_default_and_nothing_of_a_spec_is_required() {
    for definition in definitions() {
        let schema = serde_json::to_value(&definition).unwrap();
        let spec =
            &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["type"], "object", "{spec}");
        let mut found = Vec::new();
        all(spec, "default", &mut found);
        assert_eq!(found, Vec::<&Value>::new());
        for group in spec["properties"].as_object().unwrap().values() {
            assert!(group.get("required").is_none(), "{group}");
        }
    }
}

#[test]
fn kubectl_warns_of_no_format_and_explains_each_resource() {
    for definition in definitions() {
        let kind = definition.spec.names.kind.clone();
        let schema = serde_json::to_value(&definition).unwrap();
        let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut formats = Vec::new();
        all(schema, "format", &mut formats);
        assert!(formats.iter().any(|format| *format == "int64"));
        for format in formats {
            // Those of them that an API server knows and these resources use.
            let known = ["int32", "int64", "date-time", "duration"];
            assert!(known.iter().any(|known| format == known), "{format}");
        }
        let told = schema["description"].as_str().unwrap();
        assert!(told.starts_with(&format!("A {kind} sets ")), "{told}");
        let counts = &schema["properties"]["status"]["properties"]["backends"];
        assert_eq!(counts["additionalProperties"]["minimum"], 0.0);
    }
}

fn labels(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), app.to_owned())])
}

fn selects(app: &str) -> Selector {
    selector(&LabelSelector {
        match_labels: Some(labels(app)),
        ..LabelSelector::default()
    })
    .unwrap()
}

#[test]
fn the_annotation_wins_then_age_then_name() {
    let (web, all) = (selects("web"), selector(&LabelSelector::default()).unwrap());
    let at = |second| Some(Timestamp::from_second(second).unwrap());
    let candidate = |name, created, selector| Candidate {
        name,
        created,
        selector,
    };
    let candidates = [
        candidate("young", at(30), Some(&web)),
        candidate("b-old", at(10), Some(&all)),
        candidate("a-old", at(10), Some(&web)),
        candidate("unborn", None, Some(&all)),
        candidate("named-only", at(1), None),
    ];
    let labels = labels("web");
    let choose = |named_policy| {
        let pod = PodFacts {
            labels: Some(&labels),
            named_policy,
        };
        choose(&pod, &candidates)
    };
    let expected = Choice {
        policy: Some("a-old"),
        losers: vec!["b-old", "young", "unborn"],
        missing: None,
    };
    assert_eq!(choose(None), expected);
    assert_eq!(choose(Some("named-only")).policy, Some("named-only"));
    assert_eq!(choose(Some("young")).losers, ["a-old", "b-old", "unborn"]);
    let missing = choose(Some("gone"));
    assert_eq!(
        (missing.policy, missing.missing),
        (Some("a-old"), Some("gone"))
    );
}

#[test]
fn a_selector_that_is_none_is_refused_with_a_sentence() {
    let written =
        json!({"matchExpressions": [{"key": "app", "operator": "Near", "values": ["x"]}]});
    let error = selector(&serde_json::from_value(written).unwrap()).unwrap_err();
    assert!(error.starts_with("podSelector is not allowed"), "{error}");
}

proptest::proptest! {
    #[test]
    fn the_choice_does_not_depend_on_the_order(
        policies in proptest::collection::btree_map("[a-e]{1,2}", (0..3_i64, proptest::bool::ANY), 0..6),
        turn in 0..6_usize,
    ) {
        let web = selects("web");
        let labels = labels("web");
        let mut candidates: Vec<_> = policies
            .iter()
            .map(|(name, (created, does))| Candidate {
                name,
                created: Some(Timestamp::from_second(*created).unwrap()),
                selector: does.then_some(&web),
            })
            .collect();
        let pod = PodFacts { labels: Some(&labels), named_policy: None };
        let chosen = choose(&pod, &candidates);
        let length = candidates.len().max(1);
        candidates.rotate_left(turn % length);
        proptest::prop_assert_eq!(&chosen, &choose(&pod, &candidates));
        let selecting = policies.values().filter(|(_, does)| *does).count();
        let told = usize::from(chosen.policy.is_some()) + chosen.losers.len();
        proptest::prop_assert_eq!(told, selecting);
    }
}
