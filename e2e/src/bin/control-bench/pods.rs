//! The pods: made, bound and ready as a kubelet would have them, each with a token of its own; and the statuses of policies, looked for.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use ringside_api::resources::RelayPolicy;
use ringside_api::sync::PodIdentity;
use ringside_e2e::apiserver::{ApiServer, Namespace};
use ringside_e2e::fleet::crowd::Made;
use ringside_e2e::identity;
use ringside_e2e::kubelet::Kubelet;
use serde_json::json;

/// Pods that are made at a time.
const AT_ONCE: usize = 64;

/// How long the tokens are good: longer than the whole of it takes.
const TOKEN_LIFE: Duration = Duration::from_secs(4 * 3600);

/// Makes `count` pods, spread over the namespaces; by what they trust the controller is known later.
pub(crate) async fn make(
    server: &ApiServer,
    namespaces: &[Namespace<'_>],
    count: usize,
) -> Vec<Made> {
    let client = server.client();
    let kubelets: Vec<_> = namespaces
        .iter()
        .map(|namespace| Kubelet::new(client.clone(), namespace.name(), "node"))
        .collect();
    let one = |index: usize| {
        let (namespace, kubelet) = (
            &namespaces[index % namespaces.len()],
            &kubelets[index % namespaces.len()],
        );
        let client = client.clone();
        async move {
            let name = format!("web-{index}");
            let pod = kubelet
                .create(json!({
                    "metadata": {
                        "name": name, "labels": {"app": "web", "ringside.dev/inject": "enabled"},
                        "annotations": {"ringside.dev/injected": "0", "ringside.dev/relay": "web=15080:8080"},
                    },
                    "spec": {"nodeName": "node", "serviceAccountName": "default",
                        "containers": [{"name": "app", "image": "app"}]},
                }))
                .await?;
            kubelet.set_ready(&name, true).await?;
            let token = identity::token_living(
                &client,
                namespace.name(),
                "default",
                identity::AUDIENCE,
                Some(&pod),
                TOKEN_LIFE,
            )
            .await?;
            Ok::<_, kube::Error>(Made {
                identity: PodIdentity {
                    namespace: namespace.name().to_owned(),
                    uid: pod.uid().unwrap_or_default(),
                    name,
                },
                token,
                ca: String::new(),
            })
        }
    };
    let made = stream::iter(0..count).map(one).buffer_unordered(AT_ONCE);
    made.try_collect().await.expect("pods can be made")
}

/// How long after `begin` all policies have a status that says what the controller thinks of them now. They are watched: to list a
/// thousand of them again and again is more work than the controller has with them.
pub(crate) async fn policies_have_status(
    server: &ApiServer,
    count: usize,
    begin: Instant,
) -> Duration {
    let policies: Api<RelayPolicy> = Api::all(server.client());
    let mut judged = HashSet::new();
    let all = async {
        let mut changes = watcher(policies, Config::default()).boxed();
        while judged.len() < count {
            let change = changes.next().await.expect("the watch goes on");
            let (Event::Apply(policy) | Event::InitApply(policy)) =
                change.expect("the policies are watched")
            else {
                continue;
            };
            if is_judged(&policy) {
                judged.insert(policy.uid());
            }
        }
        begin.elapsed()
    };
    tokio::time::timeout(Duration::from_secs(300), all)
        .await
        .expect("the policies have their statuses")
}

/// Whether its status is of what it says now.
fn is_judged(policy: &RelayPolicy) -> bool {
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let mut accepted = conditions.filter(|condition| condition.type_ == "Accepted");
    accepted.any(|condition| condition.observed_generation == policy.meta().generation)
}
