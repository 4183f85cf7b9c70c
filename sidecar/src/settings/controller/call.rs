//! What is said in a call, and what it means where the answer is none. It owns the token's file, the first call as HTTP, and the limits of both.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, UPGRADE,
};
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use ringside_api::sync::frames::PROTOCOL;
use ringside_api::sync::{PATH, Refusal, Report};

use super::failure::{Failure, RETRY_AFTER_MAX};
use super::{Controller, reading};

/// The most bytes of an answer.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The file of the token. The kubelet replaces it, so that it is read anew for each call.
const TOKEN_FILE: &str = "token";

/// The most bytes of a token.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// The most characters of what the controller says that are repeated.
const WHY_CHARS_MAX: usize = 200;

/// Says who this is.
pub(super) fn token(controller: &Controller) -> Result<String, Failure> {
    let path = controller.pod_files.join(TOKEN_FILE);
    let refuse = |problem: &dyn std::fmt::Display| {
        Failure::Refused(format!("{} cannot be shown: {problem}", path.display()))
    };
    let text = reading::text(&path, TOKEN_BYTES_MAX).map_err(|error| refuse(&error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(refuse(&"it is empty"));
    }
    if HeaderValue::from_str(token).is_err() {
        return Err(refuse(&"it has characters that no token has"));
    }
    Ok(token.to_owned())
}

/// A connection's first call, which asks for frames after it.
pub(super) fn request(
    controller: &Controller,
    token: &str,
    report: &Report,
) -> Result<Request<Body>, Failure> {
    let unmade =
        |error: &dyn std::fmt::Display| Failure::Failed(format!("no request can be made: {error}"));
    let body = serde_json::to_vec(report).map_err(|error| unmade(&error))?;
    let mut shown =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| unmade(&error))?;
    shown.set_sensitive(true);
    Request::post(PATH)
        .header(HOST, controller.address.to_string())
        .header(AUTHORIZATION, shown)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(CONNECTION, HeaderValue::from_static("upgrade"))
        .header(UPGRADE, HeaderValue::from_static(PROTOCOL))
        .body(Body::from(body))
        .map_err(|error| unmade(&error))
}

/// What HTTP says instead of an upgrade.
pub(super) async fn not_upgraded(answer: Response<Incoming>) -> Failure {
    let (head, body) = answer.into_parts();
    let body = match to_bytes(Body::new(body), ANSWER_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => {
            return Failure::Failed(format!(
                "it is longer than {ANSWER_BYTES_MAX} bytes or broke off ({error})"
            ));
        }
    };
    let seconds = head.headers.get(RETRY_AFTER);
    let seconds = seconds.and_then(|after| after.to_str().ok());
    let seconds = seconds.and_then(|seconds| seconds.trim().parse().ok());
    refused(head.status, seconds, &body)
}

/// What an answer means that is none.
pub(super) fn refused(
    status: StatusCode,
    retry_after_seconds: Option<u64>,
    body: &[u8],
) -> Failure {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let why = match refusal.why.as_str() {
        "" => format!("status {status}"),
        why => brief(why, WHY_CHARS_MAX),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused(why),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let wait = retry_after_seconds.map(Duration::from_secs);
            Failure::Busy {
                why,
                wait: wait.map(|wait| wait.min(RETRY_AFTER_MAX)),
            }
        }
        StatusCode::MISDIRECTED_REQUEST => Failure::Redirected {
            why,
            leader: refusal.leader.and_then(|leader| leader.parse().ok()),
        },
        _ => Failure::Failed(format!("{status}: {why}")),
    }
}

/// What somebody else says, short and printable.
pub(super) fn brief(text: &str, chars_most: usize) -> String {
    let shown = text.chars().filter(|shown| !shown.is_control());
    shown.take(chars_most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_means_is_told_by_its_status() {
        let busy = |after| match refused(StatusCode::SERVICE_UNAVAILABLE, after, b"") {
            Failure::Busy { wait, .. } => wait,
            other => panic!("{other}"),
        };
        assert_eq!(busy(Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(busy(Some(99_999_999)), Some(RETRY_AFTER_MAX));
        assert_eq!(busy(None), None);
        let misdirected = br#"{"why": "I follow", "leader": "10.0.0.7:8443", "more": 1}"#;
        assert_eq!(
            refused(StatusCode::MISDIRECTED_REQUEST, None, misdirected),
            Failure::Redirected {
                why: "I follow".to_owned(),
                leader: Some("10.0.0.7:8443".parse().unwrap())
            }
        );
        let said = refused(StatusCode::UNAUTHORIZED, None, b"<html>");
        assert_eq!(said, Failure::Refused("status 401 Unauthorized".to_owned()));
    }
}
