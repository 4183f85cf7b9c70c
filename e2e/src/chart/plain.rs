//! What Helm renders, as plain manifests for kubectl. It owns what is left out (what only Helm reads) and the order of keys; it adds nothing.

use serde::Deserialize;
use serde_json::Value;

/// The objects of a rendered chart, in its order.
///
/// # Panics
/// If it is no YAML.
#[track_caller]
pub fn documents(rendered: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(rendered)
        .map(|document| Value::deserialize(document).expect("Helm renders YAML"))
        .filter(|document| !document.is_null())
        .collect()
}

/// The same objects without labels and annotations that are Helm's, and without what Helm alone would run.
pub fn plain(documents: Vec<Value>) -> Vec<Value> {
    let is_hook = |document: &Value| {
        document["metadata"]["annotations"]
            .get("helm.sh/hook")
            .is_some()
    };
    let mut documents: Vec<Value> = documents
        .into_iter()
        .filter(|document| !is_hook(document))
        .collect();
    for document in &mut documents {
        strip(document);
    }
    documents
}

/// Takes Helm's words out of every metadata in it: a pod template has one of its own.
fn strip(value: &mut Value) {
    let Value::Object(fields) = value else {
        if let Value::Array(members) = value {
            members.iter_mut().for_each(strip);
        }
        return;
    };
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        for of in ["labels", "annotations"] {
            let Some(Value::Object(words)) = metadata.get_mut(of) else {
                continue;
            };
            words.retain(|key, _| {
                !key.starts_with("helm.sh/") && key != "app.kubernetes.io/managed-by"
            });
            if words.is_empty() {
                metadata.remove(of);
            }
        }
    }
    fields.values_mut().for_each(strip);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_helms_goes() {
        let text = "---\n# nothing\n---\nkind: A\nmetadata:\n  annotations: {helm.sh/resource-policy: keep}\n  labels: {helm.sh/chart: c, own: l, app.kubernetes.io/managed-by: Helm}\nspec: {template: {metadata: {labels: {helm.sh/chart: c}}}}\n---\nkind: B\nmetadata: {annotations: {helm.sh/hook: test}}\n";
        let expected = json!([{"kind": "A", "metadata": {"labels": {"own": "l"}}, "spec": {"template": {"metadata": {}}}}]);
        assert_eq!(Value::from(plain(documents(text))), expected);
    }
}
