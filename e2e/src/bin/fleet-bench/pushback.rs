//! All of a fleet under pressure at once: who is away is sampled, and told to the API server as a kubelet's probes would tell it.
//!
//! It owns the sampling and the probing, which end with it. What must hold it checks at each step of the samples: that no policy has more pods
//! away than it allows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringside_e2e::fleet::crowd::Crowd;
use ringside_e2e::fleet::probe;
use ringside_e2e::fleet::sampling::{Sampler, Subject};
use ringside_e2e::kubelet::Kubelet;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::deployments::{Place, app};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// Pods of one policy after another, of which so many may be away.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) policies: usize,
    pub(crate) each: usize,
}

/// Who looks, and who tells.
pub(crate) struct Watch<'p> {
    place: &'p Place,
    sampler: Arc<Sampler>,
    kubelet: JoinHandle<()>,
    limit: Limit,
}

impl<'p> Watch<'p> {
    pub(crate) fn start(place: &'p Place, crowd: &Crowd, limit: Limit) -> Self {
        let sampler = Arc::new(Sampler::start());
        for (name, sidecar) in crowd.sidecars() {
            let sidecar = sidecar.clone();
            sampler.watch(name, Subject::Asked(Box::new(move || sidecar.is_away())));
        }
        let kubelet = Kubelet::new(place.client.clone(), &place.namespace, "node-0");
        Self {
            place,
            kubelet: tokio::spawn(probe(kubelet, sampler.clone())),
            sampler,
            limit,
        }
    }

    /// The time on the sampler's clock.
    pub(crate) fn now(&self) -> Duration {
        self.sampler.now()
    }

    /// Waits until exactly so many are away as all policies together allow; returns how long it took.
    ///
    /// # Panics
    /// After ten minutes.
    pub(crate) async fn at_limit(&self) -> Duration {
        self.until(self.limit.policies * self.limit.each, "away")
            .await
    }

    /// Waits until nobody is away.
    pub(crate) async fn all_back(&self) -> Duration {
        self.until(0, "away").await
    }

    async fn until(&self, count: usize, what: &str) -> Duration {
        let begin = Instant::now();
        loop {
            let away = self.sampler.away().len();
            if away == count {
                return begin.elapsed();
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{away} sidecars are {what} after {PATIENCE:?}, and {count} were to be"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the EndpointSlices have so many endpoints that take no connections, in each Service the same; returns how long it took.
    ///
    /// # Panics
    /// After ten minutes.
    pub(crate) async fn endpoints(&self, each: usize) -> Duration {
        let begin = Instant::now();
        loop {
            let away = self.place.endpoints_away().await;
            if away.len() == self.limit.policies && away.iter().all(|&away| away == each) {
                return begin.elapsed();
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "endpoints that are away after {PATIENCE:?}: {away:?}"
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The most pods of one policy that were away at once since that time.
    ///
    /// # Panics
    /// If they were more than the limit.
    pub(crate) fn most_away(&self, since: Duration) -> usize {
        let peaks =
            (0..self.limit.policies).map(|index| self.sampler.peak(&app(index), since).certain);
        let most = peaks.max().unwrap_or(0);
        assert!(
            most <= self.limit.each,
            "{most} pods of a policy were away at once, and {} may be",
            self.limit.each
        );
        most
    }

    /// How closely was looked.
    pub(crate) fn closeness(&self) -> String {
        let (steps, gap) = self.sampler.steps();
        format!(
            "{steps} looks at all, {:.0} ms apart at most",
            gap.as_secs_f64() * 1e3
        )
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}
