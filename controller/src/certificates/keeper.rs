//! Carries out the plan: the leader writes the Secret, every replica loads what is in it.
//!
//! It owns the watch on the Secret and the retries. A Secret is written only over what was read, so that of two that take themselves
//! for the leader one reads again. It decides nothing about certificates, and writes no Secret that somebody else keeps.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::contents::Contents;
use super::handle::Handle;
use super::plan::{Plan, plan, recovered};
use super::reading::{Fault, verify};
use super::terms::Terms;
use super::webhooks::{self, Webhooks};
use crate::answered::answered;

/// The longest time without a look at the clock, which may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// How often a Secret is planned and written in a row before there is a pause.
const STEPS_MOST: usize = 8;

/// Who makes the certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Managed {
    /// The leader, in process.
    #[default]
    Here,
    /// Somebody else, such as cert-manager: the Secret is read, and never written.
    External,
}

/// What a keeper is told.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub secret: String,
    /// Who makes what is in it.
    pub managed: Managed,
    /// For whom and for how long; with [`Managed::External`] only the names matter.
    pub terms: Terms,
    /// Where the bundle is to be.
    pub webhooks: Webhooks,
}

/// Keeps the certificates of a replica.
pub struct Keeper {
    client: Client,
    api: Api<Secret>,
    setup: Setup,
    handle: Handle,
    leads: watch::Receiver<bool>,
    told: String,
}

/// What came of a look at the Secret.
enum Outcome {
    /// Nothing is to be done before then.
    Until(Timestamp),
    /// Something went wrong, which is told: once more after a pause.
    Again,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("setup", &self.setup)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// A keeper, and what others see of it. `leads` says whether this replica is the leader: it alone writes.
    pub fn new(client: Client, setup: Setup, leads: watch::Receiver<bool>) -> (Self, Handle) {
        let handle = Handle::default();
        let keeper = Self {
            api: Api::namespaced(client.clone(), &setup.namespace),
            client,
            setup,
            handle: handle.clone(),
            leads,
            told: String::new(),
        };
        (keeper, handle)
    }

    /// Keeps them until `stop` says so or its sender is gone. What fails is told and tried again.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let spread = self.setup.webhooks.each().into_iter().map(|configuration| {
            let (client, handle) = (self.client.clone(), self.handle.clone());
            webhooks::keep(client, configuration, handle, self.leads.clone())
        });
        let spread = join_all(spread.collect::<Vec<_>>());
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            _ = async { tokio::join!(self.keep(), spread) } => {}
        }
    }

    async fn keep(mut self) {
        let name = self.setup.secret.clone();
        let mut secrets = pin!(watcher::watch_object(self.api.clone(), &name).default_backoff());
        // Unknown at first, which is not the same as absent.
        let mut seen: Option<Option<Secret>> = None;
        let mut next = Instant::now() + LOOK_AGAIN;
        loop {
            tokio::select! {
                event = secrets.next() => match event {
                    Some(Ok(secret)) => seen = Some(secret),
                    Some(Err(error)) => {
                        self.tell(format!("it cannot be watched: {error}; it is tried again, and needs get, list and watch"));
                        continue;
                    }
                    None => return,
                },
                Ok(()) = self.leads.changed() => {}
                () = sleep_until(next) => {}
            }
            let Some(secret) = &mut seen else { continue };
            next = match self.look(secret).await {
                Outcome::Until(time) => {
                    let left = time
                        .as_second()
                        .saturating_sub(Timestamp::now().as_second());
                    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
                    Instant::now() + left.clamp(Duration::from_secs(1), LOOK_AGAIN)
                }
                Outcome::Again => Instant::now() + Duration::from_millis(fastrand::u64(500..2_000)),
            };
        }
    }

    /// Loads what was seen, and does what is to be done, if it is this replica's to do.
    async fn look(&mut self, seen: &mut Option<Secret>) -> Outcome {
        let writes = self.setup.managed == Managed::Here && *self.leads.borrow();
        // Before it is loaded: what is spoilt is mended by what was good.
        if writes {
            for _ in 0..STEPS_MOST {
                match self.step(seen).await {
                    Ok(Some(outcome)) => {
                        self.load(seen.as_ref());
                        return outcome;
                    }
                    Ok(None) => self.load(seen.as_ref()),
                    Err(problem) => {
                        self.load(seen.as_ref());
                        self.tell(problem);
                        return Outcome::Again;
                    }
                }
            }
            return Outcome::Again;
        }
        self.load(seen.as_ref());
        Outcome::Until(Timestamp::MAX)
    }

    /// Plans once and writes what is planned; `None` where something changed, so that it is to be planned anew.
    async fn step(&self, seen: &mut Option<Secret>) -> Result<Option<Outcome>, String> {
        let now = Timestamp::now();
        let contents = seen.as_ref().map(Contents::of);
        let last = self.handle.last_good();
        let mended = recovered(contents.as_ref(), last.as_ref(), now);
        let from = mended.as_ref().or(contents.as_ref());
        let planned = plan(from, now, &self.setup.terms).map_err(|error| error.to_string())?;
        let (next, reason) = match (planned, mended) {
            (Plan::Keep { until }, None) => return Ok(Some(Outcome::Until(until))),
            (Plan::Keep { .. }, Some(mended)) => (mended, "what it held was spoilt".to_owned()),
            (Plan::Write { contents, reason }, _) => (contents, reason),
        };
        let Setup {
            namespace, secret, ..
        } = &self.setup;
        let written = next.into_secret(namespace, secret, seen.as_ref());
        let params = PostParams::default();
        let answer = match seen {
            Some(_) => answered(self.api.replace(secret, &params, &written)).await,
            None => answered(self.api.create(&params, &written)).await,
        };
        match answer {
            Ok(secret) => {
                info!(
                    secret = self.setup.secret,
                    namespace, "the Secret was written because {reason}"
                );
                *seen = Some(secret);
                Ok(None)
            }
            // Another replica was first, or it is gone: what is there now counts.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                let found = answered(self.api.get_opt(secret)).await;
                *seen = found.map_err(|error| format!("it cannot be read: {error}"))?;
                Ok(None)
            }
            Err(error) => Err(format!(
                "it cannot be written, which it should be because {reason}: {error}; it is tried again, and needs the verbs create and update"
            )),
        }
    }

    fn load(&mut self, secret: Option<&Secret>) {
        let loaded = match secret {
            None => Err(Fault::NoSecret),
            Some(secret) => {
                let contents = Contents::of(secret);
                let loaded = self.handle.load(&contents);
                // What can be shown may still be refused by whoever looks closer; it is told, as nothing better is there.
                loaded.and_then(|is_new| {
                    let good = verify(&contents, self.setup.terms.names(), Timestamp::now());
                    good.map(|verified| (is_new, verified))
                })
            }
        };
        match loaded {
            Ok((is_new, verified)) => {
                self.handle.set_problem(None);
                self.told.clear();
                if is_new {
                    let fingerprint = self.handle.ca_fingerprint();
                    info!(
                        until = %verified.until,
                        ca = fingerprint,
                        "the certificate was loaded"
                    );
                }
            }
            Err(fault) => {
                let tried = match self.setup.managed {
                    Managed::Here => "the leader makes it anew",
                    Managed::External => "whoever keeps it has to mend it",
                };
                self.tell(format!(
                    "{fault}; the last good certificate stays, and {tried}"
                ));
            }
        }
    }

    fn tell(&mut self, problem: String) {
        let Setup {
            namespace, secret, ..
        } = &self.setup;
        let problem = format!("the Secret {namespace}/{secret}: {problem}");
        if problem != self.told {
            warn!("{problem}");
        }
        self.handle.set_problem(Some(problem.clone()));
        self.told = problem;
    }
}
