//! Which requests go wrong, and how.
//!
//! It decides and answers; it carries nothing.

use std::time::Duration;

use hyper::{Method, Response, StatusCode};
use kube::client::Body;
use serde_json::json;

/// Some of the requests to the API server: all, until it is narrowed down.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    method: Option<Method>,
    path: Option<String>,
    watches: Option<bool>,
}

impl Requests {
    /// All requests.
    pub fn all() -> Self {
        Self::default()
    }

    /// Of this method only, such as `PATCH`.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// With this in the path only, such as `/relaypolicies`.
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    /// Watches only.
    #[must_use]
    pub fn watches(mut self) -> Self {
        self.watches = Some(true);
        self
    }

    /// Everything but watches.
    #[must_use]
    pub fn no_watches(mut self) -> Self {
        self.watches = Some(false);
        self
    }

    pub(super) fn includes(&self, seen: &Seen) -> bool {
        let Self {
            method,
            path,
            watches,
        } = self;
        method.as_ref().is_none_or(|method| *method == seen.method)
            && path.as_ref().is_none_or(|part| seen.path.contains(part))
            && watches.is_none_or(|watches| watches == seen.is_watch)
    }
}

/// A request that came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path, without what was asked after it.
    pub path: String,
    /// Whether it asked for a watch.
    pub is_watch: bool,
    /// What was answered, or `None` for nothing.
    pub status: Option<StatusCode>,
}

/// What goes wrong with a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered so, with the Status object that the API server sends with that code, and never reaches it.
    Answer(StatusCode),
    /// It waits so long, and goes on.
    Delay(Duration),
    /// It waits until the fault is lifted, and goes on.
    Hang,
    /// Its connection ends without an answer, and it never reaches the API server.
    Cut,
    /// The API server does what it asks, and its connection ends without an answer.
    LoseAnswer,
    /// A watch begins, says that it has expired (410, as an event), and ends.
    ExpireWatch,
}

/// The answer that the API server gives with a code.
pub(super) fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    if matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        response = response.header("retry-after", "1");
    }
    let body = describe(status).to_string().into_bytes();
    response
        .body(body.into())
        .expect("an answer of constants is well formed")
}

/// A watch that is told that its version is too old.
pub(super) fn expired_watch() -> Response<Body> {
    let event = json!({"type": "ERROR", "object": describe(StatusCode::GONE)});
    Response::builder()
        .header("content-type", "application/json")
        .body(format!("{event}\n").into_bytes().into())
        .expect("an answer of constants is well formed")
}

/// A Status object.
fn describe(status: StatusCode) -> serde_json::Value {
    let reason = match status.as_u16() {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the test's proxy answers {status}"), "reason": reason, "code": status.as_u16(),
    })
}
