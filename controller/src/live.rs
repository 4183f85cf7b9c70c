//! What admission needs to know of the cluster, answered from what is watched.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use ringside_api::Patch;
use ringside_api::resources;
use ringside_api::sync::Assigned;

use crate::admission::{Context, NamedPatch, PodFacts};
use crate::inject::{Injected, Injection, Outcome};
use crate::sync::Sync;

/// What came of pods that were asked about, for metrics.
#[derive(Debug, Default)]
pub struct Asked {
    /// Pods that got a relay.
    pub injected: AtomicU64,
    /// Pods that got none.
    pub skipped: AtomicU64,
    /// Warnings given.
    pub warnings: AtomicU64,
}

/// The cluster as it is watched.
pub struct Live {
    sync: Arc<Sync>,
    injection: ArcSwap<Injection>,
    /// What came of pods.
    pub asked: Asked,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Pods get what `injection` says.
    pub fn new(sync: Arc<Sync>, injection: Injection) -> Self {
        Self {
            sync,
            injection: ArcSwap::from_pointee(injection),
            asked: Asked::default(),
        }
    }

    /// From now on pods trust the controller by these certificates, in PEM.
    pub fn trust(&self, ca_pem: &str) {
        let mut injection = Injection::clone(&self.injection.load());
        if let Some(controller) = &mut injection.controller {
            ca_pem.clone_into(&mut controller.ca_pem);
        }
        self.injection.store(Arc::new(injection));
    }
}

impl Context for Live {
    fn injection(&self) -> Arc<Injection> {
        self.injection.load_full()
    }

    fn assigned(&self, pod: &PodFacts) -> Assigned {
        let facts = resources::PodFacts {
            labels: Some(&pod.labels),
            named_policy: pod.named_policy.as_deref(),
        };
        self.sync.fleet().assigned(&pod.namespace, &facts)
    }

    fn cluster_settings(&self) -> Patch {
        self.sync.fleet().policies().cluster_patch()
    }

    fn policies(&self) -> Vec<NamedPatch> {
        let accepted = self.sync.fleet().policies().accepted();
        let named = accepted
            .into_iter()
            .map(|((namespace, name), settings)| NamedPatch {
                name: format!("{namespace}/{name}"),
                settings,
            });
        named.collect()
    }

    fn answered(&self, namespace: &str, name: &str, injected: &Injected) {
        let count = match &injected.outcome {
            Outcome::Patch(_) => &self.asked.injected,
            Outcome::Skipped(reason) => {
                tracing::info!(namespace, pod = name, "no relay is added: {reason}");
                &self.asked.skipped
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        let warnings = injected.warnings.len() as u64;
        self.asked.warnings.fetch_add(warnings, Ordering::Relaxed);
    }
}
