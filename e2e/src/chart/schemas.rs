//! An API server's OpenAPI as JSON schemas, one file for each kind, such as kubeconform reads. It owns their names and their strictness: a field that
//! the API does not know is a mistake.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::apiserver::ApiServer;
use crate::await_that;

/// Where components are, in a reference.
const COMPONENTS: &str = "#/components/schemas/";

/// Every kind that the server knows, as `kind-group-version.json` in lower case (without the group for the core's, and with its first word for others)
/// and its schema. Waits until custom resources are among them, of which the server tells a moment later.
///
/// # Panics
/// If the server does not tell, or tells something else than OpenAPI.
#[track_caller]
pub fn schemas(server: &ApiServer) -> BTreeMap<String, Value> {
    let custom: Vec<String> = custom(server);
    let mut files = BTreeMap::new();
    await_that("custom resources to be in OpenAPI", || {
        files = known(server);
        custom.iter().all(|name| files.contains_key(name))
    });
    files
}

/// The names of custom resources' files.
fn custom(server: &ApiServer) -> Vec<String> {
    let definitions = server.kubectl(&["get", "crd", "-o=json"]);
    let definitions: Value = serde_json::from_str(&definitions).expect("kubectl prints JSON");
    let definitions = definitions["items"].as_array().expect("a list");
    let of = |definition: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &definition["spec"];
        let version = text(&spec["versions"][0]["name"]);
        file(
            &text(&spec["names"]["kind"]),
            &text(&spec["group"]),
            &version,
        )
    };
    definitions.iter().map(of).collect()
}

fn file(kind: &str, group: &str, version: &str) -> String {
    let group = group.split('.').next().unwrap_or_default();
    let words = [kind, group, version]
        .into_iter()
        .filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_lowercase).collect();
    format!("{}.json", words.join("-"))
}

fn known(server: &ApiServer) -> BTreeMap<String, Value> {
    let get = |path: &str| {
        let text = server.kubectl(&["get", "--raw", path]);
        serde_json::from_str::<Value>(&text).expect("OpenAPI is JSON")
    };
    let mut files = BTreeMap::new();
    let index = get("/openapi/v3");
    let paths = index["paths"].as_object().expect("an index of paths");
    for (path, at) in paths {
        if !path.starts_with("api/") && !path.starts_with("apis/") {
            continue;
        }
        let url = at["serverRelativeURL"].as_str().expect("where it is");
        let whole = get(url);
        let Some(components) = whole["components"]["schemas"].as_object() else {
            continue;
        };
        for (name, component) in components {
            let kinds = component["x-kubernetes-group-version-kind"].as_array();
            for kind in kinds.into_iter().flatten() {
                let of = |field: &str| kind[field].as_str().unwrap_or_default();
                let name_of_file = file(of("kind"), of("group"), of("version"));
                files.insert(name_of_file, of_kind(name, components));
            }
        }
    }
    files
}

/// A component with all that it refers to, and nothing else.
fn of_kind(name: &str, components: &Map<String, Value>) -> Value {
    let mut needed = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        if needed.insert(name.clone()) {
            refers_to(&components[&name], &mut open);
        }
    }
    let mut kept = Map::new();
    for name in needed {
        let mut component = components[&name].clone();
        close(&mut component);
        kept.insert(name, component);
    }
    json!({"$ref": format!("{COMPONENTS}{name}"), "components": {"schemas": kept}})
}

fn refers_to(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str);
            names.extend(
                name.and_then(|name| name.strip_prefix(COMPONENTS))
                    .map(str::to_owned),
            );
            fields.values().for_each(|field| refers_to(field, names));
        }
        Value::Array(members) => members.iter().for_each(|member| refers_to(member, names)),
        _ => {}
    }
}

/// What is not among an object's fields is not allowed in it, and what OpenAPI says in a way of its own is said as JSON schemas do.
fn close(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true))
                || fields.contains_key("additionalProperties");
            // A field may be called `properties` as well, which is an object of schemas only beside a type.
            if fields.get("type") == Some(&json!("object"))
                && fields.contains_key("properties")
                && !is_open
            {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            if fields.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
                fields.insert("type".to_owned(), json!(["integer", "string"]));
            }
            // Formats of Kubernetes' own say nothing here.
            if fields.get("format").is_some_and(Value::is_string) {
                fields.remove("format");
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(members) => members.iter_mut().for_each(close),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_comes_with_what_it_needs_and_is_closed() {
        let components = json!({
            "a": {"type": "object", "properties": {"b": {"allOf": [{"$ref": "#/components/schemas/b"}]}}},
            "b": {"type": "object", "additionalProperties": {"type": "string"}},
            "c": {},
        });
        let schema = of_kind("a", components.as_object().unwrap());
        assert_eq!(
            schema["components"]["schemas"]["a"]["additionalProperties"],
            false
        );
        assert_eq!(schema["components"]["schemas"]["b"], components["b"]);
        assert_eq!(schema["components"]["schemas"].get("c"), None);
        assert_eq!(schema["$ref"], "#/components/schemas/a");
    }
}
