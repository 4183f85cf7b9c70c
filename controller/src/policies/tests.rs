//! Policies as they are written, changed and refused, and what becomes of their pods.

use serde_json::{Value, json};

use super::*;

fn policy(name: &str, spec: Value) -> RelayPolicy {
    serde_json::from_value(json!({
        "apiVersion": "ringside.dev/v1alpha1", "kind": "RelayPolicy",
        "metadata": {"name": name, "namespace": "shop", "generation": 3}, "spec": spec,
    }))
    .unwrap()
}

fn cluster(spec: Value) -> ClusterRelayPolicy {
    serde_json::from_value(json!({
        "apiVersion": "ringside.dev/v1alpha1", "kind": "ClusterRelayPolicy",
        "metadata": {"name": "default"}, "spec": spec,
    }))
    .unwrap()
}

fn name(name: &str) -> Name {
    ("shop".to_owned(), name.to_owned())
}

#[test]
fn a_pod_runs_what_both_policies_make_together() {
    let mut policies = Policies::default();
    policies.set_cluster(&cluster(
        json!({"batch": {"min": 4}, "readiness": {"maxUnreadyPercent": 30}}),
    ));
    policies.set(&policy("web", json!({"batch": {"max": 64}})));
    let assignment = policies.assignment("shop", "web");
    assert_eq!(assignment.max_unready_percent, 30);
    let Offer::Run(assigned) = &assignment.offer else {
        panic!("{assignment:?}");
    };
    let batch = assigned.layers.resolve(None).unwrap().settings.batch;
    assert_eq!((batch.min, batch.max), (4, 64));
    policies.remove(&name("web"));
    assert_ne!(policies.assignment("shop", "web"), assignment);
}

#[test]
fn what_is_not_allowed_together_is_told_and_changes_nothing_that_runs() {
    let mut policies = Policies::default();
    policies.set_cluster(&cluster(json!({"batch": {"max": 64}})));
    policies.set(&policy("web", json!({"batch": {"min": 128}})));
    let verdict = policies.verdict(&name("web")).unwrap();
    assert_eq!(verdict.generation, 3);
    let problem = verdict.problem.unwrap();
    assert!(
        problem.contains("batch.min is 128") && problem.contains("RelayPolicy"),
        "{problem}"
    );
    assert_eq!(
        policies.assignment("shop", "web").offer,
        Offer::Keep(problem)
    );
    // The cluster's own is all right, and so are pods without a policy.
    let default = (String::new(), CLUSTER_POLICY.to_owned());
    assert_eq!(policies.verdict(&default).unwrap().problem, None);
    assert!(matches!(
        policies.assignment("shop", "").offer,
        Offer::Run(_)
    ));
}

#[test]
fn what_is_asked_for_pods_that_are_about_to_be_is_not_kept() {
    let mut policies = Policies::default();
    policies.set(&policy("web", json!({"batch": {"max": 64}})));
    for turn in 0..100 {
        policies.first_assignment(&format!("shop-{turn}"), "");
    }
    let first = policies.first_assignment("shop", "web");
    assert!(policies.worked_out.is_empty());
    // Those that run get the same, and that is kept.
    let Offer::Run(assigned) = &policies.assignment("shop", "web").offer else {
        panic!("{first:?} is not what is run");
    };
    assert_eq!(**assigned, first);
    assert_eq!(policies.first_assignment("shop", "web"), first);
    assert_eq!(policies.worked_out.len(), 1);
}

#[test]
fn one_that_becomes_refused_or_unreadable_goes_on_with_its_pods_and_their_limit() {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let facts = PodFacts {
        labels: Some(&labels),
        named_policy: None,
    };
    let accepted = policy(
        "web",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "readiness": {"maxUnreadyPercent": 10}}),
    );
    let refused = policy(
        "web",
        json!({"podSelector": {"matchLabels": {"a b": "x"}}, "readiness": {"maxUnreadyPercent": 10}}),
    );
    let mut policies = Policies::default();
    policies.set(&accepted);
    let judged = |policies: &mut Policies| {
        let chosen = policies.choose("shop", &facts).policy.map(str::to_owned);
        let assignment = policies.assignment("shop", "web");
        let is_kept = matches!(assignment.offer, Offer::Keep(_));
        (chosen, is_kept, assignment.max_unready_percent)
    };
    let chosen = Some("web".to_owned());
    assert_eq!(judged(&mut policies), (chosen.clone(), false, 10));
    policies.set(&refused);
    assert_eq!(judged(&mut policies), (chosen.clone(), true, 10));
    policies.set_unreadable(&accepted.metadata, "unknown field `bach`".to_owned());
    assert_eq!(judged(&mut policies), (chosen, true, 10));
    // Another one of that name has nothing of it.
    let mut other = accepted.metadata.clone();
    other.uid = Some("another".to_owned());
    policies.set_unreadable(&other, "unknown field `bach`".to_owned());
    assert_eq!(judged(&mut policies), (None, true, 50));
}

#[test]
fn one_that_cannot_be_read_stops_nobody_else() {
    let mut policies = Policies::default();
    policies.set(&policy("good", json!({})));
    let metadata = policy("bad", json!({})).metadata;
    policies.set_unreadable(&metadata, "unknown field `bach`".to_owned());
    assert_eq!(
        policies.verdict(&name("bad")).unwrap().problem.unwrap(),
        "unknown field `bach`"
    );
    assert!(matches!(
        policies.assignment("shop", "bad").offer,
        Offer::Keep(_)
    ));
    assert!(matches!(
        policies.assignment("shop", "good").offer,
        Offer::Run(_)
    ));
    assert_eq!(policies.names().len(), 2);
}
