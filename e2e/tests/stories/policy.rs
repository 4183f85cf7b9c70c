//! Policies as objects, and what their status says, for the stories that turn on them.

use serde_json::{Value, json};

/// A RelayPolicy `name` for the pods of the application `of`, with these settings.
pub(crate) fn policy(name: &str, of: &str, mut settings: Value) -> Value {
    settings["podSelector"] = json!({"matchLabels": {"app": of}});
    json!({
        "apiVersion": "ringside.dev/v1alpha1", "kind": "RelayPolicy", "metadata": {"name": name},
        "spec": settings,
    })
}

/// A condition of a policy, as `STATUS (REASON): MESSAGE`; empty where there is none.
pub(crate) fn condition(policy: &Value, kind: &str) -> String {
    let conditions = policy["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let Some(found) = conditions.find(|one| one["type"] == kind) else {
        return String::new();
    };
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    format!(
        "{} ({}): {}",
        text("status"),
        text("reason"),
        text("message")
    )
}
