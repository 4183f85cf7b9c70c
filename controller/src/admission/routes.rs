//! The routes of admission, without TLS. They own paths, the limit of a body and status codes.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;

use super::{Context, Unanswerable, mutate, validate};

/// Where pods are asked about.
pub const INJECT_PATH: &str = "/inject";

/// Where policies are asked about.
pub const VALIDATE_PATH: &str = "/validate";

/// The most bytes of a review: objects have at most 1.5 MiB, and an update brings two.
pub const BODY_BYTES_MOST: usize = 3 << 20;

type Handler = fn(&Value, &dyn Context) -> Result<Value, Unanswerable>;

/// `POST /inject` and `POST /validate`. What is no review is answered with 400 and a sentence, a body that is too large with 413.
pub fn router(context: Arc<dyn Context>) -> Router {
    let answer_by = |handler: Handler| {
        post(
            move |State(context): State<Arc<dyn Context>>, body: Bytes| async move {
                answer(handler, &body, &*context)
            },
        )
    };
    Router::new()
        .route(INJECT_PATH, answer_by(mutate))
        .route(VALIDATE_PATH, answer_by(validate))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MOST))
        .with_state(context)
}

fn answer(handler: Handler, body: &[u8], context: &dyn Context) -> Response {
    let review = serde_json::from_slice(body).map_err(|error| Unanswerable(error.to_string()));
    match review.and_then(|review| handler(&review, context)) {
        Ok(answer) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (kind, answer.to_string()).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}
