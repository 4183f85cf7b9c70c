//! What `/statusz` shows of the controller: the connection, what it assigned and what was refused, and where the pod stands on
//! leaving.

use ringside_api::sync::Leave;
use serde::Serialize;

use crate::process::State;
use crate::time::Time;

/// A sidecar's view of its controller.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Controller {
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_for_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_seconds_ago: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
    /// What runs of what was assigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<Runs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
    /// Why the controller assigns nothing, as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    keeps: Option<String>,
    /// The fingerprint of the certificates that it is trusted by.
    trusts: String,
    /// Whether the pod may leave when no answer comes.
    permit: bool,
    /// `stays`, `wants` or `away`.
    leave: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LastError {
    message: String,
    seconds_ago: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Runs {
    hash: String,
    policy: String,
    found_in: &'static str,
}

#[derive(Debug, Serialize)]
struct Refused {
    hash: String,
    why: String,
}

/// What is seen of the controller; `None` where there is none.
pub(super) fn controller(state: &State) -> Option<Controller> {
    let seen = state.view.as_ref()?.seen();
    let now = state.now();
    let seconds = |since: Time| now.saturating_since(since).as_secs_f64();
    let settings = state.live.now();
    let leave = state.readiness().leave;
    let permit = state.leaving().permit();
    Some(Controller {
        connected: seen.connected.is_some(),
        address: seen.connected.map(|(address, _)| address.to_string()),
        connected_for_seconds: seen.connected.map(|(_, since)| seconds(since)),
        answered_seconds_ago: seen.last_answer.map(seconds),
        last_error: seen.last_error.map(|(message, at)| LastError {
            message,
            seconds_ago: seconds(at),
        }),
        runs: settings.assignment.as_ref().map(|runs| Runs {
            hash: runs.assigned.hash.clone(),
            policy: runs.assigned.policy.clone(),
            found_in: runs.from.label(),
        }),
        refused: settings.refused_offer.clone().map(|refused| Refused {
            hash: refused.hash,
            why: refused.why,
        }),
        keeps: seen.keeps,
        trusts: seen.trusts,
        permit,
        leave: match leave {
            Leave::Stays => "stays",
            Leave::Wants => "wants",
            Leave::Away => "away",
        },
    })
}
