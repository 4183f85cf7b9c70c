//! Probes: is it alive, is it ready, has it started. Each answers 200 or 503 with a sentence.

use std::sync::Arc;

use axum::extract::State as Of;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderName};

use crate::process::State;
use crate::process::judging::{Judgement, Phase};

type Answer = (StatusCode, [(HeaderName, &'static str); 1], String);

fn answer(judged: Judgement) -> Answer {
    let status = if judged.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(CACHE_CONTROL, "no-store")], judged.reason + "\n")
}

/// Fails only when a worker's loop has stopped turning: never on load.
pub(super) async fn livez(Of(state): Of<Arc<State>>) -> Answer {
    answer(state.liveness())
}

/// Fails while pushback is sustained, at a start, and from the moment at which a drain begins.
pub(super) async fn readyz(Of(state): Of<Arc<State>>) -> Answer {
    answer(state.readiness())
}

/// Fails until the relays have listened once.
pub(super) async fn startupz(Of(state): Of<Arc<State>>) -> Answer {
    let started = state.phase() != Phase::Starting;
    answer(Judgement {
        ready: started,
        reason: if started { "started" } else { "starting" }.to_owned(),
        ..state.liveness()
    })
}
