//! The controller's side of sync: each sidecar's calls are checked, told to the fleet, and answered when there is news.
//!
//! It owns the calls that are open, and bounds what each may send and for how long. What is answered is the fleet's to decide.

mod held;
pub mod identity;
mod line;
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
use ringside_api::sync::frames::PROTOCOL;
use ringside_api::sync::{PATH, PodIdentity, REPORT_BYTES_MOST, Report};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fleet::Fleet;
use crate::fleet::permits::PodId;
use crate::leader::Leadership;
use crate::serve::Takeover;
use held::Held;
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

async fn call(State(sync): State<Arc<Sync>>, request: Request) -> Response {
    let takeover = takeover(&request);
    let called = match Box::pin(taken(&sync, request)).await {
        Ok(held) => held,
        Err(refused) => return told(&sync, refused).into_response(),
    };
    match takeover {
        Some(takeover) => {
            takeover.follow_with(|stream, activity| {
                Box::pin(line::speak(sync, called, stream, activity))
            });
            let head = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
            (StatusCode::SWITCHING_PROTOCOLS, head).into_response()
        }
        // Whoever looks by hand.
        None => match { called }.answer().await {
            Ok(answer) => Json(answer).into_response(),
            Err(refused) => told(&sync, refused).into_response(),
        },
    }
}

/// What turns the connection into a line, where that is asked for.
fn takeover(request: &Request) -> Option<Takeover> {
    let asked = request.headers().get(header::UPGRADE)?;
    let takeover = request.extensions().get::<Takeover>()?;
    asked
        .as_bytes()
        .eq_ignore_ascii_case(PROTOCOL.as_bytes())
        .then(|| takeover.clone())
}

/// Counts and logs a refusal.
fn told(sync: &Sync, refused: Refused) -> Refused {
    sync.counts.refused.fetch_add(1, Ordering::Relaxed);
    refused.log();
    refused
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

/// A call that came as a request.
async fn taken(sync: &Arc<Sync>, request: Request) -> Result<Held, Refused> {
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
    let body = whole(request).await?;
    let report =
        serde_json::from_slice(&body).map_err(|error| Refused::Malformed(error.to_string()))?;
    admit(sync, &token, report).await
}

/// Takes a call of whoever's token this is.
async fn admit(sync: &Arc<Sync>, token: &str, report: Report) -> Result<Held, Refused> {
    // A fleet that waits for a new leader is known by the time that there is one, rather than asked about as a whole in that moment.
    let (speaker, ()) = tokio::try_join!(sync.identities.of(token), leads(sync, report.at_once))?;
    if speaker != report.pod {
        return Err(Refused::ForAnother {
            speaker: Box::new(speaker),
            named: Box::new(report.pod),
        });
    }
    let pod = seen(sync, &report.pod).await?;
    Held::begin(sync, pod, report)
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
