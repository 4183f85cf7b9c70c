//! Files of the chart and of `manifests/`: what is generated, and what must agree.

use std::collections::BTreeSet;
use std::fs;

use ringside_e2e::chart::{HelmVersion, examples, folder, generated, project, values_table};
use serde_json::Value;

use crate::helm;

fn yaml(path: &str) -> Value {
    let text = fs::read_to_string(project().join(path)).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

#[test]
fn what_is_checked_in_is_what_is_generated() {
    // What Helm renders is compared where there is Helm; the rest always.
    let helm = helm(
        "what_is_checked_in_is_what_is_generated",
        HelmVersion::Three,
    );
    for file in generated(helm.as_ref()).unwrap() {
        let there = fs::read_to_string(project().join(&file.path)).unwrap_or_default();
        assert!(
            there == file.text,
            "{} is stale: `make manifests` writes it anew",
            file.path
        );
    }
}

#[test]
fn the_version_is_the_workspaces() {
    let chart = yaml("charts/ringside/Chart.yaml");
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
    // The one place where it is written by hand besides.
    let overlay = "manifests/kustomize/overlays/production/kustomization.yaml";
    let overlay = fs::read_to_string(project().join(overlay)).unwrap();
    assert!(overlay.contains(concat!("ringside:", env!("CARGO_PKG_VERSION"))));
}

/// Every path of a schema that has no properties of its own.
fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    match schema.get("properties").and_then(Value::as_object) {
        Some(properties) => {
            for (name, property) in properties {
                leaves(property, &format!("{path}.{name}"), found);
            }
        }
        None => {
            found.insert(path.trim_start_matches('.').to_owned());
        }
    }
}

#[test]
fn values_and_their_schema_know_the_same() {
    let text = fs::read_to_string(folder().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let mut known = BTreeSet::new();
    leaves(&schema, "", &mut known);
    assert!(known.remove("global"), "Helm gives every chart `global`");
    let text = fs::read_to_string(folder().join("values.yaml")).unwrap();
    let values = values_table(&text).unwrap();
    let documented: BTreeSet<String> = values.into_iter().map(|value| value.path).collect();
    // A value may be documented as a whole.
    let covers = |path: &String| {
        documented
            .iter()
            .any(|above| path == above || path.starts_with(&format!("{above}.")))
    };
    let undocumented: Vec<&String> = known.iter().filter(|path| !covers(path)).collect();
    assert_eq!(
        undocumented, [""; 0],
        "in the schema, and not in values.yaml"
    );
    let is_known = |path: &&String| {
        !known
            .iter()
            .any(|leaf| leaf == *path || leaf.starts_with(&format!("{path}.")))
    };
    let unknown: Vec<&String> = documented.iter().filter(is_known).collect();
    assert_eq!(unknown, [""; 0], "in values.yaml, and not in the schema");
}

#[test]
fn the_schema_knows_the_fields_of_a_cluster_policy() {
    let text = fs::read_to_string(folder().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let policy = &schema["properties"]["policy"]["properties"]["default"]["properties"];
    let definitions = ringside_controller::generated::definitions().unwrap();
    let definitions = ringside_e2e::chart::documents(&definitions);
    let cluster = definitions
        .iter()
        .find(|one| one["spec"]["names"]["kind"] == "ClusterRelayPolicy");
    let spec = &cluster.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = &spec["properties"]["spec"]["properties"];
    let keys = |of: &Value| -> Vec<String> { of.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(policy), keys(spec));
}

#[test]
fn every_example_is_in_the_readme() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let examples = examples();
    assert!(examples.len() >= 5, "{examples:?}");
    for (name, _) in examples {
        assert!(readme.contains(&format!("| `{name}.yaml` |")), "{name}");
    }
}
