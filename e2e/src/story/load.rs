//! Clients in a pod of the cluster, asked at any time what they have seen. It owns the pod, which ends with the story's namespace; it judges
//! nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringside_tests::http;
use serde_json::json;

use super::application::{await_pod, container, load_image};
use super::await_within;
use super::report::Report;
use crate::apiserver::Namespace;
use crate::cluster::Cluster;

/// Where the report is.
const PORT: u16 = 9100;

/// How long clients may take for what takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients that ask until they are dropped with their namespace.
#[derive(Clone, Debug)]
pub struct Load {
    cluster: &'static Cluster,
    report: SocketAddr,
}

impl Load {
    /// Starts clients of `target` (`HOST:PORT`) as the pod `name`; each group is `NAME=keep|each|held:CLIENTS:PAUSE_MS:PATIENCE_MS`. Returns once
    /// every group was answered.
    ///
    /// # Panics
    /// If the pod does not start.
    #[track_caller]
    pub fn start(
        cluster: &'static Cluster,
        namespace: &Arc<Namespace<'static>>,
        name: &str,
        target: &str,
        groups: &[&str],
    ) -> Self {
        load_image(cluster);
        let port = PORT.to_string();
        let arguments = [&["load", &port, target], groups].concat();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            // The first node is there to the end, whatever a story does to another.
            "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 1, "containers": [container(&arguments)]},
        });
        namespace.apply(&pod.to_string());
        let pod = await_pod(namespace, name);
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        let report = format!("{address}:{PORT}").parse();
        let load = Self {
            cluster,
            report: report.expect("the address of a pod that is Ready"),
        };
        await_within(PATIENCE, "answers to every group of clients", || {
            let Report(groups) = load.try_report().ok()?;
            groups
                .values()
                .all(|group| group.answered > 0)
                .then_some(())
        });
        load
    }

    /// What they have seen so far.
    ///
    /// # Panics
    /// If the pod does not tell.
    #[track_caller]
    pub fn report(&self) -> Report {
        await_within(PATIENCE, "the report of clients", || self.try_report().ok())
    }

    fn try_report(&self) -> Result<Report, String> {
        let answer = self.cluster.inside(|| http::get(self.report, "/"));
        let answer = answer.map_err(|error| error.to_string())?;
        serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))
    }

    /// Waits until so many more requests were answered in every group, so that what has changed was met by all.
    ///
    /// # Panics
    /// If they are not.
    #[track_caller]
    pub fn await_more(&self, answers: u64) {
        let Report(before) = self.report();
        await_within(PATIENCE, "more answers to every group of clients", || {
            let Report(now) = self.report();
            let enough = now
                .iter()
                .all(|(name, group)| group.answered >= before[name].answered + answers);
            enough.then_some(())
        });
    }

    /// That nothing has failed.
    ///
    /// # Panics
    /// With the failures.
    #[track_caller]
    pub fn assert_no_failures(&self, when: &str) -> Report {
        let report = self.report();
        for (name, group) in &report.0 {
            assert_eq!(group.failed, 0, "{when}: {name}: {:?}", group.failures);
        }
        report
    }
}
