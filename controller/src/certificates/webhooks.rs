//! Writes the bundle into webhook configurations, so that the API server trusts what the webhooks' servers show.
//!
//! It owns the field `caBundle` of the webhooks in the configurations that it was given the names of, while it leads, and puts it
//! back when something else (an upgrade of the chart) takes it away. It makes no configuration, and changes nothing else in one.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::ByteString;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use super::handle::Handle;
use crate::answered::answered;

/// Which configurations get the bundle. There need not be any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    /// The names of MutatingWebhookConfigurations.
    pub mutating: Vec<String>,
    /// The names of ValidatingWebhookConfigurations.
    pub validating: Vec<String>,
}

impl Webhooks {
    /// Each as kind and name.
    pub(crate) fn each(&self) -> Vec<(&'static str, String)> {
        let named = |kind, names: &[String]| {
            let named = names.iter().map(move |name| (kind, name.clone()));
            named.collect::<Vec<_>>()
        };
        let mut all = named("MutatingWebhookConfiguration", &self.mutating);
        all.extend(named("ValidatingWebhookConfiguration", &self.validating));
        all
    }
}

/// Keeps the bundle in one configuration while `leads` says so; never returns.
pub(crate) async fn keep(
    client: Client,
    (kind, name): (&'static str, String),
    handle: Handle,
    mut leads: watch::Receiver<bool>,
) {
    let plural = format!("{}s", kind.to_lowercase());
    let resource = ApiResource {
        group: "admissionregistration.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "admissionregistration.k8s.io/v1".to_owned(),
        kind: kind.to_owned(),
        plural,
    };
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut changes = handle.changed();
    let mut seen: Option<DynamicObject> = None;
    let mut told = String::new();
    let mut tell = |sentence: String| {
        if sentence != told {
            warn!(configuration = name, "{sentence}");
            told = sentence;
        }
    };
    let mut configurations = pin!(watcher::watch_object(api.clone(), &name).default_backoff());
    let mut again: Option<tokio::time::Instant> = None;
    loop {
        let retry = async {
            match again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            object = configurations.next() => match object {
                Some(Ok(object)) => {
                    if object.is_none() {
                        tell(format!("there is no {kind} {name:?}: its webhooks get the CA when there is one"));
                    }
                    seen = object;
                }
                Some(Err(error)) => {
                    tell(format!("the {kind} {name:?} cannot be watched: {error}; it is tried again, and needs get, list and watch"));
                    continue;
                }
                None => return,
            },
            Ok(()) = changes.changed() => {}
            Ok(()) = leads.changed() => {}
            () = retry => {}
        }
        again = None;
        let bundle = handle.ca_bundle();
        let Some(patch) = seen
            .as_ref()
            .and_then(|seen| patch(&seen.data, seen, &bundle))
        else {
            continue;
        };
        if !*leads.borrow() {
            continue;
        }
        let params = PatchParams::default();
        match answered(api.patch(&name, &params, &Patch::Strategic(patch))).await {
            Ok(object) => {
                info!(configuration = name, "the {kind} has the CA of the moment");
                seen = Some(object);
            }
            // Somebody wrote it meanwhile: the watch brings it.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
            Err(error) => {
                tell(format!(
                    "the CA cannot be written into the {kind} {name:?}: {error}; it is tried again, and needs the verb patch"
                ));
                let wait = Duration::from_millis(fastrand::u64(2_000..5_000));
                again = Some(tokio::time::Instant::now() + wait);
            }
        }
    }
}

/// What is to be changed so that all webhooks of `data` have `bundle`; `None` where they do.
fn patch(data: &Value, object: &DynamicObject, bundle: &str) -> Option<Value> {
    if bundle.is_empty() {
        return None;
    }
    let encoded = serde_json::to_value(ByteString(bundle.as_bytes().to_vec())).ok()?;
    let webhooks = data["webhooks"].as_array()?;
    let differs = |webhook: &&Value| webhook["clientConfig"]["caBundle"] != encoded;
    let changed =
        |webhook: &Value| json!({"name": webhook["name"], "clientConfig": {"caBundle": encoded}});
    let changed: Vec<Value> = webhooks.iter().filter(differs).map(changed).collect();
    // With the version, so that a webhook which is gone meanwhile is not made again.
    let version = object.metadata.resource_version.as_ref();
    (!changed.is_empty())
        .then(|| json!({"metadata": {"resourceVersion": version}, "webhooks": changed}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_with_another_bundle_are_changed() {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "ringside", "resourceVersion": "7"},
            "webhooks": [
                {"name": "a.ringside.dev", "clientConfig": {"caBundle": "Yg==", "service": {}}},
                {"name": "b.ringside.dev", "clientConfig": {"service": {}}},
            ],
        }))
        .unwrap();
        assert_eq!(
            patch(&object.data, &object, "b"),
            Some(json!({
                "metadata": {"resourceVersion": "7"},
                "webhooks": [{"name": "b.ringside.dev", "clientConfig": {"caBundle": "Yg=="}}],
            }))
        );
        assert_eq!(patch(&object.data, &object, ""), None);
        assert_eq!(patch(&json!({}), &object, "b"), None);
    }
}
