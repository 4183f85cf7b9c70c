//! Pods that ask for a relay and have none: why, and which of them nobody has been told of yet.
//!
//! Pure. It owns the sentence for each; a pod that has its relay, does not ask, or ends is none of them.

use std::collections::{HashMap, HashSet};

use ringside_api::sync::{Assigned, PodIdentity};
use serde_json::Value;

use crate::inject::{self, Injection, Outcome};

/// Namespaces whose pods the webhook is never asked about, besides the controller's own.
const EXCLUDED: &str = "kube-system";

/// What an Event says of a pod without a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The Event's reason.
    pub reason: &'static str,
    /// The sentence.
    pub note: String,
}

/// Why the pod, as the API server has it, has no relay; `None` where it has one, or none is missed. `release` is the controller's namespace.
pub fn why(pod: &Value, release: &str) -> Option<Why> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let is_excluded = namespace == EXCLUDED || namespace == release;
    let injection = Injection::new("", "");
    let skipped = |note: String| {
        Some(Why {
            reason: "InjectionSkipped",
            note,
        })
    };
    match inject::inject(pod, &injection, &Assigned::default()).outcome {
        Outcome::Skipped(skip) if !skip.is_worth_a_warning() => None,
        _ if is_excluded => skipped(format!(
            "This pod asks for a relay and has none, because pods of the namespace {namespace} never get one"
        )),
        Outcome::Skipped(skip) => skipped(format!(
            "This pod asks for a relay and has none, because {skip}"
        )),
        Outcome::Patch(_) => Some(Why {
            reason: "NotInjected",
            note: "This pod asks for a relay and has none: the webhook was not reached when it was made, or is not asked about this pod or its namespace, as its selectors say. It works without. If it is to have one, delete it once the controller is ready, or restart its Deployment: what is made anew gets its relay".to_owned(),
        }),
    }
}

/// The pods without a relay, by UID.
#[derive(Debug, Default)]
pub struct Uninjected(HashMap<String, Known>);

#[derive(Debug)]
struct Known {
    pod: PodIdentity,
    why: Why,
    is_told: bool,
}

impl Uninjected {
    /// Takes a pod as it was seen.
    pub fn saw(&mut self, pod: PodIdentity, why: Option<Why>) {
        let Some(why) = why else {
            self.0.remove(&pod.uid);
            return;
        };
        let known = self.0.get(&pod.uid);
        if known.is_none_or(|known| known.why != why) {
            let is_told = false;
            self.0.insert(pod.uid.clone(), Known { pod, why, is_told });
        }
    }

    /// Forgets a pod that is gone.
    pub fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// Forgets all pods but these.
    pub fn keep_only(&mut self, uids: &HashSet<String>) {
        self.0.retain(|uid, _| uids.contains(uid));
    }

    /// So many at most that nobody has been told of.
    pub fn untold(&self, most: usize) -> Vec<(PodIdentity, Why)> {
        let untold = self.0.values().filter(|known| !known.is_told).take(most);
        untold
            .map(|known| (known.pod.clone(), known.why.clone()))
            .collect()
    }

    /// Somebody was told of this.
    pub fn told(&mut self, uid: &str, why: &Why) {
        if let Some(known) = self.0.get_mut(uid) {
            known.is_told |= known.why == *why;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": "web-1", "uid": "u", "labels": {"ringside.dev/inject": "enabled"}},
            "spec": spec,
        })
    }

    fn plain() -> Value {
        json!({"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]})
    }

    #[test]
    fn each_pod_that_misses_its_relay_is_told_why() {
        let reason = |pod: &Value| why(pod, "ringside").map(|why| (why.reason, why.note));
        let (kind, note) = reason(&pod(plain())).unwrap();
        assert!(kind == "NotInjected" && note.contains("webhook was not reached"));
        let mut host = plain();
        host["hostNetwork"] = true.into();
        let (kind, note) = reason(&pod(host)).unwrap();
        assert!(
            kind == "InjectionSkipped" && note.contains("hostNetwork"),
            "{note}"
        );
        let mut system = pod(plain());
        system["metadata"]["namespace"] = "kube-system".into();
        let (_, note) = reason(&system).unwrap();
        assert!(note.contains("never get one"), "{note}");

        let mut injected = plain();
        injected["initContainers"] = json!([{"name": "ringside", "restartPolicy": "Always"}]);
        let mut ends = pod(plain());
        ends["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut asks_for_none = pod(plain());
        asks_for_none["metadata"]["labels"] = json!({});
        for pod in [pod(injected), ends, asks_for_none] {
            assert_eq!(why(&pod, "ringside"), None, "{pod}");
        }
    }

    #[test]
    fn a_pod_is_told_of_once_for_each_reason() {
        let mut uninjected = Uninjected::default();
        let identity = PodIdentity {
            uid: "u".to_owned(),
            ..PodIdentity::default()
        };
        let because = |note: &str| {
            let (reason, note) = ("NotInjected", note.to_owned());
            Some(Why { reason, note })
        };
        uninjected.saw(identity.clone(), because("a"));
        let (told, why) = uninjected.untold(9).remove(0);
        uninjected.told(&told.uid, &why);
        uninjected.saw(identity.clone(), because("a"));
        assert!(uninjected.untold(9).is_empty());
        uninjected.saw(identity.clone(), because("b"));
        // What was told is not what it is now.
        uninjected.told(&told.uid, &why);
        assert_eq!(uninjected.untold(9).len(), 1);
        uninjected.saw(identity, None);
        assert!(uninjected.untold(9).is_empty());
    }
}
