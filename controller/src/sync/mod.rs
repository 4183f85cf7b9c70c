//! The controller's side of sync: each sidecar's long poll is checked, told to the fleet, and answered when there is news.
//!
//! It owns the calls that are open, and bounds what each may send and for how long. What is answered is the fleet's to decide.

pub mod identity;
mod refusal;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use ringside_api::sync::{PATH, PodIdentity, REPORT_BYTES_MOST, Report};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fleet::permits::PodId;
use crate::fleet::{Fleet, Turn};
use crate::leader::Leadership;
use identity::Identities;
use refusal::Refused;

/// How long a call of a pod that the API server has not told of yet waits for that.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(5);

/// How long a call waits for a leader to be known, as after a restart: longer than a lease lasts that nobody renews. All sidecars come
/// in that time, and one that is refused comes back only after all others.
const LEADER_PATIENCE: Duration = Duration::from_secs(15);

/// The same for a call that asks to be answered at once: its pod goes by its own permit soon.
const LEADER_PATIENCE_AT_ONCE: Duration = Duration::from_millis(600);

/// How long a report may take to come whole.
pub(crate) const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// How often such a call looks again.
const UNSEEN_LOOK: Duration = Duration::from_millis(250);

/// The certificates by which sidecars are to trust the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// In PEM; empty where sidecars are told nothing.
    pub pem: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// What was answered, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls that are open.
    pub open: AtomicU64,
    /// Calls that got an answer.
    pub answered: AtomicU64,
    /// Calls that were refused.
    pub refused: AtomicU64,
    /// Calls that their sidecar gave up, as for another.
    pub given_up: AtomicU64,
}

/// What all calls share.
#[derive(Debug)]
pub struct Sync {
    fleet: Mutex<Fleet>,
    epoch: Instant,
    identities: Identities,
    leadership: watch::Receiver<Leadership>,
    trust: watch::Receiver<Trust>,
    /// What was answered.
    pub counts: Counts,
}

impl Sync {
    /// Ready for calls, with a fleet that is filled by whoever watches the API server.
    pub fn new(
        fleet: Fleet,
        identities: Identities,
        leadership: watch::Receiver<Leadership>,
        trust: watch::Receiver<Trust>,
    ) -> Self {
        Self {
            fleet: Mutex::new(fleet),
            epoch: Instant::now(),
            identities,
            leadership,
            trust,
            counts: Counts::default(),
        }
    }

    /// The fleet, for a moment: nothing is awaited while it is held.
    pub fn fleet(&self) -> MutexGuard<'_, Fleet> {
        // Nothing in there panics half-way through a change that matters: go on with it.
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fleet's clock.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Who answers, as far as this replica knows.
    pub fn leadership(&self) -> Leadership {
        self.leadership.borrow().clone()
    }

    /// Whose tokens are known.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }
}

/// Where sidecars call.
pub fn router(sync: Arc<Sync>) -> Router {
    Router::new()
        .route(PATH, post(call))
        .layer(DefaultBodyLimit::max(REPORT_BYTES_MOST))
        .with_state(sync)
}

/// A call that is open. Dropped without an answer, the sidecar is gone or calls again.
struct Call {
    sync: Arc<Sync>,
    pod: PodId,
    number: u64,
    is_answered: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.sync.counts.open.fetch_sub(1, Ordering::Relaxed);
        if !self.is_answered {
            self.sync.counts.given_up.fetch_add(1, Ordering::Relaxed);
            let now = self.sync.now();
            self.sync.fleet().end_call(self.pod, self.number, now);
        }
    }
}

async fn call(State(sync): State<Arc<Sync>>, request: Request) -> Response {
    match answer(&sync, request).await {
        Ok(response) => response,
        Err(refused) => {
            sync.counts.refused.fetch_add(1, Ordering::Relaxed);
            refused.log();
            refused.into_response()
        }
    }
}

/// The whole body, in time.
async fn whole(request: Request) -> Result<Bytes, Refused> {
    let read = Bytes::from_request(request, &());
    match tokio::time::timeout(BODY_PATIENCE, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Refused::TooLarge),
        Ok(Err(_)) => Err(Refused::BrokenOff),
        Err(_) => Err(Refused::SlowBody),
    }
}

async fn answer(sync: &Arc<Sync>, request: Request) -> Result<Response, Refused> {
    if let Leadership::Follows {
        leader: leader @ Some(_),
    } = sync.leadership()
    {
        return Err(Refused::NotLeading { leader });
    }
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or(Refused::NoToken)?
        .to_owned();
    // In boxes, which go: what such a question takes would be held for as long as the call is.
    let body = Box::pin(whole(request)).await?;
    let report: Report =
        serde_json::from_slice(&body).map_err(|error| Refused::Malformed(error.to_string()))?;
    drop(body);
    Box::pin(leads(sync, report.at_once)).await?;
    let speaker = Box::pin(sync.identities.of(&token)).await?;
    drop(token);
    if speaker != report.pod {
        return Err(Refused::ForAnother {
            speaker: Box::new(speaker),
            named: Box::new(report.pod),
        });
    }
    let pod = Box::pin(seen(sync, &report.pod)).await?;
    let trusts = report.trusts.clone();
    let mut leadership = sync.leadership.clone();
    let (number, waiter) = {
        let mut fleet = sync.fleet();
        let number = fleet
            .begin_call(pod, report, sync.now())
            .ok_or(Refused::Gone)?;
        (number, fleet.waiter(pod).ok_or(Refused::Gone)?)
    };
    sync.counts.open.fetch_add(1, Ordering::Relaxed);
    let mut call = Call {
        sync: sync.clone(),
        pod,
        number,
        is_answered: false,
    };
    loop {
        // Before looking, so that what happens in between is not missed.
        let stirred = waiter.notified();
        tokio::pin!(stirred);
        stirred.as_mut().enable();
        let turn = sync.fleet().turn(pod, number, sync.now());
        match turn {
            Turn::Answer(mut answer) => {
                call.is_answered = true;
                sync.counts.answered.fetch_add(1, Ordering::Relaxed);
                let trust = sync.trust.borrow();
                if !trust.pem.is_empty() && trust.fingerprint != trusts {
                    answer.ca = Some(trust.pem.clone());
                }
                return Ok(Json(answer).into_response());
            }
            Turn::Over => return Err(Refused::Overtaken),
            Turn::Wait(until) => {
                tokio::select! {
                    () = stirred => {}
                    () = tokio::time::sleep_until(sync.epoch + until) => {}
                    _ = leadership.changed() => {
                        if let Leadership::Follows { leader } = sync.leadership() {
                            return Err(Refused::NotLeading { leader });
                        }
                    }
                }
            }
        }
    }
}

/// That this replica leads, once it is known who does.
async fn leads(sync: &Sync, at_once: bool) -> Result<(), Refused> {
    let patience = if at_once {
        LEADER_PATIENCE_AT_ONCE
    } else {
        LEADER_PATIENCE
    };
    let mut leadership = sync.leadership.clone();
    let known = leadership.wait_for(|now| *now != Leadership::Follows { leader: None });
    let leader = match tokio::time::timeout(patience, known).await {
        Ok(Ok(now)) => match &*now {
            Leadership::Leads => return Ok(()),
            Leadership::Follows { leader } => leader.clone(),
        },
        Ok(Err(_)) | Err(_) => None,
    };
    Err(Refused::NotLeading { leader })
}

/// The pod, once the API server has told of it: its sidecar may call sooner.
async fn seen(sync: &Sync, identity: &PodIdentity) -> Result<PodId, Refused> {
    let until = Instant::now() + UNSEEN_PATIENCE;
    loop {
        if let Some(pod) = sync.fleet().find(identity) {
            return Ok(pod);
        }
        if Instant::now() >= until {
            return Err(Refused::Unseen(Box::new(identity.clone())));
        }
        tokio::time::sleep(UNSEEN_LOOK).await;
    }
}
