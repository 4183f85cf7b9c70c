//! `POST /drain`: the same as SIGTERM.

use std::sync::Arc;

use axum::extract::State as Of;
use axum::http::StatusCode;

use crate::process::State;

/// Begins the drain; asking again changes nothing.
pub(super) async fn drain(Of(state): Of<Arc<State>>) -> (StatusCode, String) {
    let sentence = if state.ask_to_drain("POST /drain") {
        let timeouts = state.team.settings().timeouts;
        format!(
            "draining: listeners close in {}, the process ends with its last connection, at the latest in {}\n",
            timeouts.drain_notice, timeouts.drain
        )
    } else {
        "draining already\n".to_owned()
    };
    (StatusCode::ACCEPTED, sentence)
}
