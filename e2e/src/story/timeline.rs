//! Everything that becomes of one kind of object in a namespace, with the moment at which it was heard: a watch that misses nothing, so that a story
//! can ask afterwards what was when, and whether something ever was.
//!
//! It owns a thread with the watch, and what it heard. It never asks again for what the watch has told.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Client, Config};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::cluster::Cluster;

/// How long one watch lasts before it is asked for again, in seconds.
const WATCH_SECONDS: u32 = 290;

/// Between two attempts after a failure.
const AGAIN: Duration = Duration::from_millis(100);

/// An object as it was at some moment.
#[derive(Clone, Debug)]
pub struct Change {
    /// When it was heard.
    pub at: Instant,
    /// Whether it is gone.
    pub deleted: bool,
    /// The object.
    pub object: Value,
}

impl Change {
    /// The object's name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The status of a condition, such as of a pod's `Ready`: `True`, `False`, `Unknown`, or empty where there is none.
    pub fn condition(&self, kind: &str) -> &str {
        let conditions = self.object["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let found = conditions.find(|one| one["type"] == kind);
        found
            .and_then(|one| one["status"].as_str())
            .unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Heard {
    changes: Mutex<(Vec<Change>, bool)>,
    news: Condvar,
}

/// A watch, until it is dropped.
#[derive(Debug)]
pub struct Timeline {
    kind: String,
    heard: Arc<Heard>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Timeline {
    /// Watches the `kind` of a group and version (`v1`, `apps/v1`, `ringside.dev/v1alpha1`) in `namespace`, and returns once what is there was
    /// heard. `plural` is the kind's name in paths.
    ///
    /// # Panics
    /// If it cannot be listed.
    #[track_caller]
    pub fn watch(
        cluster: &Cluster,
        namespace: &str,
        api_version: &str,
        kind: &str,
        plural: &str,
    ) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let (config, namespace) = (cluster.config(), namespace.to_owned());
        let heard = Arc::new(Heard::default());
        let (end, ended) = oneshot::channel();
        let hears = Arc::clone(&heard);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for a watch");
            runtime.block_on(async {
                tokio::select! {
                    () = listen(config, &namespace, &resource, &hears) => {}
                    _ = ended => {}
                }
            });
        });
        let timeline = Self {
            kind: kind.to_owned(),
            heard,
            end: Some(end),
            thread: Some(thread),
        };
        super::await_within(crate::PATIENCE, &format!("a list of {plural}"), || {
            timeline.lock().1.then_some(())
        });
        timeline
    }

    /// Pods of a namespace.
    #[track_caller]
    pub fn pods(cluster: &Cluster, namespace: &str) -> Self {
        Self::watch(cluster, namespace, "v1", "Pod", "pods")
    }

    /// Everything heard so far, in its order.
    pub fn changes(&self) -> Vec<Change> {
        self.lock().0.clone()
    }

    /// The first change heard after `since` for which `is` holds; awaited for `patience` at most.
    ///
    /// # Panics
    /// If there is none, with `what`.
    #[track_caller]
    pub fn first(
        &self,
        since: Instant,
        patience: Duration,
        what: &str,
        is: impl Fn(&Change) -> bool,
    ) -> Change {
        let until = Instant::now() + patience;
        let mut heard = self.lock();
        let mut next = 0;
        loop {
            let found = heard.0[next..]
                .iter()
                .find(|change| change.at >= since && is(change));
            if let Some(change) = found {
                return change.clone();
            }
            next = heard.0.len();
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited {patience:?} in vain for {what} ({}): {:?}",
                self.kind,
                heard.0.last().map(|change| change.object.to_string())
            );
            let waited = self.heard.news.wait_timeout(heard, left);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<Change>, bool)> {
        let changes = self.heard.changes.lock();
        changes.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It says by itself what went wrong.
            let _ = thread.join();
        }
    }
}

impl Heard {
    fn hear(&self, object: &DynamicObject, deleted: bool) {
        let object = serde_json::to_value(object).expect("an object can be written as JSON");
        let at = Instant::now();
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.0.push(Change {
            at,
            deleted,
            object,
        });
        drop(changes);
        self.news.notify_all();
    }
}

async fn listen(config: Config, namespace: &str, resource: &ApiResource, heard: &Heard) {
    let client = Client::try_from(config).expect("a client of a kubeconfig that was read before");
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, resource);
    let mut version: Option<String> = None;
    loop {
        let went = turn(&api, &mut version, heard).await;
        if let Err(error) = went {
            // Such as an API server that a story has killed: what was meanwhile is told by the next watch, from the same version on.
            if matches!(&error, kube::Error::Api(status) if status.code == 410) {
                version = None;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// One watch, after a list where there is no version to go on from.
async fn turn(
    api: &Api<DynamicObject>,
    version: &mut Option<String>,
    heard: &Heard,
) -> kube::Result<()> {
    if version.is_none() {
        let list = api.list(&ListParams::default()).await?;
        for object in &list.items {
            heard.hear(object, false);
        }
        *version = list.metadata.resource_version;
        let mut changes = heard.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.1 = true;
    }
    let from = version.clone().unwrap_or_default();
    let params = WatchParams::default().timeout(WATCH_SECONDS);
    let watch = api.watch(&params, &from).await?;
    let mut watch = std::pin::pin!(watch);
    while let Some(event) = watch.try_next().await? {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                version.clone_from(&object.metadata.resource_version);
                heard.hear(&object, false);
            }
            WatchEvent::Deleted(object) => {
                version.clone_from(&object.metadata.resource_version);
                heard.hear(&object, true);
            }
            WatchEvent::Bookmark(mark) => *version = Some(mark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    Ok(())
}
