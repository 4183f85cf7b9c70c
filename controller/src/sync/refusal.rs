//! Why a call is refused: its status, its sentence, and a line in the log that a flood of them cannot fill.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use ringside_api::sync::{PodIdentity, REPORT_BYTES_MOST, Refusal};
use thiserror::Error;

use super::BODY_PATIENCE;

/// The least time between two lines of one kind, in seconds.
const LINE_EVERY_SECONDS: u64 = 10;

/// After how many seconds a sidecar may come back that comes too early.
pub(super) const RETRY_AFTER_SECONDS: u16 = 2;

/// Why a call is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Refused {
    #[error("this replica does not lead")]
    NotLeading { leader: Option<String> },
    #[error(
        "a call needs the header Authorization: Bearer TOKEN, with a service account token for the audience ringside.dev"
    )]
    NoToken,
    #[error("the report cannot be read: {0}")]
    Malformed(String),
    #[error("the report has more than {REPORT_BYTES_MOST} bytes, which is the most that is read")]
    TooLarge,
    #[error("the report did not come whole within {BODY_PATIENCE:?}")]
    SlowBody,
    #[error("the report broke off")]
    BrokenOff,
    #[error("the token is not accepted: {0}")]
    BadToken(String),
    #[error("the token is that of pod {}/{} ({}), and the report is in the name of {}/{} ({})", speaker.namespace, speaker.name, speaker.uid, named.namespace, named.name, named.uid)]
    ForAnother {
        speaker: Box<PodIdentity>,
        named: Box<PodIdentity>,
    },
    #[error("pod {}/{} ({}) is not known: it has no relay, ends, or the API server has not told of it yet", .0.namespace, .0.name, .0.uid)]
    Unseen(Box<PodIdentity>),
    #[error("the pod is gone")]
    Gone,
    #[error("the pod has made another call")]
    Overtaken,
    #[error("the API server cannot be asked about the token: {0}")]
    CannotAsk(String),
    #[error("too many tokens are being checked")]
    Busy,
}

/// Lines kept back, by kind.
static KINDS: [Kind; 13] = [const { Kind::new() }; 13];

struct Kind {
    told_at: AtomicU64,
    kept_back: AtomicU64,
}

impl Kind {
    const fn new() -> Self {
        Self {
            told_at: AtomicU64::new(0),
            kept_back: AtomicU64::new(0),
        }
    }
}

impl Refused {
    fn kind(&self) -> usize {
        match self {
            Self::NotLeading { .. } => 0,
            Self::NoToken => 1,
            Self::Malformed(_) => 2,
            Self::BadToken(_) => 3,
            Self::ForAnother { .. } => 4,
            Self::Unseen(_) => 5,
            Self::Gone => 6,
            Self::Overtaken => 7,
            Self::CannotAsk(_) => 8,
            Self::Busy => 9,
            Self::TooLarge => 10,
            Self::SlowBody => 11,
            Self::BrokenOff => 12,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotLeading { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::NoToken | Self::BadToken(_) => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::ForAnother { .. } => StatusCode::FORBIDDEN,
            Self::Unseen(_) | Self::CannotAsk(_) | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Gone => StatusCode::GONE,
            Self::Overtaken => StatusCode::CONFLICT,
        }
    }

    /// One line for each kind and ten seconds, which says how many there were besides. What is everyday is not told.
    pub(super) fn log(&self) {
        if matches!(self, Self::NotLeading { .. } | Self::Overtaken | Self::Gone) {
            return;
        }
        let kind = &KINDS[self.kind()];
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let told_at = kind.told_at.load(Ordering::Relaxed);
        let is_due = now >= told_at + LINE_EVERY_SECONDS;
        if is_due
            && kind
                .told_at
                .compare_exchange(told_at, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let more = kind.kept_back.swap(0, Ordering::Relaxed);
            tracing::warn!(
                status = self.status().as_u16(),
                more_since_the_last_line = more,
                "a call was refused: {self}"
            );
        } else {
            kind.kept_back.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl From<&Refused> for Refusal {
    fn from(refused: &Refused) -> Self {
        let leader = match refused {
            Refused::NotLeading { leader } => leader.clone(),
            _ => None,
        };
        let why = refused.to_string();
        Self { why, leader }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(Refusal::from(&self))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let after = HeaderValue::from(RETRY_AFTER_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, after);
        }
        response
    }
}
