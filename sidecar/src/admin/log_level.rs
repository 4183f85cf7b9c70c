//! `PUT /log-level`: which log lines are written from now on. `GET` says which are.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State as Of;
use axum::http::StatusCode;

use super::BODY_BYTES_MAX;
use crate::logging::LogLevel;
use crate::process::State;

/// How long a client may take to send the body.
const BODY_LIMIT: Duration = Duration::from_secs(5);

/// Takes a level such as `debug`, or directives such as `info,ringside::worker=debug`.
pub(super) async fn put(Of(state): Of<Arc<State>>, body: Body) -> (StatusCode, String) {
    let read = tokio::time::timeout(BODY_LIMIT, to_bytes(body, BODY_BYTES_MAX)).await;
    let Ok(read) = read else {
        let sentence = format!("the body did not come within {BODY_LIMIT:?}\n");
        return (StatusCode::REQUEST_TIMEOUT, sentence);
    };
    let Ok(bytes) = read else {
        let sentence = format!(
            "the body is longer than {BODY_BYTES_MAX} bytes or broke off: send a level such as debug\n"
        );
        return (StatusCode::PAYLOAD_TOO_LARGE, sentence);
    };
    let parsed = std::str::from_utf8(&bytes)
        .map_err(|_| "the body is no UTF-8 text: send a level such as debug".to_owned())
        .and_then(str::parse::<LogLevel>);
    match parsed {
        Err(sentence) => (StatusCode::BAD_REQUEST, sentence + "\n"),
        Ok(level) => match state.set_log_level(&level) {
            Ok(()) => (StatusCode::OK, format!("{level}\n")),
            Err(sentence) => (StatusCode::INTERNAL_SERVER_ERROR, sentence + "\n"),
        },
    }
}

/// Says which log lines are written.
pub(super) async fn get(Of(state): Of<Arc<State>>) -> String {
    state.log_level() + "\n"
}
