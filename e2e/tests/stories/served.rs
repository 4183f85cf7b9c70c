//! An application that is served through relays while things break: its policy, its clients, and what its sidecars say of themselves. It owns what
//! the stories of failures have in common; which failures may cost a request is theirs to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::{Application, Load, RELEASE, Story, await_within};
use serde_json::{Value, json};

use crate::policy::policy;

/// For what takes seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The clients: four that keep their connection, four that make one for each request, three with a stream each.
pub(crate) const CLIENTS: u64 = 11;

/// Those clients in groups, whose patience is five seconds.
pub(crate) const GROUPS: [&str; 3] = [
    "keep=keep:4:30:5000",
    "each=each:4:30:5000",
    "held=held:3:30:5000",
];

/// An application `web` with a RelayPolicy of that name.
pub(crate) struct Served {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: Arc<Namespace<'static>>,
    pub(crate) web: Application,
}

/// What one sidecar says of itself.
#[derive(Debug)]
pub(crate) struct Sidecar {
    /// `accept.maxConnections`, by which the stories tell one policy from another.
    pub(crate) max_connections: u64,
    /// Where it found its settings: `controller`, `state folder` or `pod annotation`.
    pub(crate) found_in: String,
    /// For how long it has been connected to its controller, if it is.
    pub(crate) connected_for: Option<Duration>,
    /// The fingerprint of the certificates that it trusts its controller by.
    pub(crate) trusts: String,
}

impl Served {
    /// Deploys it with so many pods and `accept.maxConnections`, and waits until that is in effect. `change` may change the Deployment before.
    #[track_caller]
    pub(crate) fn deploy(
        story: &Story,
        replicas: u32,
        max_connections: u64,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let (cluster, namespace) = (story.cluster(), story.namespace("shop"));
        let settings = json!({"accept": {"maxConnections": max_connections}});
        namespace.apply(&policy("web", "web", settings).to_string());
        let web = Application::deploy(cluster, &namespace, "web", replicas, change);
        let served = Self {
            cluster,
            namespace,
            web,
        };
        served.await_settings(max_connections);
        served
    }

    /// Clients of its Service.
    #[track_caller]
    pub(crate) fn clients(&self) -> Load {
        Load::start(self.cluster, &self.namespace, "clients", "web:80", &GROUPS)
    }

    /// Changes the policy, and returns once every sidecar runs it, with the time that took.
    #[track_caller]
    pub(crate) fn change_settings(&self, max_connections: u64) -> Duration {
        let settings = json!({"accept": {"maxConnections": max_connections}});
        let begin = Instant::now();
        self.namespace
            .apply(&policy("web", "web", settings).to_string());
        self.await_settings(max_connections);
        begin.elapsed()
    }

    /// Waits until every sidecar runs this, and has a controller. What it was injected with may be all that it has to know: the controller's first
    /// answer comes with the first news, or after half a minute.
    #[track_caller]
    pub(crate) fn await_settings(&self, max_connections: u64) {
        self.await_sidecars(
            &format!("maxConnections {max_connections} in every sidecar"),
            |one| one.max_connections == max_connections && one.connected_for.is_some(),
        );
    }

    /// Waits until every sidecar is connected to its controller, by a connection that was made after `since`.
    #[track_caller]
    pub(crate) fn await_connected(&self, since: Instant) {
        self.await_sidecars("every sidecar to be connected again", |one| {
            one.connected_for.is_some_and(|time| time < since.elapsed())
        });
    }

    /// Waits until `is` holds of every sidecar.
    #[track_caller]
    pub(crate) fn await_sidecars(&self, what: &str, is: impl Fn(&Sidecar) -> bool) {
        await_within(PATIENCE, what, || {
            let sidecars = self.try_sidecars()?;
            sidecars.values().all(&is).then_some(())
        });
    }

    /// What every sidecar says, by pod.
    #[track_caller]
    pub(crate) fn sidecars(&self) -> BTreeMap<String, Sidecar> {
        await_within(PATIENCE, "answers of every sidecar", || self.try_sidecars())
    }

    /// Requests for settings that failed for want of trust in the controller's certificate, of all sidecars together.
    #[track_caller]
    pub(crate) fn untrusted(&self) -> f64 {
        let metrics = self.web.metrics();
        let untrusted = [("outcome", "untrusted")];
        let each = metrics.values();
        each.map(|one| one.sum("ringside_sync_calls_total", &untrusted))
            .sum()
    }

    fn try_sidecars(&self) -> Option<BTreeMap<String, Sidecar>> {
        let sidecars = self.web.sidecars().into_iter();
        let all = sidecars.map(|(pod, admin)| {
            let ask = |path| {
                let answer = self.web.ask(admin, path).ok()?;
                serde_json::from_str::<Value>(&answer.body).ok()
            };
            let (config, status) = (ask("/config?format=json")?, ask("/statusz")?);
            let controller = &status["controller"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let sidecar = Sidecar {
                max_connections: config["settings"]["accept"]["maxConnections"].as_u64()?,
                found_in: text(&config["policies"]["foundIn"]),
                connected_for: controller["connectedForSeconds"]
                    .as_f64()
                    .map(Duration::from_secs_f64),
                trusts: text(&controller["trusts"]),
            };
            Some((pod, sidecar))
        });
        all.collect()
    }
}

/// The name of the controller's pod that leads, as the Lease has it; empty while none does.
#[track_caller]
pub(crate) fn leader(cluster: &Cluster) -> String {
    let question = [
        "--namespace",
        RELEASE,
        "get",
        "lease",
        "ringside-controller",
        "--output=jsonpath={.spec.holderIdentity}",
    ];
    // None may be there yet, or the API server away.
    let answer = cluster.try_kubectl(&question);
    if answer.status.success() {
        answer.out
    } else {
        String::new()
    }
}

/// Waits until another replica than `before` leads, and returns which.
#[track_caller]
pub(crate) fn await_leader_after(cluster: &Cluster, before: &str) -> String {
    await_within(PATIENCE, "another replica to lead", || {
        let now = leader(cluster);
        (!now.is_empty() && now != before).then_some(now)
    })
}
