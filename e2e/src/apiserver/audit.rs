//! What service accounts have asked the API server, by its own audit log.
//!
//! It owns the policy (every request of a service account, without bodies) and reads the log; it judges nothing.

use std::fs;

use serde_json::{Value, json};

use super::ApiServer;

pub(super) const POLICY_FILE: &str = "audit-policy.json";
pub(super) const LOG_FILE: &str = "audit.log";

/// The policy, as JSON.
pub(super) fn policy() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            {"level": "None"},
        ],
    })
    .to_string()
}

/// A request as it was answered; a watch is one when it begins, and once more when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Such as `list`.
    pub verb: String,
    /// The API group; empty for the core's.
    pub group: String,
    /// With its subresource after a slash; the path, where no resource was asked for.
    pub resource: String,
    /// Empty for all, and for what has none.
    pub namespace: String,
    /// The object's; empty for all, and for one that the server names.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u64,
}

impl ApiServer {
    /// What the service account `account` of `namespace` has asked so far, in the order of the answers. `None` of a cluster that was
    /// given, whose log is not here.
    ///
    /// # Panics
    /// If the log cannot be read.
    pub fn asked_by(&self, namespace: &str, account: &str) -> Option<Vec<Asked>> {
        self.processes.as_ref()?;
        let path = self.folder.path().join(LOG_FILE);
        let log = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
        let user = format!("system:serviceaccount:{namespace}:{account}");
        // The last line may be half-written.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(|line| {
            serde_json::from_str::<Value>(line)
                .unwrap_or_else(|error| panic!("no audit event ({error}): {line}"))
        });
        let by_user = events.filter(|event| event["user"]["username"] == user.as_str());
        Some(by_user.map(|event| asked(&event)).collect())
    }
}

fn asked(event: &Value) -> Asked {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let resource = match (object["resource"].as_str(), object["subresource"].as_str()) {
        (Some(resource), None) => resource.to_owned(),
        (Some(resource), Some(subresource)) => format!("{resource}/{subresource}"),
        (None, _) => text(&event["requestURI"]),
    };
    Asked {
        verb: text(&event["verb"]),
        group: text(&object["apiGroup"]),
        resource,
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
    }
}
