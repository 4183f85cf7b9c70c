//! The routes of admission, without TLS. They own paths, the limits of bodies, the memory of reviews and status codes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::TryStreamExt;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Context, Unanswerable, mutate, validate};

/// Where pods are asked about.
pub const INJECT_PATH: &str = "/inject";

/// Where policies are asked about.
pub const VALIDATE_PATH: &str = "/validate";

/// The most bytes of a review: objects have at most 1.5 MiB, and an update brings two.
pub const BODY_BYTES_MOST: usize = 3 << 20;

/// The most bytes of all reviews that are under way, as they came and as they are read: anybody who reaches the port can send some.
const BYTES_AT_ONCE: usize = 64 << 20;

/// The most parts of a review: objects, lists and what follows a comma. Pods have a few thousand.
pub(super) const PARTS_MOST: usize = 100_000;

/// What a part of a review takes when it is read, at the most: an object with one field, which JSON writes in seven bytes, has room for eleven.
const PART_BYTES: usize = 600;

// The largest review is answered when it comes alone.
const _: () = assert!(PARTS_MOST * PART_BYTES + BODY_BYTES_MOST <= BYTES_AT_ONCE);

/// How long a review may take to come whole: as long as an API server waits for its answer.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

type Handler = fn(&Value, &dyn Context) -> Result<Value, Unanswerable>;

/// A refusal: the status, and why.
type Refusal = (StatusCode, String);

/// `POST /inject` and `POST /validate`. What is no review is answered with 400 and a sentence, a body that is too large or of too many parts
/// with 413, one that is too slow with 408, and one for which there is no memory now with 503.
pub fn router(context: Arc<dyn Context>) -> Router {
    let memory = Arc::new(Semaphore::new(BYTES_AT_ONCE));
    let answer_by = |handler: Handler| {
        let memory = memory.clone();
        post(
            move |State(context): State<Arc<dyn Context>>, body: Body| async move {
                let mut held = None;
                let read = tokio::time::timeout(BODY_PATIENCE, read(body, &memory, &mut held));
                match read.await {
                    Ok(Ok(body)) => match make_room(&body, &memory, &mut held) {
                        Ok(()) => answer(handler, &body, &*context),
                        Err(refused) => refused.into_response(),
                    },
                    Ok(Err(refused)) => refused.into_response(),
                    Err(_) => {
                        let why = format!("the review did not come whole within {BODY_PATIENCE:?}");
                        (StatusCode::REQUEST_TIMEOUT, why).into_response()
                    }
                }
            },
        )
    };
    Router::new()
        .route(INJECT_PATH, answer_by(mutate))
        .route(VALIDATE_PATH, answer_by(validate))
        .with_state(context)
}

/// The whole body; its share of the memory for all is `held`.
async fn read<'m>(
    body: Body,
    memory: &'m Semaphore,
    held: &mut Option<SemaphorePermit<'m>>,
) -> Result<Vec<u8>, Refusal> {
    let mut chunks = body.into_data_stream();
    let mut whole = Vec::new();
    loop {
        let chunk = chunks.try_next().await;
        let chunk = chunk.map_err(|error| {
            let why = format!("the review broke off: {error}");
            (StatusCode::BAD_REQUEST, why)
        })?;
        let Some(chunk) = chunk else {
            return Ok(whole);
        };
        if whole.len() + chunk.len() > BODY_BYTES_MOST {
            let why = format!("the review has more than {BODY_BYTES_MOST} bytes");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        hold(chunk.len(), memory, held)?;
        whole.extend_from_slice(&chunk);
    }
}

/// Holds what a review takes when it is read, which may be a hundred times its bytes. Commas and brackets in text count as well: it is
/// looked at, not understood.
fn make_room<'m>(
    body: &[u8],
    memory: &'m Semaphore,
    held: &mut Option<SemaphorePermit<'m>>,
) -> Result<(), Refusal> {
    let is_part = |byte: &&u8| matches!(byte, b'{' | b'[' | b',');
    let parts = body.iter().filter(is_part).count();
    if parts > PARTS_MOST {
        let why = format!("the review has more than {PARTS_MOST} objects, lists and commas");
        return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    hold(parts * PART_BYTES, memory, held)
}

/// Adds to what is `held` of the memory for all.
fn hold<'m>(
    bytes: usize,
    memory: &'m Semaphore,
    held: &mut Option<SemaphorePermit<'m>>,
) -> Result<(), Refusal> {
    let share = u32::try_from(bytes).unwrap_or(u32::MAX);
    let Ok(share) = memory.try_acquire_many(share) else {
        let why = format!("reviews under way have {BYTES_AT_ONCE} bytes already: try again");
        return Err((StatusCode::SERVICE_UNAVAILABLE, why));
    };
    match held {
        Some(held) => held.merge(share),
        None => *held = Some(share),
    }
    Ok(())
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
