//! One call: a report goes up, an answer comes down, both bounded in bytes and in time.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use axum::http::{Request, StatusCode};
use hyper::body::Bytes;
use ringside_api::sync::{PATH, Refusal, Report};

use super::connection::Connection;
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

/// Says who this is, as the token does.
pub(super) fn authorization(controller: &Controller) -> Result<HeaderValue, Failure> {
    let path = controller.pod_files.join(TOKEN_FILE);
    let refuse = |problem: &dyn std::fmt::Display| {
        Failure::Refused(format!("{} cannot be shown: {problem}", path.display()))
    };
    let text = reading::text(&path, TOKEN_BYTES_MAX).map_err(|error| refuse(&error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(refuse(&"it is empty"));
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| refuse(&"it has characters that no token has"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The call as it goes over a connection.
pub(super) fn request(
    controller: &Controller,
    authorization: HeaderValue,
    report: &Report,
) -> Result<Request<Body>, Failure> {
    let body = serde_json::to_vec(report).map_err(|error| Failure::Failed(error.to_string()))?;
    Request::post(PATH)
        .header(HOST, controller.address.to_string())
        .header(AUTHORIZATION, authorization)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Body::from(body))
        .map_err(|error| Failure::Failed(format!("no request can be made: {error}")))
}

/// Makes the call, in `limit` at most. The connection comes back with the answer.
pub(super) async fn call(
    mut connection: Connection,
    request: Request<Body>,
    limit: Duration,
) -> (Connection, Result<Bytes, Failure>) {
    let called = tokio::time::timeout(limit, call_unbounded(&mut connection, request));
    let answer = called.await.unwrap_or_else(|_| {
        Err(Failure::TimedOut(format!(
            "there was no whole answer within {limit:?}"
        )))
    });
    (connection, answer)
}

async fn call_unbounded(
    connection: &mut Connection,
    request: Request<Body>,
) -> Result<Bytes, Failure> {
    let broke = |error: hyper::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let (peer, cause) = (connection.peer, cause.unwrap_or_default());
        Failure::Unreachable(format!("the connection to {peer} broke: {error}{cause}"))
    };
    connection.sender.ready().await.map_err(broke)?;
    let answer = connection.sender.send_request(request).await;
    let (head, body) = answer.map_err(broke)?.into_parts();
    let body = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await;
    let body = body.map_err(|error| {
        Failure::Failed(format!(
            "it is longer than {ANSWER_BYTES_MAX} bytes or broke off ({error})"
        ))
    })?;
    if head.status == StatusCode::OK {
        return Ok(body);
    }
    Err(refused(head.status, &head.headers, &body))
}

/// What an answer means that is not 200.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let why = match refusal.why.as_str() {
        "" => format!("status {status}"),
        why => brief(why, WHY_CHARS_MAX),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused(why),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let seconds = headers
                .get(RETRY_AFTER)
                .and_then(|after| after.to_str().ok());
            let wait = seconds.and_then(|seconds| seconds.trim().parse().ok());
            Failure::Busy {
                why,
                wait: wait.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
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
        let after = |value: &'static str| {
            HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))])
        };
        let busy = |value| match refused(StatusCode::SERVICE_UNAVAILABLE, &after(value), b"") {
            Failure::Busy { wait, .. } => wait,
            other => panic!("{other}"),
        };
        assert_eq!(busy("7"), Some(Duration::from_secs(7)));
        assert_eq!(busy("99999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(busy("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        let misdirected = br#"{"why": "I follow", "leader": "10.0.0.7:8443", "more": 1}"#;
        assert_eq!(
            refused(
                StatusCode::MISDIRECTED_REQUEST,
                &HeaderMap::new(),
                misdirected
            ),
            Failure::Redirected {
                why: "I follow".to_owned(),
                leader: Some("10.0.0.7:8443".parse().unwrap())
            }
        );
        let said = refused(StatusCode::UNAUTHORIZED, &HeaderMap::new(), b"<html>");
        assert_eq!(said, Failure::Refused("status 401 Unauthorized".to_owned()));
    }
}
